"""Keys and values are the optimum of an SVR; wrong ones are not; and the error bound holds."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from primal_dual import (
    BatchNorm,
    Causal,
    Everything,
    Heads,
    Polynomial,
    Primal,
    attention,
    catalog,
    certify,
    heads,
    solve_dual,
    solve_primal,
)
from primal_dual.io.datasets import japanese_vowels
from primal_dual.svr.training_sets import training_set
from tests.problems import kernels, naive_attention, primals, random_mask, seeds

ENTRIES = [name for name, primal in catalog.items() if isinstance(primal, Primal)]


def proven(certificate, cancellation=0.0):
    gap = certificate.primal_value - certificate.dual_value
    assert abs(certificate.relative_gap) <= 1e-12 or abs(gap) <= 1e-12 * cancellation
    assert certificate.stationarity <= 1e-11 and certificate.feasibility <= 1e-12


def cancellation(primal, k, v, query):
    """sum_ij |v_i| K_ij |v_j| in the certificate's units."""
    train = training_set(primal, k, query)
    w, top, _, log_h = train.own_rows
    sizes = abs(train.pool(v))
    return (sizes * (abs(w) @ sizes) * np.exp(top - log_h.max())).sum()


@given(primals(normalizers=st.just("sum"), biases=st.just(False)), seeds, st.booleans(), st.sampled_from((0.0, 0.3)))
@settings(max_examples=150)
def test_any_keys_and_values_are_an_optimum(primal, seed, masked, epsilon):
    rng = np.random.default_rng(seed)
    k, v = rng.choice([0.3, 1, 4]) * rng.standard_normal((9, 3)), rng.standard_normal((9, 2))
    primal = replace(primal, support=random_mask(rng, 9, 9)) if masked else primal
    certificate = certify(primal, k, v, epsilon=epsilon)
    proven(certificate, cancellation(primal, k, v, certificate.query))
    assert (certificate.query is None) == (primal.support == Everything())


@pytest.mark.parametrize("name", ENTRIES)
@pytest.mark.parametrize("size", [0.1, 1, 8])
def test_the_catalog_is_certified(name, size):
    rng = np.random.default_rng(0)
    k, v = size * rng.standard_normal((23, 16)), rng.standard_normal((23, 5))
    proven(certify(catalog[name], k, v))


@pytest.mark.parametrize("name", ["softmax", "bn", "sh", "linear", "conv1d", "rbf"])
def test_a_head_of_1024_keys_and_logits_of_1000(name):
    rng = np.random.default_rng(0)
    k, v = rng.standard_normal((1024, 64)), rng.standard_normal((1024, 64))
    k *= np.sqrt(1000 / (abs(k @ k.T) / 8).max())
    proven(certify(catalog[name], k, v))


def test_its_numbers_are_those_of_the_svr():
    """Each evaluated a second time, from the formulas, without logarithms."""
    rng = np.random.default_rng(0)
    k, v, epsilon = rng.standard_normal((7, 3)), rng.standard_normal((7, 2)), 0.2
    certificate = certify(Primal(), k, v, epsilon=epsilon)
    K = np.exp(k @ k.T / np.sqrt(3))
    h = K.sum(axis=1)
    delta = h[:, None] * v
    f = naive_attention(Primal(), k, k, v)
    y = f + epsilon * np.sign(delta)
    C = abs(delta).max()
    G = K / np.outer(h, h)
    square = np.einsum("id,ij,jd->", delta, G, delta)
    P = square / 2 + C * np.maximum(abs(y - f) - epsilon, 0).sum()
    D = -square / 2 - epsilon * abs(delta).sum() + (y * delta).sum()
    unit = np.exp(certificate.log_scale)
    np.testing.assert_allclose(certificate.targets, y, rtol=1e-12)
    np.testing.assert_allclose(
        [
            np.exp(certificate.log_scale),
            np.exp(certificate.log_C),
            unit * certificate.primal_value,
            unit * certificate.dual_value,
        ],
        [h.max(), C, P, D],
        rtol=1e-12,
    )
    assert certificate.complementarity <= 1e-12
    y, x = rng.standard_normal((7, 2)), rng.standard_normal((5, 3))
    judged = certify(Primal(), k, v, targets=y, C=2 * C, epsilon=epsilon)
    P = square / 2 + 2 * C * np.maximum(abs(y - f) - epsilon, 0).sum()
    D = -square / 2 - epsilon * abs(delta).sum() + (y * delta).sum()
    length = np.exp((x**2).sum(axis=1) / np.sqrt(3) / 2) / np.exp(x @ k.T / np.sqrt(3)).sum(axis=1)
    np.testing.assert_allclose(judged.error_bound(x), length * np.sqrt(2 * (P - D)), rtol=1e-12)


