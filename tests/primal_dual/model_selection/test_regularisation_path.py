"""The path of all penalties: against a solve at every C."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from primal_dual import ConvergenceWarning, EluPlusOne, Everything, Primal, catalog, certify, solve_dual, svr_path
from primal_dual.model_selection.breakpoints import follow
from primal_dual.svr.projected_newton import measured, newton
from primal_dual.svr.training_sets import training_set
from tests.primal_dual.svr.test_projected_newton import ENTRIES, KINDS, gram, problem


def check(G, y, epsilon, bias, path, between=3):
    """Every breakpoint and points between and beyond are solutions."""
    rng = np.random.default_rng(0)
    assert (np.diff(path.C) >= 0).all() and path.relative_gap.max(initial=0) <= 1e-10
    assert (abs(path.delta) <= path.C[:, None]).all()
    positive = np.unique(path.C[path.C > 0])
    if not len(positive):
        positive = np.ones(1)
    inner = [positive[:-1] + share * np.diff(positive) for share in rng.random(between)]
    for C in np.concatenate([positive, *inner, positive[0] * np.array([0.1, 0.5]), positive[-1] * np.array([1.5, 10])]):
        delta, b = path.at(C)
        assert abs(measured(C * G, y, epsilon, bias, delta / C).gap) <= 1e-9
        r = y - G @ delta - b
        P = delta @ G @ delta / 2 + C * np.maximum(abs(r) - epsilon, 0).sum()
        D = y @ delta - delta @ G @ delta / 2 - epsilon * abs(delta).sum()
        assert abs(P - D) <= 1e-9 * max(abs(P), 0.01 * C * abs(y).sum())  # with its own b


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 30),
    st.sampled_from(KINDS),
    st.sampled_from([0.0, 0.1, 0.7]),
    st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_random_paths(seed, n, kind, epsilon, bias):
    rng = np.random.default_rng(seed)
    G = gram(rng, n, kind)
    y = rng.standard_normal(n) if rng.random() < 0.7 else rng.integers(-1, 2, n).astype(float)
    check(G, y, epsilon, bias, follow(G, y, epsilon, bias))


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("bias", [False, True])
def test_equal_targets_all_change_at_the_start(bias, epsilon):
    rng, reached = np.random.default_rng(0), 0
    for _ in range(8):
        x, y = rng.standard_normal((40, 8)), rng.integers(0, 4, 40).astype(float)
        G = np.exp(-((x[:, None] - x) ** 2).sum(axis=-1) / 16)
        path = follow(G, y, epsilon, bias)
        check(G, y, epsilon, bias, path, between=1)
        reached += path.beyond is not None
    assert reached >= 5


@pytest.mark.parametrize("bias", [False, True])
def test_the_path_of_an_attention(bias):
    C, G, y = problem(150)
    path = follow(G, y[:, 0], 0.1, bias)
    check(G, y[:, 0], 0.1, bias, path, between=1)
    assert path.relative_gap.max() <= 1e-12 and path.beyond is not None and len(path.C) < 3 * 150
    u, b, _ = newton(C * G, y, 0.1, bias)
    delta, b_path = path.at(C)
    np.testing.assert_allclose(delta, C * u[:, 0], atol=1e-10 * C)
    np.testing.assert_allclose(b_path, b[0], atol=1e-10)
    part = follow(G, y[:, 0], 0.1, bias, largest=C)
    np.testing.assert_allclose(part.delta[-1], delta, atol=1e-10 * C)
    assert part.C[-1] == C and len(part.C) < len(path.C)
    np.testing.assert_allclose(path.at(1e3 * path.C[-1])[0], path.delta[-1], rtol=1e-9)  # all on the edge: the end


@pytest.mark.parametrize("largest", [1e-9, 0.5, 2.0])
def test_beyond_the_largest_C_of_the_path_it_is_solved_anew(largest):
    rng = np.random.default_rng(0)
    primal, keys, targets = Primal(bias=True), rng.standard_normal((12, 3)), rng.standard_normal((12, 2))
    path, unit = svr_path(primal, keys, targets, 0.1, largest=largest), training_set(primal, keys).penalty(1)
    for C in (0.3 * largest, largest, 2 * largest, 20 * unit, 1e4 * unit):
        theirs = solve_dual(primal, keys, targets, C=C, epsilon=0.1, solver="newton")
        assert abs(path.at(C).value - theirs.value) <= 1e-10 * C * abs(targets).sum()
    assert "12 points with 2 outputs" in repr(path) and len(repr(path)) < 100


def test_later_changes_of_the_targets_change_nothing():
    primal, (keys, targets) = Primal(scale=2), np.random.default_rng(0).standard_normal((2, 10, 3))
    pooled = targets[:5].copy()
    path, certificate = svr_path(primal, keys, pooled, 0.1), certify(primal, keys, targets, targets=pooled, C=9)
    value, support = path.at(1.0).value, certificate.support_vectors(0.1)
    pooled *= 0.01
    assert path.at(1.0).value == value and (certificate.support_vectors(0.1) == support).all()
    assert support.any()


@pytest.mark.parametrize("name", ENTRIES)
def test_every_solution_of_the_path_is_that_of_solve_dual(name):
    rng = np.random.default_rng(0)
    primal, keys, targets = catalog[name], rng.standard_normal((19, 5)), rng.standard_normal((19, 2))
    query = None if isinstance(primal.support, Everything) else 11
    path = svr_path(primal, keys, targets, 0.1, query=query)
    unit = training_set(primal, keys, query).penalty(1)
    for C in (0.3 * unit, 10 * unit, 300 * unit):
        ours = path.at(C)
        theirs = solve_dual(primal, keys, targets, C=C, epsilon=0.1, query=query, solver="newton")
        assert abs(ours.relative_gap) <= 1e-10 and abs(ours.value / theirs.value - 1) <= 1e-10
        np.testing.assert_allclose(ours.predict(keys), theirs.predict(keys), atol=1e-7)
        assert (ours.alpha * ours.alpha_tilde == 0).all() and (ours.alpha <= C).all()


@pytest.mark.parametrize("change", [{"epsilon": -1}, {"targets": np.eye(2)}, {"keys": np.ones(3)}, {"primal": "bn"}])
def test_refuses_bad_input(change):
    with pytest.raises(ValueError, match=r"expected .* got"):
        svr_path(**dict(primal=Primal(), keys=np.eye(3), targets=np.eye(3), epsilon=0.1) | change)
    with pytest.raises(ValueError, match="C: expected a finite number > 0; got 0"):
        svr_path(Primal(), np.eye(3), np.eye(3), 0.1).at(0)


def test_keys_beyond_the_range_of_floats_are_refused():
    keys = np.random.default_rng(0).standard_normal((9, 3))
    with pytest.raises(ValueError, match=r"keys: expected log .* of at most 350; got up to \d+"):
        svr_path(Primal(EluPlusOne()), keys - 400, keys, 0.1)
    with pytest.warns(ConvergenceWarning, match="the relative duality gap is"):
        svr_path(Primal(EluPlusOne()), keys - 50, keys, 0.1).at(10.0)
