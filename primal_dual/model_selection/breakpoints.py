"""The breakpoints of the solution of an SVR as a function of the penalty C: between them it is linear.

With the Gram matrix G (n, n) and delta = alpha - alpha~, the problem is

    minimise  1/2 delta'G delta + epsilon sum_j |delta_j| - y'delta,  |delta_j| <= C,  sum_j delta_j = 0 with a bias

and r = y - G delta - b is its residual. Every point is in one of three states: *in the tube*, delta_j = 0 and
|r_j| <= epsilon; *at its bound*, delta_j = s_j C and s_j r_j >= epsilon; *on the edge* E of the tube, r_j = s_j epsilon
and delta_j between 0 and s_j C. As long as no state changes, r_E does not either. Differentiated by C, that reads

    G_EE delta_E' + b' = -(G s)_E,   sum_E delta_j' = -sum_j s_j with a bias,       s_j here 0 but for points at a bound

so delta, b and r are linear in C until the first point changes its state: a delta_j of the edge reaches 0 or s_j C, or
another's r_j reaches the edge (Gunter and Zhu: Efficient computation and model selection for the support vector
regression, Neural Computation 2007). With a bias, v = (delta, b) and H = [G 1; 1' 0], else v = delta and H = G: then
v_E solves H_EE v_E = ..., and since one point joins or leaves E at a time, M = H_EE^-1 is updated by a matrix of rank
one. A breakpoint costs O(n^2). The path ends when no point is at a bound.

Two special cases. With a bias and nobody on the edge, b may be anywhere in an interval, which moves with C; where it
closes, the points of both its ends join E. And where H_EE would become singular with a new point (fewer features than
points, repeated keys), the delta_j of that point first moves along the null vector, which changes no r, until another
point leaves the edge, or until it has crossed from one state to the other. Equal targets may all change their states
at C = 0; where these cannot be untangled one by one, the path starts with Newton's method at a small C.
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg.blas import dsymv, dsyr

from primal_dual.svr.optimality import objective_values, relative_gap
from primal_dual.svr.projected_newton import newton
from primal_dual.types import Array, Bool, Float

TUBE, EDGE, BOUND = 1, 0, -1
ROUNDING = 1e-11  # relative size of what is zero but for rounding
ENOUGH = 2e-11  # relative gap that no breakpoint exceeds


@dataclass(frozen=True, eq=False)
class Breakpoints:
    """The K breakpoints of one output: C (K,), rising from 0, and delta (K, n), b (K,) and the relative gap (K,) there.

    `sound` (K,) tells that the line from the breakpoint before is the solution in its middle, too, to a gap of 1e-10.
    `beyond` holds the slopes of delta and b after the last; it is None if the path ends there, as rounding does not
    let it go on. At a C that the path does not reach, and on a line that is not sound, `at` solves the `problem`.
    """

    C: np.ndarray
    delta: np.ndarray
    bias: np.ndarray
    relative_gap: np.ndarray
    sound: np.ndarray
    beyond: tuple | None
    problem: tuple

    def at(self, C: float) -> tuple[Float[Array, " n"], float]:
        """delta (n,) and b at a penalty C > 0."""
        k = np.searchsorted(self.C, C)
        if k < len(self.C) and self.sound[k]:
            share = (C - self.C[k - 1]) / (self.C[k] - self.C[k - 1])
            return tuple(x[k - 1] + share * (x[k] - x[k - 1]) for x in (self.delta, self.bias))
        if k == len(self.C) > 0 and self.beyond:
            return self.delta[-1] + (C - self.C[-1]) * self.beyond[0], self.bias[-1] + (C - self.C[-1]) * self.beyond[1]
        G, y, epsilon, bias = self.problem
        u, b, _ = newton(C * G, y[:, None], epsilon, bias)
        return C * u[:, 0], b[0]


def follow(
    G: Float[Array, "n n"], y: Float[Array, " n"], epsilon: float, bias: bool, largest: float = np.inf
) -> Breakpoints:
    """The path of one output, from C = 0 to `largest`, or to where no state changes more."""
    beyond: tuple | None = None
    found: list = []
    n, C, at_once, edge = len(y), 0.0, 0, Edge(G, bias)
    s = np.where(abs(y) > epsilon, np.sign(y), 0)
    if bias:  # b = the middle of the ends y -+ epsilon: n of them below, n above, which makes the sum zero
        below = np.zeros(2 * n, dtype=int)
        below[np.argsort(np.concatenate([y - epsilon, y + epsilon]), kind="stable")[:n]] = 1
        s = 1.0 - below[:n] - below[n:]
    state = np.where(s == 0, TUBE, BOUND)
    most = abs(G).sum(axis=1)  # a change of C by 1 moves G delta by no more
    small = abs(y).max() / max(most.max(), 1e-300)
    noise = ROUNDING * most + 1e-15 * bias * most.max()
    stuck, restarted = False, False
    while True:
        if stuck or at_once > n or len(found) > 30 * (n + 1):
            if restarted or 1e-5 * small < C:
                break
            C, at_once, stuck, restarted, found = 1e-5 * small, 0, False, True, []
            s, state = restart(G, y, epsilon, bias, C, edge)
        fixed = np.append(s * (state == BOUND), np.zeros(edge.bias))
        target = np.append(y - epsilon * s, np.zeros(edge.bias))
        for fresh in (False, True):
            if fresh:
                edge.renew()
            v, fit = edge.solve(C * fixed, target)
            slope, fit_slope = edge.solve(fixed, 0 * target)
            if bias and not edge.on.any():
                v[n], t, joining = interval(y - fit[:n], fit_slope, s, state, epsilon)
                fit = fit + v[n]
            delta, gap = measured(G, y, epsilon, C, v, fit)
            if gap <= ENOUGH:
                break
        if stuck := gap > ENOUGH:
            continue
        found.append((C, delta, v[n:].sum(), gap))
        if largest <= C or not (state == BOUND).any():
            beyond = slope[:n], slope[n:].sum()
            break
        leaving = None
        if edge.on.any() or not bias:
            join, side = joins(y - fit[:n], -fit_slope[:n], s, state, epsilon, noise)
            leave, to = leaves(C, s * v[:n], s * slope[:n], state)
            i, j = leave.argmin(), join.argmin()
            t, joining, leaving = (leave[i], (), i) if leave[i] <= join[j] else (join[j], [(j, side[j])], None)
        if t == np.inf:
            beyond = slope[:n], slope[n:].sum()
            break
        t = max(t, 0)
        at_once = at_once + 1 if t <= ROUNDING * C else 0
        if C + t >= largest:
            C = largest
            continue
        C, v, fit = C + t, v + t * slope, fit + t * fit_slope
        delta = v[:n].copy()
        if leaving is not None:
            state[leaving] = to[leaving]
            edge.drop(leaving)
        for j, side in joining:
            enter(j, side, edge, C, delta, s, state)
        if (delta != v[:n]).any():
            delta, gap = measured(G, y, epsilon, C, v, fit)
            if not (stuck := gap > ENOUGH):
                found.append((C, delta, v[n:].sum(), gap))
    found = [point for point in found if not 0 < point[0] < 1e-12 * small]
    at = np.array([point[0] for point in found])
    delta = np.array([point[1] for point in found]).reshape(-1, n)
    b, gap = (np.array([point[i] for point in found]) for i in (2, 3))
    return Breakpoints(at, delta, b, gap, _sound(G, y, epsilon, bias, at, delta), beyond, (G, y, epsilon, bias))


def _sound(
    G: Float[Array, "n n"],
    y: Float[Array, " n"],
    epsilon: float,
    bias: bool,
    C: Float[Array, " K"],
    delta: Float[Array, "K n"],
) -> Bool[Array, " sound"]:
    """Whether the middle of the line to each breakpoint is a solution."""
    middle, between = (delta[1:] + delta[:-1]) / 2, np.maximum(C[1:] + C[:-1], 1e-300) / 2
    f = middle @ G
    P, D, _ = objective_values(f.T, (middle * f).sum(axis=1) / between, middle.T / between, y[:, None], epsilon, bias)
    size = np.maximum(np.maximum(abs(P), abs(D)), 0.01 * abs(y).sum())
    return np.append(False, 1e-10 * size >= P - D)


class Edge:
    """H, the members of it that are `on` the edge, and the inverse M of their block, in the lower triangle."""

    def __init__(self, G, bias):
        n, self.bias = len(G), int(bias)
        self.H = np.ones((n + self.bias, n + self.bias), order="F")
        self.H[:n, :n], self.H[n:, n:] = G, 0
        self.M, self.on = np.zeros(self.H.shape, order="F"), np.zeros(len(self.H), dtype=bool)

    def solve(self, start, target):
        """v, equal to `start` off the edge, with H v equal to `target` on it -> v, H v."""
        v, fit = start, dsymv(1, self.H, start, lower=1)
        size = abs(fit).max() + abs(target).max()
        for _ in range(4):  # the first time is enough, until the rounding of many changes adds up
            error = np.where(self.on, target - fit, 0)
            if abs(error).max() <= 1e-14 * size:
                break
            v = v + dsymv(1, self.M, error, lower=1)
            fit = dsymv(1, self.H, v, lower=1)
        return v, fit

    def beside(self, j):
        """z = M h, for the column h of a new point j, and H_jj - h'M h: zero, if the block would be singular with j."""
        z = dsymv(1, self.M, self.H[:, j], lower=1)
        rest, size = self.H[j, j] - self.H[:, j] @ z, self.H[j, j] + abs(self.H[:, j] * z).sum()
        return z, rest if rest > ROUNDING * size else 0.0

    def add(self, j, z, rest):
        """Let j join: M + zz'/rest with z_j = -1, as the inverse of a block matrix grows. The first brings the bias."""
        if self.bias and not self.on.any():
            self.on[-1] = True
            self.M[-1, j], self.M[-1, -1] = 1, -self.H[j, j]
        else:
            z[j] = -1
            dsyr(1 / rest, z, lower=1, a=self.M, overwrite_a=1)
        self.on[j] = True

    def drop(self, j):
        """Let j leave: the same backwards."""
        self.on[j] = False
        m = np.append(self.M[j, :j], self.M[j:, j])
        dsyr(-1 / m[j] if m[j] else 0, m, lower=1, a=self.M, overwrite_a=1)
        self.M[j, :j] = self.M[j:, j] = 0
        if self.bias and self.on.sum() == 1:
            self.on[-1], self.M[-1, -1] = False, 0

    def renew(self):
        """M from scratch, without the rounding of its changes."""
        on = np.flatnonzero(self.on)
        scale = 1 / np.sqrt(np.maximum(self.H.diagonal()[on], 1e-300))
        scale[self.H.diagonal()[on] == 0] = 1
        self.M[np.ix_(on, on)] = (
            scale[:, None] * np.linalg.pinv(scale[:, None] * self.H[np.ix_(on, on)] * scale, hermitian=True) * scale
        )


