"""Primal, dual and attention are one function, for every combination of parts."""

import pickle
import warnings
from dataclasses import replace
from types import SimpleNamespace

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.svm import SVR

from primal_dual import (
    ConvergenceWarning,
    EluPlusOne,
    Everything,
    Exponential,
    Heads,
    Primal,
    attention,
    catalog,
    certify,
    heads,
    solve_dual,
    solve_primal,
)
from primal_dual.svr.optimality import relative_gap
from primal_dual.svr.solutions import DualHeadSolutions
from primal_dual.svr.solve import warn_of_gap
from primal_dual.svr.training_sets import pooled_rows, training_set
from tests.problems import primals, random_mask, seeds

ENTRIES = [name for name, primal in catalog.items() if isinstance(primal, Primal)]


def draw(primal, seed, N=9, D=3, Dv=2):
    """Keys, targets, and C, epsilon and query of a problem."""
    rng = np.random.default_rng(seed)
    keys, targets = rng.choice([0.3, 1, 2]) * rng.standard_normal((N, D)), rng.standard_normal((N, Dv))
    query = None if isinstance(primal.support, Everything) else int(rng.integers(N))
    C = 10 ** rng.uniform(-2, 3) * np.exp(np.median(training_set(primal, keys, query).log_h))
    return keys, targets, dict(C=C, epsilon=rng.choice([0, 0.1, 0.5]), query=query)


def exactly_solvable(primal, keys, targets, problem):
    """Whether the features are of like enough size that the solvers come to the last digits."""
    train = training_set(primal, keys, problem["query"])
    return np.ptp(train.log_h if primal.normalizer == "sum" else 2 * train.log_norms(train.keys)) <= 15


def agree(primal, keys, targets, problem, solver="CLARABEL"):
    weights = solve_primal(primal, keys, targets, **problem, solver=solver)
    dual = solve_dual(primal, keys, targets, **problem, solver=solver)
    train = training_set(primal, keys, problem["query"])
    y, C = pooled_rows("targets", targets, train), problem["C"]
    assert relative_gap(weights.value, dual.value, C * abs(y).sum()) <= 1e-10
    assert abs(weights.relative_gap) <= 1e-10 and abs(dual.relative_gap) <= 1e-10
    # the objectives of the returned weight and values, from the formulas
    f = dual.predict(keys)
    rows = slice(None) if problem["query"] is None else [problem["query"]]
    scale = max(abs(f).max(), abs(y).max())
    np.testing.assert_allclose(weights.predict(keys), f, rtol=0, atol=1e-7 * scale)
    np.testing.assert_allclose(
        (attention(primal, keys, keys, dual.values) + dual.bias)[rows], f[rows], rtol=0, atol=1e-12 * scale
    )
    delta = dual.alpha - dual.alpha_tilde
    assert (dual.alpha * dual.alpha_tilde == 0).all() and dual.alpha.min() >= 0 and dual.alpha_tilde.min() >= 0
    assert abs(delta).max() <= C * (1 + 1e-15)
    assert not primal.bias or abs(delta.sum(axis=0)).max() <= 1e-12 * C
    f_train = train.attend(train.keys, train.pool(dual.values))
    square = (delta * f_train).sum()
    xi = np.maximum(abs(y - f_train - dual.bias) - problem["epsilon"], 0)
    value = (y * delta).sum() - square / 2 - problem["epsilon"] * abs(delta).sum()
    size = max(abs(value), 0.01 * C * abs(y).sum())
    assert abs(dual.value - value) <= 1e-9 * size
    assert abs(square / 2 + C * xi.sum() - value) <= 1e-9 * size
    assert (
        abs(
            (weights.weight**2).sum() / 2
            + C * np.maximum(abs(y - f_train - dual.bias) - problem["epsilon"], 0).sum()
            - weights.value
        )
        <= 1e-5 * size
    )


@given(primals(), seeds, st.booleans())
@settings(max_examples=150)
def test_primal_dual_and_attention_agree(primal, seed, masked):
    primal = replace(primal, support=random_mask(np.random.default_rng(seed), 9, 9)) if masked else primal
    problem = draw(primal, seed)
    assume(exactly_solvable(primal, *problem))
    agree(primal, *problem)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("name", ENTRIES)
def test_the_catalog_agrees(name, bias):
    primal = replace(catalog[name], bias=bias)
    problems = [draw(primal, seed, N=17, D=5, Dv=3) for seed in range(8)]
    solvable = [problem for problem in problems if exactly_solvable(primal, *problem)]
    assert len(solvable) >= 3
    for problem in solvable:
        agree(primal, *problem)