@pytest.mark.parametrize("name", ["softmax", "bn", "sh", "linear", "causal"])
def test_wrong_values_and_wrong_targets_show_in_the_gap(name):
    rng = np.random.default_rng(0)
    k, v = rng.standard_normal((9, 3)), rng.standard_normal((9, 2))
    query = None if catalog[name].support == Everything() else 8
    right = certify(catalog[name], k, v, query=query)
    problem = dict(C=2 * np.exp(right.log_C), query=query)
    proven(certify(catalog[name], k, v, targets=right.targets, **problem))
    wrong = v.copy()
    wrong[4] += 1e-3
    assert certify(catalog[name], k, wrong, targets=right.targets, **problem).relative_gap > 1e-8
    assert certify(catalog[name], k, v, targets=right.targets + 1e-3, **problem).relative_gap > 1e-8
    violated = certify(catalog[name], k, v, targets=right.targets, C=np.exp(right.log_C) / 2, query=query)
    assert violated.feasibility > 0.9 and violated.relative_gap == np.inf and violated.error_bound(k).min() == np.inf


def test_with_a_bias_the_values_must_balance():
    rng = np.random.default_rng(0)
    k, v = rng.standard_normal((7, 3)), rng.standard_normal((7, 2))
    assert certify(Primal(bias=True), k, v).relative_gap == np.inf
    h = np.exp(k @ k.T / np.sqrt(3)).sum(axis=1, keepdims=True)
    proven(certify(Primal(bias=True), k, v - (h * v).sum(axis=0) / h.sum()))


@pytest.mark.parametrize("bias", [False, True])
@given(primals(biases=st.just(False), kernels=kernels.filter(lambda kernel: hasattr(kernel, "log_gram"))), seeds)
@settings(max_examples=25)
def test_the_error_bound_holds_for_a_solver_stopped_early(bias, primal, seed):
    rng = np.random.default_rng(seed)
    k, y, x = rng.standard_normal((9, 3)), rng.standard_normal((9, 2)), 2 * rng.standard_normal((1000, 3))
    primal, query = replace(primal, bias=bias), None if primal.support == Everything() else 5
    C = 10 * np.exp(np.median(training_set(primal, k, query).log_h))
    problem = dict(C=C, epsilon=0.1, query=query)
    best = solve_dual(primal, k, y, **problem)
    for tolerance in (1e-2, 1e-4):
        early = solve_dual(
            primal, k, y, **problem, solver="OSQP", solver_options={"eps_abs": tolerance, "eps_rel": tolerance}
        )
        bound = certify(primal, k, early.values, targets=y, **problem).error_bound(x)
        error = np.linalg.norm(early.predict(x) - best.predict(x), axis=1)
        slack = 1e-7 * abs(best.predict(x)).max()  # the optimum is itself known to so many digits
        assert (error <= bound + slack).all()


@pytest.mark.parametrize("name", [name for name in ENTRIES if catalog[name].support == Everything()])
def test_the_error_bound_is_not_vacuous(name):
    k, y = japanese_vowels()
    problem = dict(C=10 * np.exp(np.median(training_set(catalog[name], k).log_h)), epsilon=0.1)
    early = solve_dual(catalog[name], k, y, **problem, solver="OSQP", solver_options={"eps_abs": 1e-4, "eps_rel": 1e-4})
    bound = certify(catalog[name], k, early.values, targets=y, **problem).error_bound(k)
    size = np.linalg.norm(early.predict(k), axis=1)
    assert early.relative_gap > 1e-6 and np.median(bound / size) < 0.1