def measured(G, y, epsilon, C, v, fit):
    """delta, with what rounding has put outside the box put back, and its relative gap; fit = G delta + b.

    A sum_j delta_j that is not zero to the last digit counts as a gap of |b sum_j delta_j|.
    """
    n = len(y)
    delta, b = np.clip(v[:n], -C, C), v[n:].sum()
    moved = np.flatnonzero(delta != v[:n])
    f = fit[:n] - b + (delta - v[:n])[moved] @ G[moved]
    P = delta @ f / 2 + C * np.maximum(abs(y - f - b) - epsilon, 0).sum()
    D = y @ delta - delta @ f / 2 - epsilon * abs(delta).sum() - abs(b * delta.sum())
    return delta, relative_gap(P, D, C * abs(y).sum())


def leaves(C, size, grows, state):
    """After which change of C each point (n,) leaves the edge, as its |delta_j| = size reaches 0 or C; and where to."""
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(grows < -ROUNDING, -size / grows, np.where(grows > 1 + ROUNDING, (C - size) / (grows - 1), np.inf))
    return np.where(state == EDGE, t, np.inf), np.where(grows < 0, TUBE, BOUND)


def joins(r, r_slope, s, state, epsilon, noise):
    """After which change of C each point (n,) reaches the edge, and on which side of the tube."""
    side = np.where(state == TUBE, np.sign(r_slope), s)
    room, speed = state * (epsilon - side * r), state * side * r_slope
    room[room <= 1e-14 * abs(r).max()] = 0  # together, but for rounding
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(speed > noise, room / speed, np.inf), side