@pytest.mark.parametrize("name", ["softmax", "linear", "bn", "causal-sh"])
def test_other_solvers(name):
    keys, targets, problem = draw(catalog[name], 1, N=17, D=5)
    problem |= dict(C=10 * np.exp(np.median(training_set(catalog[name], keys, problem["query"]).log_h)), epsilon=0.1)
    agree(catalog[name], keys, targets, problem, "PIQP")
    loose = solve_dual(
        catalog[name], keys, targets, **problem, solver="OSQP", solver_options={"eps_abs": 1e-2, "eps_rel": 1e-2}
    )
    tight = solve_dual(catalog[name], keys, targets, **problem)
    assert loose.relative_gap > 1e-6 > abs(tight.relative_gap)  # early stopping shows


def test_heads_are_solved_side_by_side():
    rng = np.random.default_rng(0)
    declared = Heads(Primal(), Primal(scale=2, bias=True))
    keys, targets = rng.standard_normal((2, 7, 3)), rng.standard_normal((2, 7, 2))
    for solve in (solve_primal, solve_dual):
        both = solve(declared, keys, targets, C=3.0, epsilon=0.1)
        each = [solve(p, k, y, C=3.0, epsilon=0.1) for p, k, y in zip(declared, keys, targets, strict=True)]
        assert both.value == sum(one.value for one in each)
        assert both.relative_gap == max(one.relative_gap for one in each)
        np.testing.assert_array_equal(both.predict(keys), [one.predict(k) for one, k in zip(each, keys, strict=True)])
    assert both.values.shape == (2, 7, 2) and [len(alpha) for alpha in both.alpha] == [7, 4]
    for s, one in enumerate(each):
        np.testing.assert_array_equal(both.alpha_tilde[s], one.alpha_tilde)
    f = attention(declared, keys, keys, both.values) + both.bias[:, None]
    np.testing.assert_allclose(f, both.predict(keys), rtol=1e-12)


def test_weights_of_heads_are_stacked():
    keys, targets = np.random.default_rng(0).standard_normal((2, 2, 7, 3))
    both = solve_primal(Heads(Primal(EluPlusOne()), Primal(EluPlusOne())), keys, targets, C=3.0, epsilon=0.1)
    for s in range(2):
        one = solve_primal(Primal(EluPlusOne()), keys[s], targets[s], C=3.0, epsilon=0.1)
        np.testing.assert_array_equal(both.weight[s], one.weight)
    assert both.weight.shape == (2, 3, 3)


def test_targets_may_be_pooled_already():
    rng = np.random.default_rng(0)
    keys, targets = rng.standard_normal((7, 3)), rng.standard_normal((7, 2))
    pooled = np.array([targets[g : g + 2].mean(axis=0) for g in range(0, 7, 2)])
    a = solve_dual(Primal(scale=2), keys, targets, C=3.0, epsilon=0.1)
    b = solve_dual(Primal(scale=2), keys, pooled, C=3.0, epsilon=0.1)
    np.testing.assert_array_equal(a.values, b.values)


@pytest.mark.parametrize("solve", [solve_primal, solve_dual])
def test_outputs_share_one_compiled_problem(solve, monkeypatch):
    problems, solves = [], []
    for name, calls in (("__init__", problems), ("solve", solves)):
        original = getattr(cp.Problem, name)
        monkeypatch.setattr(
            cp.Problem,
            name,
            lambda self, *a, original=original, calls=calls, **k: (calls.append(1), original(self, *a, **k))[1],
        )
    rng = np.random.default_rng(0)
    solve(Primal(), rng.standard_normal((7, 3)), rng.standard_normal((7, 11)), C=3.0, epsilon=0.1)
    assert len(solves) == 11 and len(problems) < 11


@pytest.mark.parametrize("kernel", [Exponential(), Exponential(scale=0.2)])
def test_agrees_with_scikit_learn(kernel):
    """h = 1 and a bias make a plain kernel SVR; libsvm keeps its kernel in float32."""
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((40, 3)), rng.standard_normal((40, 1))
    primal, C, epsilon = Primal(kernel, normalizer="one", bias=True), 2.0, 0.1
    ours = solve_dual(primal, X, y, C=C, epsilon=epsilon)
    G = training_set(primal, X).gram(X)
    theirs = SVR(kernel="precomputed", C=C, epsilon=epsilon, tol=1e-9).fit(G, y[:, 0])
    np.testing.assert_allclose(ours.predict(X)[:, 0], theirs.predict(G), atol=2e-4)
    delta = np.zeros((40, 1))
    delta[theirs.support_, 0] = theirs.dual_coef_[0]
    their_gap = certify(primal, X, delta, targets=y, C=C * (1 + 1e-9), epsilon=epsilon).relative_gap
    assert abs(ours.relative_gap) < 1e-12 < their_gap < 1e-3


