"""Newton's method on the active set brings a rough dual solution to the last digits, and stops where it must."""

import numpy as np
import pytest

from primal_dual.svr.active_set import refine
from primal_dual.svr.optimality import objective_values, relative_gap
from primal_dual.svr.projected_newton import newton


def problem(seed, n=12):
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((n, 3)), rng.standard_normal(n)
    return rng, 3 * np.exp(-((x[:, None] - x) ** 2).sum(axis=-1) / 2), y


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("epsilon", [0.0, 0.1])
@pytest.mark.parametrize("seed", range(5))
def test_a_rough_solution_is_refined(seed, epsilon, bias):
    rng, Q, y = problem(seed)
    exact = newton(Q, y[:, None], epsilon, bias).u[:, 0]
    found = refine(exact + 1e-3 * rng.standard_normal(12), Q, y, epsilon, bias)
    assert found.gap <= 1e-13 and abs(found.u).max() <= 1
    np.testing.assert_allclose(Q @ found.u, Q @ exact, atol=1e-6)
    f = Q @ found.u
    P, D, _ = objective_values(f[:, None], np.array([f @ found.u]), found.u[:, None], y[:, None], epsilon, bias)
    assert found.gap == pytest.approx(relative_gap(P[0], D[0], abs(y).sum()), abs=1e-14)


def test_a_point_of_weight_zero_stops_the_steps():
    """No step is defined there, 1 / Q_jj; what is returned is the feasible point near the one that was given."""
    _, Q, y = problem(0)
    Q[3], Q[:, 3] = 0, 0
    u = np.full(12, 0.3)
    found = refine(u, Q, y, 0.1, False)
    np.testing.assert_array_equal(found.u, u)
    assert found.gap > 1e-3
