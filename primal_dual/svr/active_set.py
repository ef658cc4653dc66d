"""The last digits of a dual solution: Newton's method on the active set.

In units of C the dual of one output is: maximise y'u - u'Q u / 2 - epsilon sum_j |u_j| over -1 <= u_j <= 1. Let
r = y - Q u - b be the residual; b is the multiplier of sum_j u_j = 0, and zero without a bias. At the optimum

    u_j = 0          where |r_j| <= epsilon,                    inside the tube
    u_j = sign(r_j)  where |r_j| >= epsilon,                    outside it: at the bound
    r_j = epsilon sign(u_j)  where 0 < |u_j| < 1,               on its edge: free

If one knew which points are where, the free u_j would solve linear equations. For any step c > 0 the three lines say
together that u_j = shrink(u_j + c r_j, c epsilon), cut to [-1, 1], where shrink(a, t) = sign(a) max(|a| - t, 0). So a
point u tells where each j belongs: Newton's method for these nonsmooth equations solves the linear ones of the free
points, and repeats. Here c = 1 / Q_jj. Near the optimum, where an interior-point solver has led, a few steps end at the
exact active set. See Hintermüller, Ito and Kunisch, SIAM Journal on Optimization 13 (2002).
"""

from typing import NamedTuple

import numpy as np

from primal_dual.svr.optimality import feasible, objective_values, relative_gap
from primal_dual.types import Array, Bool, Float

GOOD_ENOUGH = 1e-13


class Refined(NamedTuple):
    """A dual solution u (n,) of one output, and its relative gap."""

    u: np.ndarray
    gap: float


class _Problem(NamedTuple):
    """The dual of one output, in units of C."""

    Q: np.ndarray
    y: np.ndarray
    epsilon: float
    bias: bool

    def measure(self, u: Float[Array, " n"]) -> tuple[Refined, float]:
        """The feasible point near u with its gap, and the bias that belongs to it."""
        u = feasible(u[:, None], self.bias, np.diag(self.Q))
        f = self.Q @ u
        P, D, b = objective_values(f, (u * f).sum(axis=0), u, self.y[:, None], self.epsilon, self.bias)
        return Refined(u[:, 0], relative_gap(P[0], D[0], abs(self.y).sum())), b[0]


def refine(
    u: Float[Array, " n"], Q: Float[Array, "n n"], y: Float[Array, " n"], epsilon: float, bias: bool, steps: int = 20
) -> Refined:
    """Bring a dual solution of an interior-point solver to the last digits, where its gap is not there yet.

    Returns the point of the smallest gap that the steps have met, and that gap.
    """
    problem, q = _Problem(Q, y, epsilon, bias), np.diag(Q)
    best, b = problem.measure(u)
    step = best.u
    for _ in range(steps):
        if best.gap <= GOOD_ENOUGH or not q.all():
            break
        moved = step + (y - Q @ step - b) / q
        shrunk = abs(moved) - epsilon / q
        free = (shrunk > 0) & (shrunk < 1)
        sign = np.sign(moved)
        step = sign * np.clip(shrunk, 0, 1)
        step[free], b = _solve_free(problem, step, free, sign, b)
        candidate, _ = problem.measure(step)
        if candidate.gap < best.gap:
            best = candidate
    return best


def _solve_free(
    problem: _Problem, u: Float[Array, " n"], free: Bool[Array, " n"], sign: Float[Array, " n"], b: float
) -> tuple[Float[Array, " free"], float]:
    """The free u_j and b, given the others: (Q u + b)_j = y_j - epsilon sign_j and, with a bias, sum_j u_j = 0."""
    Q, y, epsilon, bias = problem
    n = int(free.sum())
    if not n:
        return np.zeros(0), b
    right = y[free] - sign[free] * epsilon - Q[np.ix_(free, ~free)] @ u[~free]
    matrix = np.zeros((n + bias, n + bias))
    matrix[:n, :n] = Q[np.ix_(free, free)]
    matrix[:n, n:], matrix[n:, :n] = 1, 1
    right = np.append(right, [-u[~free].sum()] * bias)
    scale = np.ones(n + bias)
    scale[:n] = 1 / np.sqrt(np.diag(matrix)[:n])  # a unit diagonal, for the sake of the digits
    solution = scale * np.linalg.lstsq(scale[:, None] * matrix * scale, scale * right, rcond=None)[0]
    return solution[:n], float(solution[n]) if bias else b
