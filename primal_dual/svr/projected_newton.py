"""The dual of the SVR to the last digits, at the speed of libsvm: Newton's method, projected on an orthant.

For every output y (n,), with one shared positive semidefinite Q (n, n), in units of C (u = delta / C):

    maximise  D(u) = -1/2 u'Q u - epsilon sum_j |u_j| + y'u,   -1 <= u_j <= 1,   and  sum_j u_j = 0 if there is a bias

1. `step`. Where no u_j changes its sign, D is quadratic, and a Newton step leads to its maximum. With the residual
   r = y - Q u - b, the gradient is g_j = r_j - epsilon s_j; s_j is the sign of u_j, or that of r_j where u_j = 0.
   Optimal are u_j = 0 with |r_j| <= epsilon, and u_j = s_j with g_j s_j >= 0. All others are free: Q_FF d = g_F.
   The step follows the path clip(u + t d), t from 0 to 1, each u_j between 0 and s_j. That climbs at first: g_F'd is
   positive, and since the g_j of a free u_j at its bound points inward, a d_j that points outward, which the clip
   takes away, has g_j d_j <= 0.
2. A bias b is the multiplier of sum_j u_j = 0. For a fixed b that constraint is gone; let u(b) be the optimum. With an
   unchanged free set Q_FF u_F = y_F - b + constants, so that d/db sum_j u_j = -1'Q_FF^-1 1, and a Newton step on b
   makes the sum zero. It is taken whenever the step on u meets no bound: u then is optimal for this b and free set.
3. `sweep`, the start: two steps for one block of indices after another. All blocks together cost (BLOCK / n)^2 of a
   step on everything, and most of the u_j that belong at a bound are there afterwards.
4. `interior`. Where Q_FF is nearly singular (fewer features than free points, keys almost alike, a large C), the path
   bends at one bound after the other and leads nowhere. An interior point method does not mind: it takes 10 to 16
   steps of one Cholesky factor each for any Q. Its solution is brought to the last digits by `step` again.
"""

from typing import NamedTuple

import numpy as np
from scipy.linalg import lapack

from primal_dual.svr.gram_rows import GramRows
from primal_dual.svr.optimality import best_bias, feasible, objective_values, relative_gap
from primal_dual.types import Array, Float

ENOUGH = 1e-12  # relative gap of an output that needs no second try
ROUNDING = 1e-14  # relative size of what is zero but for rounding
LARGEST_MATRIX = 15_000  # points up to which all of Q is held, if it must be: 1.8 GB
MOST_STEPS = 50  # of the interior point method
BLOCK = 200  # indices in a block of the first sweep
SIDES = np.array([[1.0], [-1.0]])  # of the tube, as the rows of (2, n) arrays: alpha's and alpha~'s


class Newton(NamedTuple):
    """u (n, Dv), b (Dv,), and the relative gap of all outputs together."""

    u: np.ndarray
    bias: np.ndarray
    relative_gap: float


class _Met(NamedTuple):
    """A feasible u (n,) that was met on the way, and its relative gap."""

    gap: float
    u: np.ndarray


