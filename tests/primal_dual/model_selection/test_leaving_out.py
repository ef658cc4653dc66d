"""Leave-one-out predictions: those of SVRs that are fitted to all keys but one, one after the other."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from primal_dual import BatchNorm, Causal, Convolution, Gaussian, Primal, catalog, leave_one_out, solve_dual
from primal_dual.model_selection.leaving_out import estimate_leave_one_out
from primal_dual.svr.training_sets import training_set
from tests import problems


def fitted_without(primal, keys, targets, j, C, epsilon):
    """The prediction at point j of the SVR of the others; pools are averaged by hand."""
    group = np.arange(len(keys)) // primal.scale
    x, y = (np.array([rows[group == g].mean(axis=0) for g in range(group[-1] + 1)]) for rows in (keys, targets))
    kept = np.delete(np.arange(len(x)), j)
    alone = replace(primal, scale=1)
    return solve_dual(alone, x[kept], y[kept], C=C, epsilon=epsilon).predict(x[[j]])[0]


@given(
    problems.seeds,
    problems.primals(transforms=problems.TOKENWISE, supports=st.just(Primal().support)),
    st.integers(5, 13),
    st.sampled_from([0.0, 0.1, 0.7]),
)
@settings(max_examples=40)
def test_each_prediction_is_that_of_the_svr_without_the_key(seed, primal, N, epsilon):
    rng = np.random.default_rng(seed)
    keys, targets = rng.standard_normal((N, 5)), rng.standard_normal((N, 2))
    train = training_set(primal, keys)
    assume(np.ptp(train.log_h) <= 10)
    C = train.penalty(10 ** rng.uniform(-1, 2))
    f = leave_one_out(primal, keys, targets, C=C, epsilon=epsilon)
    for j in rng.choice(len(f), 2, replace=False):
        expected = fitted_without(primal, keys, targets, j, C, epsilon)
        np.testing.assert_allclose(f[j], expected, atol=1e-6 * max(1, abs(expected).max()))


@pytest.mark.parametrize("name", ["softmax", "bn", "sh", "bn+sh", "linear", "qk-norm", "rbf"])
def test_of_the_catalog(name):
    rng = np.random.default_rng(0)
    keys, targets = rng.standard_normal((37, 5)), rng.standard_normal((37, 1))
    primal = replace(catalog[name], bias=True)
    C = training_set(primal, keys).penalty(10)
    f = leave_one_out(primal, keys, targets, C=C, epsilon=0.1)
    expected = [fitted_without(primal, keys, targets, j, C, 0.1) for j in (0, 11, 18)]
    np.testing.assert_allclose(f[[0, 11, 18]], expected, atol=1e-7)
    some = leave_one_out(primal, keys, targets, C=C, epsilon=0.1, left_out=np.array([11, 0]))
    np.testing.assert_array_equal(some, f[[11, 0]])


def test_a_point_inside_the_tube_counts_for_an_attention_but_not_for_a_kernel_svr():
    """Without a normaliser, points of delta_j = 0 could be left out. With h, every key has its share in z_i."""
    x = np.linspace(-1, 1, 11)[:, None]
    for normalizer, same in (("one", True), ("sum", False)):
        primal = Primal(Gaussian(1.0), normalizer=normalizer, bias=True)
        solution = solve_dual(primal, x, x**2, C=100, epsilon=0.2)
        inside = (solution.alpha + solution.alpha_tilde)[:, 0] < 1e-8
        change = abs(leave_one_out(primal, x, x**2, C=100, epsilon=0.2) - solution.predict(x))[inside].max()
        assert inside.any() and (change < 1e-8) == same


@pytest.mark.parametrize("normalizer", ["one", "sum"])
@pytest.mark.parametrize("bias", [False, True])
def test_the_estimate_is_exact_unless_a_point_changes_its_state(bias, normalizer):
    rng = np.random.default_rng(0)
    keys, y = rng.standard_normal((60, 3)), rng.standard_normal((60, 1))
    primal = Primal(Gaussian(1.5), normalizer=normalizer, bias=bias)
    train = training_set(primal, keys)
    problem = dict(C=train.penalty(0.3 if normalizer == "one" else 3.0), epsilon=0.2)

    def states(solution):
        u = (solution.alpha - solution.alpha_tilde)[:, 0] / problem["C"]
        return np.sign(u) * (1.0 * (abs(u) > 1e-9) + (abs(u) > 1 - 1e-9))

    f = estimate_leave_one_out(train, y, np.log(problem["C"]), problem["epsilon"])
    exact = leave_one_out(primal, keys, y, **problem)
    before = states(solve_dual(primal, keys, y, **problem, solver="newton"))
    same = np.zeros(60, dtype=bool)
    for j in range(60):
        kept = np.delete(np.arange(60), j)
        after = states(solve_dual(primal, keys[kept], y[kept], **problem, solver="newton"))
        same[j] = (after == before[kept]).all()
    assert {-2, -1, 0, 1, 2} == set(before) and len(set(abs(before[same]))) >= 2 and not same.all()
    np.testing.assert_allclose(f[same], exact[same], atol=1e-9)


@pytest.mark.parametrize(
    "name, multiple", [(name, C) for name in ("softmax", "rbf", "linear") for C in (10, 100)] + [("bn", 10)]
)
def test_the_estimate_is_near_at_most_keys(name, multiple):
    rng = np.random.default_rng(0)
    keys, noise = rng.standard_normal((101, 3)), rng.standard_normal((101, 1))
    y = np.sin(2 * keys[:, :1]) + 0.5 * keys[:, 1:2] ** 2 + 0.1 * noise
    train = training_set(replace(catalog[name], bias=True), keys)
    C = train.penalty(multiple)
    exact = leave_one_out(train.declared, keys, y, C=C, epsilon=0.1)
    f = estimate_leave_one_out(train, y, np.log(C), 0.1)
    assert np.median(abs(f - exact)) < 0.1 * np.median(abs(y - exact))


@dataclass(frozen=True)
class SinceTheFirst:
    def fit(self, keys, valid):
        return lambda x: x - keys[..., :1, :]


DEPEND_ON_ORDER = (
    Primal(support=Causal()),
    Primal(transform=Convolution((1,))),
    Primal(transform=(BatchNorm(), SinceTheFirst())),
)


@pytest.mark.parametrize("primal", [*DEPEND_ON_ORDER, "softmax"])
def test_refuses_what_depends_on_order(primal):
    with pytest.raises(ValueError, match=r"primal: expected"):
        leave_one_out(primal, np.eye(3), np.eye(3), C=1, epsilon=0.1)


@pytest.mark.parametrize("change", [{"C": 0}, {"epsilon": -1}, {"targets": np.eye(2)}, {"keys": np.ones(3)}])
def test_refuses_bad_input(change):
    problem = dict(keys=np.eye(3), targets=np.eye(3), C=1, epsilon=0.1)
    with pytest.raises(ValueError, match=r"expected .* got"):
        leave_one_out(Primal(), **problem | change)
    for wrong in ([3], [-1], [0.5], 2):
        with pytest.raises(ValueError, match="left_out: expected whole numbers from 0 to 2"):
            leave_one_out(Primal(), **problem, left_out=wrong)
    with pytest.raises(ValueError, match="two training points at least"):
        leave_one_out(Primal(), np.eye(1), np.eye(1), C=1, epsilon=0.1)
