"""Feasible points, objective values and the best bias, each evaluated a second time from its definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from primal_dual.svr.optimality import best_bias, feasible, objective_values, relative_gap
from tests.problems import seeds

epsilons = st.sampled_from([0.0, 0.1, 0.5])


@given(seeds, st.integers(1, 9), st.booleans())
def test_a_feasible_point_satisfies_the_constraints_and_stays_if_it_did(seed, n, bias):
    rng = np.random.default_rng(seed)
    u, q = 2 * rng.standard_normal((n, 2)), rng.random(n)
    moved = feasible(u, bias, q)
    assert abs(moved).max() <= 1
    if bias:
        assert abs(moved.sum(axis=0)).max() <= 1e-14 * n
    else:
        np.testing.assert_array_equal(moved, np.clip(u, -1, 1))
    np.testing.assert_allclose(feasible(moved, bias, q), moved, rtol=0, atol=1e-14)


@pytest.mark.parametrize("sign", [-1, 1])
def test_the_excess_is_taken_from_the_room_of_points_of_small_weight(sign):
    u = sign * np.array([[1.0, 0.5], [0.5, 0.5], [-0.5, -1.0]])
    # a room against the excess of (2, 1.5), (1.5, 1.5) and (0.5, 0), shared in proportion to room / q
    expected = sign * np.array([[1 - 1 * 2 / 4, 0.5], [0.5 - 1 * 1.5 / 4, 0.5], [-0.5 - 1 * 0.5 / 4, -1.0]])
    np.testing.assert_allclose(feasible(u, True, np.ones(3)), expected, rtol=1e-14)
    light = feasible(u[:, :1], True, np.array([1.0, 1e-9, 1.0]))
    np.testing.assert_allclose(light[:, 0], sign * np.array([1.0, -0.5, -0.5]), atol=1e-8)
    assert np.isfinite(feasible(u, True, np.array([1.0, 0.0, 1.0]))).all()


def test_points_that_cannot_take_the_whole_excess_leave_the_rest_to_the_others():
    """The light point would go beyond -1; what clipping leaves over is taken from all alike."""
    moved = feasible(np.array([[1.0], [1.0], [1.0], [-0.9]]), True, np.array([1.0, 1.0, 1.0, 1e-12]))
    np.testing.assert_allclose(moved[:, 0], [1 / 3, 1 / 3, 1 / 3, -1.0], atol=1e-9)


def test_an_excess_that_is_rounding_stays():
    u = np.array([[0.1], [0.2], [-0.3]])
    assert u.sum() != 0
    np.testing.assert_array_equal(feasible(u, True, np.ones(3)), u)


@given(seeds, st.integers(1, 8), epsilons)
def test_no_bias_is_better_than_the_best(seed, n, epsilon):
    residual = np.random.default_rng(seed).standard_normal((n, 2))

    def loss(b):
        return np.maximum(abs(residual - b) - epsilon, 0).sum(axis=0)

    best = loss(best_bias(residual, epsilon))
    for b in np.concatenate([residual - epsilon, residual + epsilon]):  # the corners of a piecewise linear function
        assert (best <= loss(b) + 1e-12).all()


@given(seeds, epsilons, st.booleans())
def test_objective_values_are_those_of_the_formulas(seed, epsilon, bias):
    rng = np.random.default_rng(seed)
    f, u, y, square = *rng.standard_normal((3, 5, 2)), rng.random(2)
    P, D, b = objective_values(f, square, u, y, epsilon, bias)
    np.testing.assert_array_equal(b, best_bias(y - f, epsilon) if bias else np.zeros(2))
    for d in range(2):
        slack = sum(max(abs(y[j, d] - f[j, d] - b[d]) - epsilon, 0) for j in range(5))
        dual = sum(y[j, d] * u[j, d] - epsilon * abs(u[j, d]) for j in range(5))
        assert P[d] == pytest.approx(square[d] / 2 + slack, rel=1e-14)
        assert D[d] == pytest.approx(dual - square[d] / 2, rel=1e-12, abs=1e-14)


@pytest.mark.parametrize(
    "P, D, size, expected",
    [
        (2, 1, 0, 0.5),
        (1, -2, 0, 1.5),
        (-1, -4, 0, 0.75),
        (2, 1, 1000, 0.1),
        (0, 0, 0, 0),
        (1, 1, 0, 0),
        (1, 3, 0, -2 / 3),
    ],
)
def test_the_relative_gap(P, D, size, expected):
    assert relative_gap(P, D, size) == pytest.approx(expected, rel=1e-15)