def newton(
    Q: Float[Array, "n n"] | GramRows,
    y: Float[Array, "n Dv"],
    epsilon: float,
    bias: bool,
    start: Float[Array, "n Dv"] | None = None,
) -> Newton:
    """Solve the dual of every output.

    `start`, if given, is the solution of a similar problem: of another C, or other targets. Every u is feasible; the
    gap is measured, and stays above 1e-12 only where the rounding of Q u hides what is left. A large Q may be given by
    its rows; the interior point method needs all of it, and is left out for more than 15,000 points.

    Examples
    --------
    >>> newton(np.eye(2), np.array([[0.5], [3.0]]), epsilon=0.1, bias=False).u.round(12).tolist()
    [[0.4], [1.0]]
    """
    if not isinstance(Q, GramRows):
        Q = np.ascontiguousarray(Q, dtype=float)
    y, u = np.asarray(y, dtype=float), np.zeros(np.shape(y))
    for d, target in enumerate(y.T):
        problem = Q, target, epsilon, bias
        if start is None:
            found = [climb(*problem, sweep(*problem), steps=15 + len(y) // 100)]
        else:
            first = np.clip(start[:, d], -1, 1)
            found = [climb(*problem, first, steps=40 + len(y) // 100), measured(*problem, first)]
        if min(met.gap for met in found) > ENOUGH and len(y) <= LARGEST_MATRIX:
            Q = Q.matrix() if isinstance(Q, GramRows) else Q
            inside, b = interior(Q, target, epsilon, bias)
            found += [inside, climb(Q, target, epsilon, bias, snapped(Q, target, epsilon, inside.u, b), b)]
        u[:, d] = min(found, key=lambda met: met.gap).u
    f = Q @ u
    P, D, b = objective_values(f, (u * f).sum(axis=0), u, y, epsilon, bias)
    return Newton(u, b, float(relative_gap(P.sum(), D.sum(), abs(y).sum())))


def sweep(Q: Float[Array, "n n"] | GramRows, y: Float[Array, " n"], epsilon: float, bias: bool) -> Float[Array, " n"]:
    """A first u (n,): two steps from 0 for one block of indices after another, for the bias of f = 0."""
    u, f = np.zeros(len(y)), np.zeros(len(y))
    b = best_bias(y[:, None], epsilon)[0] if bias else 0.0
    ends = np.linspace(0, len(y), -(-len(y) // BLOCK) + 1).astype(int)
    for block in map(slice, ends[:-1], ends[1:]):
        rows, new, own = Q[block], u[block], f[block] * 0
        for _ in range(2):
            new, own, _, _ = step(rows[:, block], y[block] - f[block], epsilon, False, new, own, b)
        u[block] = new
        f += new @ rows
    return u


def climb(
    Q: Float[Array, "n n"] | GramRows,
    y: Float[Array, " n"],
    epsilon: float,
    bias: bool,
    u: Float[Array, " n"],
    b: float | None = None,
    steps: int = 8,
) -> _Met:
    """Steps from u, until the gap is rounding: the u of the smallest gap that was met."""
    f = Q @ u
    if b is None:
        b = best_bias((y - f)[:, None], epsilon)[0] if bias else 0.0
    best = _Met(np.inf, u)
    for count in range(steps):
        u, f, b, met_none = step(Q, y, epsilon, bias, u, f, b)
        if (met_none and (not bias or abs(u.sum()) <= 1e-9 * len(u))) or count == steps - 1:
            f, last, new = Q @ u, best.gap, measured(Q, y, epsilon, bias, u)
            best = min(best, new, key=lambda met: met.gap)
            if new.gap <= ROUNDING or (last <= ENOUGH and new.gap > last / 2):
                break
    return best


def step(
    Q: Float[Array, "n n"] | GramRows,
    y: Float[Array, " n"],
    epsilon: float,
    bias: bool,
    u: Float[Array, " n"],
    f: Float[Array, " n"],
    b: float,
) -> tuple[Float[Array, " n"], Float[Array, " n"], float, bool]:
    """One Newton step from u, with f = Q u and the bias b: the new u, f and b, and whether it met no bound."""
    r = y - f - b
    s = np.sign(np.where(u == 0, r, u))
    free = np.flatnonzero(np.where(u == 0, abs(r) > epsilon, (abs(u) < 1) | ((r - epsilon * s) * s < 0)))
    if not len(free):
        return u, f, b, True
    rows, now, s = Q[free], u[free], s[free]
    low, high, g = np.minimum(s, 0), np.maximum(s, 0), r[free] - epsilon * s
    A = rows[:, free]
    A.flat[:: len(free) + 1] += ROUNDING * np.maximum(A.diagonal(), abs(y).max())  # a factor even if A is singular
    factor = lapack.dpotrf(A.T, lower=1, clean=0, overwrite_a=1)[0]
    d = lapack.dpotrs(factor, g, lower=1)[0]
    met_none = ((low <= now + d) & (now + d <= high)).all()
    if met_none and bias:
        per_bias = lapack.dpotrs(factor, np.ones(len(free)), lower=1)[0]
        change = (u.sum() + d.sum()) / per_bias.sum()
        b, g, d = b + change, g - change, d - change * per_bias
    # The path meets its bounds at the times t_j. Tried are t = 1 and the times by which 1/2, 1/4, 1/8, ... are met.
    t = np.sort((np.where(d > 0, high, low) - now) / np.where(d == 0, 1e-300, d))
    t = t[(t > 0) & (t < 1)]
    t = np.append(1.0, t[len(t) >> np.arange(1, 8)] if len(t) else [])
    p = np.clip(now + t[:, None] * d, low, high) - now
    Qp = p @ rows
    slope, curvature = p @ g, (p * Qp[:, free]).sum(axis=1)
    # On the straight line to each point tried, D is largest at a share of the way. The best is taken; the whole way,
    # if that is nearly as good, since it leaves more of the u_j at their bounds.
    share = np.maximum(slope, 0) / np.maximum(np.maximum(slope, curvature), 1e-300)
    gain = slope * share - curvature * share**2 / 2
    i = gain.argmax()
    if slope[i] - curvature[i] / 2 >= 0.9 * gain[i]:
        share[i] = 1
    u = u.copy()
    u[free] = np.clip(now + t[i] * d, low, high) if share[i] == 1 else now + share[i] * p[i]
    return u, f + share[i] * Qp[i], b, met_none


def measured(
    Q: Float[Array, "n n"] | GramRows, y: Float[Array, " n"], epsilon: float, bias: bool, u: Float[Array, " n"]
) -> _Met:
    """u made feasible, and its relative gap."""
    columns = feasible(u[:, None], bias, Q.diagonal())
    f = Q @ columns
    P, D, _ = objective_values(f, (columns * f).sum(axis=0), columns, y[:, None], epsilon, bias)
    return _Met(relative_gap(P[0], D[0], abs(y).sum()), columns[:, 0])


def snapped(
    Q: Float[Array, "n n"], y: Float[Array, " n"], epsilon: float, u: Float[Array, " n"], b: float
) -> Float[Array, " n"]:
    """u with those entries put to 0 or +-1 that a step on them alone would put there."""
    q = np.maximum(Q.diagonal(), ROUNDING * abs(y).max())
    alone = u + (y - Q @ u - b) / q
    size = np.clip(abs(alone) - epsilon / q, 0, 1)
    return np.where((size > 0) & (size < 1), u, np.sign(alone) * size)


def interior(Q: Float[Array, "n n"], y: Float[Array, " n"], epsilon: float, bias: bool) -> tuple[_Met, float]:
    """The interior point method of Mehrotra, on primal and dual at once: the u of the smallest gap, and its b.

    Both sides of the tube are rows of (2, n) arrays: the multipliers a = (alpha, alpha~) in (0, 1), u = alpha - alpha~,
    rest = 1 - a; the slacks xi > 0; the room in the tube, p = epsilon + xi -+ r > 0. At the optimum a p = rest xi = 0;
    Newton's method follows a p = rest xi = mu as mu goes to 0. With p and xi eliminated its equations are

        theta da = rho -+ z,   z = Q du + db,   theta = p / a + xi / rest,   rho = +-r - epsilon + mu / a - mu / rest

    Hence du = da_+ - da_- = (right - z) / W, right = W (rho_+ / theta_+ - rho_- / theta_-), 1 / W = sum 1 / theta, so

        (Q + diag W) du + db = right,   sum_j (u + du)_j = 0 if there is a bias

    Two of these choices keep the digits for a large Q: z is right - W du and not Q du, and u is not taken from a.
    """
    n = len(y)
    u, b, a, rest = np.zeros(n), 0.0, np.full((2, n), 0.5), np.full((2, n), 0.5)
    xi = np.maximum(SIDES * y - epsilon, 0) + abs(y).max()
    p = xi + epsilon - SIDES * y
    best = _Met(np.inf, u), b
    for _ in range(MOST_STEPS):
        gap = (a * p + rest * xi).sum()
        best = min(best, (measured(Q, y, epsilon, bias, u), b), key=lambda pair: pair[0].gap)
        if gap <= ROUNDING * abs(y).sum():
            break
        r, theta = y - Q @ u - b, p / a + xi / rest
        W = 1 / (1 / theta).sum(axis=0)
        A = Q.copy()
        A.flat[:: n + 1] += W + ROUNDING * Q.diagonal()
        factor = lapack.dpotrf(A.T, lower=1, clean=0, overwrite_a=1)[0]
        per_bias = lapack.dpotrs(factor, np.full(n, float(bias)), lower=1)[0]
        mu_p = mu_xi = 0.0
        for last in (False, True):  # how far the step to mu = 0 could go tells how much mu may shrink
            rho = SIDES * r - epsilon + mu_p / a - mu_xi / rest
            right = W * (rho[0] / theta[0] - rho[1] / theta[1])
            du = lapack.dpotrs(factor, right, lower=1)[0]
            db = (u + du).sum() / per_bias.sum() if bias else 0.0
            du -= db * per_bias
            da = (rho - SIDES * (right - W * du)) / theta
            dp, dxi = (mu_p - p * da) / a - p, (mu_xi + xi * da) / rest - xi
            t = 1 / max(1, *(ratio.max() for ratio in (-da / a, da / rest, -dp / p, -dxi / xi)))
            if not last:
                left = ((a + t * da) * (p + t * dp) + (rest - t * da) * (xi + t * dxi)).sum()
                mu = (left / gap) ** 3 * gap / (4 * n)
                mu_p, mu_xi = mu - da * dp, mu + da * dxi
        t = min(1, 0.995 * t)
        u, b, a, rest, p, xi = u + t * du, b + t * db, a + t * da, rest - t * da, p + t * dp, xi + t * dxi
    return best