def test_heads_and_positions():
    rng = np.random.default_rng(0)
    k, v = rng.standard_normal((2, 9, 3)), rng.standard_normal((2, 9, 2))
    certificates = certify(heads("bn+sh", 2), k, v)
    assert len(certificates) == 2 and [len(c.targets) for c in certificates] == [9, 3]
    one = certify(catalog["causal"], k[0], v[0], query=4)
    assert one.query == 4 and len(one.targets) == 5
    worst = certify(catalog["causal"], k[0], v[0])
    assert worst.relative_gap >= one.relative_gap


def test_nearly_equal_keys():
    rng = np.random.default_rng(0)
    k, v = 1 + 1e-9 * rng.standard_normal((9, 3)), rng.standard_normal((9, 2))
    v -= v.mean(axis=0)
    certificate = certify(Primal(), k, v)
    assert certificate.primal_value - certificate.dual_value <= 1e-12 * cancellation(Primal(), k, v, None)
    assert np.isfinite(certify(Primal(transform=BatchNorm()), np.ones((9, 3)), v).primal_value)


def test_zero_values():
    certificate = certify(Primal(), np.eye(3), np.zeros((3, 2)))
    assert certificate.relative_gap == 0 and certificate.log_C == certificate.log_norm == -np.inf
    assert (attention(Primal(), np.eye(3), np.eye(3), np.zeros((3, 2))) == certificate.targets).all()


def test_heads_need_as_many_keys():
    with pytest.raises(ValueError, match=r"keys: expected \(2, N, ...\), one of each head of Heads; got \(3, 4, 2\)"):
        certify(Heads(Primal(), Primal()), np.ones((3, 4, 2)), np.ones((2, 4, 2)))


def test_the_bound_holds_where_a_bias_is_off_by_rounding():
    """Values that balance to 1e-10 of C only, against large targets."""
    rng = np.random.default_rng(0)
    k, y = rng.standard_normal((9, 3)), 1e8 + rng.standard_normal((9, 1))
    problem = dict(C=training_set(Primal(), k).penalty(10), epsilon=0.0)
    best = solve_dual(Primal(bias=True), k, y, **problem)
    h = np.exp(training_set(Primal(), k).log_h)[:, None]
    for off in (0, 5e-11, -5e-11):
        values = 0.9995 * best.values
        values[0] += off * problem["C"] / h[0]
        certificate = certify(Primal(bias=True), k, values, targets=y, **problem)
        error = abs(attention(Primal(), k, k, values) + certificate.bias - best.predict(k))[:, 0]
        assert (error <= certificate.error_bound(k)).all() and certificate.feasibility < 1e-10


def test_a_query_beyond_the_keys():
    rng = np.random.default_rng(0)
    k, v, x = rng.standard_normal((9, 3)), rng.standard_normal((9, 2)), rng.standard_normal((10, 3))
    certificate = certify(catalog["causal"], k, v, query=9)
    assert certificate.query == 9 and len(certificate.targets) == 9
    solution = solve_dual(catalog["causal"], k, v, C=3.0, epsilon=0.1, query=9)
    np.testing.assert_allclose(
        solution.predict(x)[9], attention(catalog["causal"], x, k, solution.values)[9], rtol=1e-12
    )


def test_the_bound_with_a_bias_adds_the_longest_training_point():
    rng = np.random.default_rng(0)
    k, v, y, x = (rng.standard_normal(shape) for shape in ((7, 3), (7, 2), (7, 2), (5, 3)))
    train = training_set(Primal(), k)
    h = np.exp(train.log_h)[:, None]
    v -= (h * v).sum(axis=0) / h.sum()
    certificate = certify(Primal(bias=True), k, v, targets=y, C=2 * abs(h * v).max())
    gap = np.exp(certificate.log_scale) * (certificate.primal_value - certificate.dual_value)
    lengths = np.exp(train.log_norms(x)) + np.exp(train.log_norms(k)).max()
    np.testing.assert_allclose(certificate.error_bound(x), lengths * np.sqrt(2 * gap), rtol=1e-12)