def test_residual_is_a_known_offset_of_the_target():
    rng = np.random.default_rng(0)
    keys, targets = rng.standard_normal((2, 9, 3))
    solution = solve_dual(Primal(), keys, targets - keys, C=1e4, epsilon=0)
    np.testing.assert_allclose(keys + solution.predict(keys), targets, atol=1e-6)


def test_heads_of_the_catalog_have_each_a_solution():
    rng = np.random.default_rng(0)
    keys, targets = rng.standard_normal((2, 4, 9, 3))
    solutions = solve_dual(heads("sh", 4), keys, targets, C=3.0, epsilon=0.1)
    assert [len(alpha) for alpha in solutions.alpha] == [9, 5, 3, 2] and solutions.relative_gap < 1e-10


@pytest.mark.parametrize("tolerance", [1e-1, 1e-3])
def test_a_solver_stopped_early_gives_a_feasible_dual(tolerance):
    rng = np.random.default_rng(0)
    keys, targets = rng.standard_normal((2, 15, 3))
    options = {"eps_abs": tolerance, "eps_rel": tolerance}
    rough = solve_dual(Primal(bias=True), keys, targets, C=9.0, epsilon=0.1, solver="OSQP", solver_options=options)
    delta = rough.alpha - rough.alpha_tilde
    assert abs(delta).max() <= 9.0 and abs(delta.sum(axis=0)).max() <= 1e-13


def test_values_are_constant_over_a_pool_and_zero_outside_the_support():
    rng = np.random.default_rng(0)
    keys, targets = rng.standard_normal((2, 9, 3))
    values = solve_dual(catalog["causal-sh"], keys, targets, C=9.0, epsilon=0.1, query=4).values
    assert (values[5:] == 0).all() and (values[0] == values[1]).all() and (values[2] == values[3]).all()
    assert (values[4] != 0).any() and (values[4] != values[3]).any()


@pytest.mark.parametrize("solve", [solve_primal, solve_dual])
@pytest.mark.parametrize("size", [10, 20, 100, 1000])
def test_both_solve_for_keys_of_any_size(solve, size):
    """C is far below h there, and so below what any weight costs: u is at its bound, and f is nearly zero."""
    rng = np.random.default_rng(0)
    keys, targets = size * rng.standard_normal((20, 4)), rng.standard_normal((20, 2))
    solution = solve(Primal(), keys, targets, C=1.0, epsilon=0.1)
    assert abs(solution.relative_gap) <= 1e-12 and abs(solution.predict(keys)).max() < 1e-3


def test_a_gap_of_the_primal_is_told_unless_it_was_asked_for():
    """A solver that is stopped early by its options has a gap that its user knows of."""
    keys, targets = np.random.default_rng(0).standard_normal((2, 30, 4))
    with pytest.warns(ConvergenceWarning, match=r"the relative duality gap is 1, and log h\(k_j\) spans"):
        solve_primal(Primal(bias=True), 12 * keys, targets, C=1e200, epsilon=0.1)
    options = dict(solver="OSQP", solver_options={"eps_abs": 1e-2, "eps_rel": 1e-2})
    assert solve_primal(Primal(), keys, targets, C=100.0, epsilon=0.1, **options).relative_gap > 1e-6


def test_a_gap_is_told_from_1e_8_on():
    train = training_set(Primal(), np.eye(3))
    with pytest.warns(ConvergenceWarning, match="the relative duality gap is"):
        warn_of_gap(1.0, 1.0 - 2e-8, 1.0, 0.0, train)
    warn_of_gap(1.0, 1.0 - 5e-9, 1.0, 0.0, train)


def test_the_gap_of_heads_is_that_of_the_worst():
    gaps = (SimpleNamespace(relative_gap=1e-3), SimpleNamespace(relative_gap=1e-12))
    assert DualHeadSolutions(gaps).relative_gap == 1e-3


def test_a_primal_whose_features_no_float_holds_is_refused():
    """|Phi| is about exp(-900) and h its square, so that |z| is exp(900). The dual is solved, and tells of its gap."""
    keys, targets = np.eye(3)[:, :2] - 900, np.ones((3, 1))
    with pytest.raises(ValueError, match=r"keys: expected less spread than that of log h, .*: scale them down"):
        solve_primal(Primal(EluPlusOne()), keys, targets, C=1.0, epsilon=0.1)
    with pytest.warns(ConvergenceWarning, match="the relative duality gap is 1,"):
        solution = solve_dual(Primal(EluPlusOne()), keys, targets, C=1.0, epsilon=0.1)
    assert np.isfinite(solution.values).all() and solution.relative_gap == pytest.approx(1)