def interval(r, f_slope, s, state, epsilon):
    """The middle of the interval of b, after which change of C it closes, and the two points that close it.

    r = y - f. A point in the tube keeps b between r_j - epsilon and r_j + epsilon, and those at a bound keep it below
    r_j - epsilon for s_j = 1, above r_j + epsilon for s_j = -1. All these ends move with -f_slope.
    """
    above = np.flatnonzero((state == TUBE) | (s > 0))
    below = np.flatnonzero((state == TUBE) | (s < 0))
    high, low = r[above] + epsilon * state[above], r[below] - epsilon * state[below]
    middle = (high.min(initial=np.inf) + low.max(initial=-np.inf)) / 2
    if not (len(above) and len(below)):
        return middle, np.inf, ()
    if high.min() - low.max() <= 1e-14 * abs(r).max():
        ends = above[high.argmin()], below[low.argmax()]
        return middle, 0.0, [(ends[0], -state[ends[0]]), (ends[1], state[ends[1]])]
    t, i, j = np.inf, f_slope[above].argmax(), f_slope[below].argmin()
    while (closing := f_slope[above[i]] - f_slope[below[j]]) > 0 and (earlier := (high[i] - low[j]) / closing) < t:
        t = earlier
        i, j = (high - t * f_slope[above]).argmin(), (low - t * f_slope[below]).argmax()
    ends = above[i], below[j]
    return middle, t, [(ends[0], -state[ends[0]]), (ends[1], state[ends[1]])]