def test_a_penalty_that_is_too_small_by_a_millionth_is_no_rounding():
    keys, values = np.random.default_rng(0).standard_normal((2, 9, 3))
    right = certify(Primal(), keys, values)
    nearly = certify(Primal(), keys, values, targets=right.targets, C=(1 - 1e-6) * np.exp(right.log_C))
    assert nearly.relative_gap == np.inf


@dataclass(frozen=True)
class Distance:
    def log_gram(self, x, y):
        return abs(x[..., :, None, :] - y[..., None, :, :]).sum(axis=-1)


@dataclass(frozen=True)
class Asymmetric:
    def log_gram(self, x, y):
        return x @ y.swapaxes(-1, -2) + x[..., :1]


@pytest.mark.parametrize("n", [11, 600])
@pytest.mark.parametrize("support", [Everything(), Causal()])
def test_what_is_no_kernel_has_no_certificate(n, support):
    """exp(|x - y|_1) is symmetric, not positive semidefinite; exp(x.y + x_1) is not symmetric."""
    keys, values = np.random.default_rng(0).standard_normal((2, n, 5))
    for kernel in (Distance(), Asymmetric()):
        with pytest.raises(ValueError, match=r"expected <Phi.*symmetric and positive semidefinite; got"):
            certify(Primal(kernel, support=support), keys, values)


def test_a_certificate_is_printed_in_one_line():
    keys, values = np.random.default_rng(0).standard_normal((2, 7, 3))
    whole, causal = (
        certify(Primal(support=support), keys, values, query=q) for support, q in ((Everything(), None), (Causal(), 4))
    )
    assert str(whole).startswith("SVR on 7 points with 3 outputs: relative gap ") and "\n" not in str(whole)
    assert str(causal).startswith("SVR of query 4 on 5 points") and f"log |W| = {causal.log_norm:.4g}" in str(causal)


def test_a_key_of_zero_has_a_certificate():
    keys, values = np.random.default_rng(0).standard_normal((2, 7, 3))
    keys[2] = 0
    assert certify(Primal(Polynomial(2, 0.0), normalizer="one"), keys, values).relative_gap < 1e-12


def test_the_norm_is_that_of_the_weight_with_slack_too():
    keys = np.random.default_rng(0).standard_normal((9, 3))
    problem = dict(targets=np.sin(3 * keys[:, :1]), C=3.0, epsilon=0.05)
    certificate = certify(Primal(), keys, solve_dual(Primal(), keys, **problem).values, **problem)
    weight = solve_primal(Primal(), keys, **problem).weight
    np.testing.assert_allclose(certificate.log_norm, np.log(np.linalg.norm(weight)), rtol=1e-9)
    assert certificate.primal_value > 2 * np.exp(2 * certificate.log_norm - certificate.log_scale)  # mostly slack


@pytest.mark.parametrize("size", [1e-165, 1e-200, 1e200])
@pytest.mark.parametrize("support", [Everything(), Causal()])
def test_values_whose_squares_no_float_holds_are_no_proof(size, support):
    keys, values = np.random.default_rng(0).standard_normal((2, 9, 3))
    with pytest.raises(ValueError, match=r"keys, values: expected .* that a float can hold"):
        certify(Primal(support=support), keys, size * values)
    assert certify(Primal(support=support), keys, 0 * values).relative_gap == 0


def test_complementarity_is_relative_to_the_scale_of_the_gap():
    """With one target, all of the gap is due to it."""
    one = certify(Primal(), [[1.0]], [[1.0]], targets=[[-0.1]], C=3.0, epsilon=1.0)
    np.testing.assert_allclose(one.complementarity, one.relative_gap, rtol=1e-12)