def test_what_is_no_kernel_is_refused():
    class Backwards:
        def gram(self, x, y):
            return 20 - x @ y.swapaxes(-1, -2)

    keys = np.random.default_rng(0).standard_normal((20, 4))
    for solve in (solve_primal, solve_dual):
        with pytest.raises(ValueError, match="positive semidefinite"):
            solve(Primal(Backwards()), keys, keys, C=1.0, epsilon=0.1)


@pytest.mark.parametrize("name", ["softmax", "linear", "causal-bn"])
def test_solutions_can_be_pickled(name):
    rng = np.random.default_rng(0)
    keys, targets = rng.standard_normal((2, 9, 3))
    for solve in (solve_primal, solve_dual):
        solution = solve(catalog[name], keys, targets, C=3.0, epsilon=0.1, query=4)
        again = pickle.loads(pickle.dumps(solution))
        np.testing.assert_array_equal(again.predict(keys), solution.predict(keys))
        assert type(solution.value) is float and type(solution.relative_gap) is float


@pytest.mark.parametrize("size", [1e-3, 1e3, 1e6])
def test_predictions_agree_for_targets_of_any_size(size):
    """For small targets C is out of proportion: the gap opens a little, the functions still agree."""
    for name in ("softmax", "linear-bn", "taylor", "conv2d", "linear-sh"):
        keys, targets = np.random.default_rng(2).standard_normal((2, 17, 5))
        problem = dict(C=training_set(catalog[name], keys).penalty(300), epsilon=0.1 * size)
        weights = solve_primal(catalog[name], keys, size * targets, **problem)
        dual = solve_dual(catalog[name], keys, size * targets, **problem)
        np.testing.assert_allclose(
            weights.predict(keys), dual.predict(keys), rtol=0, atol=1e-7 * abs(dual.predict(keys)).max()
        )
        assert abs(weights.relative_gap) < 1e-10 and abs(dual.relative_gap) < 1e-6


def test_a_solver_that_is_missing_names_its_remedy(monkeypatch):
    monkeypatch.setattr(cp, "installed_solvers", lambda: ["CLARABEL"])
    with pytest.raises(ValueError, match=r"CLARABEL; got 'piqp'; it comes with pip install .*piqp"):
        solve_dual(Primal(), np.eye(3), np.eye(3), C=1.0, epsilon=0.1, solver="piqp")


def test_small_targets_get_a_second_try():
    """Where few features meet a C that is out of proportion, the first solve alone leaves gaps of 1e-2."""
    for seed in (8, 9, 23, 33, 34, 39):
        rng, N = np.random.default_rng(seed), 12 + seed % 12
        keys, targets = 2 * rng.standard_normal((N, 4)), 2e-5 * rng.standard_normal((N, 2))
        for name in ("linear-sh", "linear-bn"):
            C = training_set(catalog[name], keys).penalty(500)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                solution = solve_dual(catalog[name], keys, targets, C=C, epsilon=0)
            assert abs(solution.relative_gap) < 1e-6
            assert [each.category for each in caught] == [ConvergenceWarning] * (solution.relative_gap > 1e-8)


@pytest.mark.parametrize("solver", ["CLARABEL", "newton"])
@pytest.mark.parametrize("multiple", [1e9, 1e13])
@pytest.mark.parametrize("scale", [2.5, 4])
def test_the_dual_keeps_its_digits_at_any_spread_of_h_and_any_penalty(scale, multiple, solver):
    rng = np.random.default_rng(2)
    keys, targets = scale * rng.standard_normal((29, 6)), rng.standard_normal((29, 3))
    train = training_set(Primal(), keys)
    assert np.ptp(train.log_h) > 25
    solution = solve_dual(Primal(), keys, targets, C=train.penalty(multiple), epsilon=0.1, solver=solver)
    assert abs(solution.relative_gap) <= 1e-11


@pytest.mark.parametrize("solve", [solve_primal, solve_dual])
def test_a_penalty_beyond_the_digits_of_a_float_is_told(solve):
    """The gap is small beside C sum |y|, but the values have few digits in common."""
    keys = np.random.default_rng(0).standard_normal((30, 3))
    with pytest.warns(ConvergenceWarning, match=r"the primal and the dual value differ by 0\.\d+ of themselves"):
        assert solve(Primal(), keys, np.sin(keys), C=1e16, epsilon=0.1, solver="newton").relative_gap < 1e-12
    solve(Primal(), keys, np.sin(keys), C=1e8, epsilon=0.1, solver="newton")  # without a warning
    solve(Primal(), keys, np.sin(keys), C=1.0, epsilon=10.0)  # nor where all is zero
    solve(Primal(bias=True), keys, np.tile([[0.1 + 0.2], [0.3]], (15, 1)), C=1.0, epsilon=0.0, solver="newton")