def restart(G, y, epsilon, bias, C, edge):
    """The signs and states (n,) of the solution by Newton's method, and its edge."""
    u = newton(C * G, y[:, None], epsilon, bias)[0][:, 0]
    s, state = np.sign(u), np.where(u == 0, TUBE, BOUND)
    edge.M[:], edge.on[:], delta = 0, False, C * u
    for j in np.flatnonzero((u != 0) & (abs(u) < 1)):
        enter(j, s[j], edge, C, delta, s, state)
    return s, state


def enter(j, side, edge, C, delta, s, state):
    """Let j join the edge, on a side of the tube, at this C and delta."""
    n = len(s)
    while True:
        z, rest = edge.beside(j)
        if rest or not edge.on[:n].any():
            break
        # Along the null vector, until another point leaves the edge or delta_j has come to the end of its way.
        move = -z[:n]
        move[j] = 1
        move *= side if state[j] == TUBE else -side
        size, grows = s * delta, s * np.where(abs(move) > 1e-6 * abs(move).max(), move, 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            far = np.where(grows < 0, -size / grows, np.where(grows > 0, (C - size) / grows, np.inf))
        i = np.where(state == EDGE, far, np.inf).argmin()
        way = C if state[j] == TUBE else abs(delta[j])
        delta += max(min(far[i], way), 0) * move
        if state[i] != EDGE or far[i] >= way:
            state[j], s[j] = -state[j], side
            return
        state[i] = TUBE if grows[i] < 0 else BOUND
        edge.drop(i)
    s[j], state[j] = side, EDGE
    edge.add(j, z, rest)
