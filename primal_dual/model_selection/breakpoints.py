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
v_E solves H_EE v_E = ..., and since one point joins or leaves E at a time, the inverse of H_EE is kept up to date
(`block_inverse.py`). A breakpoint costs O(n^2). The path ends when no point is at a bound.

Two special cases. With a bias and nobody on the edge, b may be anywhere in an interval, which moves with C; where it
closes, the points of both its ends join E. And where H_EE would become singular with a new point (fewer features than
points, repeated keys), the delta_j of that point first moves along the null vector, which changes no r, until another
point leaves the edge, or until it has crossed from one state to the other. Equal targets may all change their states
at C = 0; where these cannot be untangled one by one, the path starts with Newton's method at a small C.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from primal_dual.model_selection.block_inverse import BlockInverse
from primal_dual.svr.optimality import objective_values, relative_gap
from primal_dual.svr.projected_newton import newton
from primal_dual.types import Array, Bool, Float, Int

TUBE, EDGE, BOUND = 1, 0, -1
ROUNDING = 1e-11  # relative size of what is zero but for rounding
ENOUGH = 2e-11  # relative gap that no breakpoint exceeds


@dataclass(frozen=True, eq=False)
class Breakpoints:
    """The K breakpoints of one output: C (K,), rising from 0, and delta (K, n), b (K,) and the relative gap (K,) there.

    `sound` (K,) tells that the line from the breakpoint before is the solution in its middle, too, to a gap of 1e-10.
    `beyond` holds the slopes of delta and b after the last, where no state changes more; it is None if the path ends
    before, at `largest` or where rounding does not let it go on. At a C that the path does not reach, and on a line
    that is not sound, `at` solves the `problem`, whose targets and tube are in units of `unit`.
    """

    C: np.ndarray
    delta: np.ndarray
    bias: np.ndarray
    relative_gap: np.ndarray
    sound: np.ndarray
    beyond: tuple | None
    problem: tuple
    unit: float

    def at(self, C: float) -> tuple[Float[Array, " n"], float]:
        """delta (n,) and b at a penalty C > 0."""
        k = np.searchsorted(self.C, C)
        if k < len(self.C) and self.sound[k]:
            share = (C - self.C[k - 1]) / (self.C[k] - self.C[k - 1])
            return tuple(x[k - 1] + share * (x[k] - x[k - 1]) for x in (self.delta, self.bias))
        if k == len(self.C) > 0 and self.beyond:
            return self.delta[-1] + (C - self.C[-1]) * self.beyond[0], self.bias[-1] + (C - self.C[-1]) * self.beyond[1]
        G, y, epsilon, bias = self.problem
        u, b, _ = newton(C / self.unit * G, y[:, None], epsilon, bias)
        return C * u[:, 0], self.unit * b[0]


def follow(
    G: Float[Array, "n n"], y: Float[Array, " n"], epsilon: float, bias: bool, largest: float = np.inf
) -> Breakpoints:
    """The path of one output, from C = 0 to `largest`, or to where no state changes more."""
    unit = 2.0 ** (np.frexp(abs(y).max())[1] - 1)  # of the targets: a power of 2, which rounds nothing
    y, epsilon, largest = y / unit, epsilon / unit, largest / unit
    walk = Walk(G, y, epsilon, bias)
    walk.on_to(largest)
    negligible = abs(y).max() / max(abs(G).sum(axis=1).max(), 1e-300)  # C there: G delta is less than the targets
    small = 1e-5 * negligible
    if walk.beyond is None and small >= walk.C and largest > walk.C:
        walk.start_at(small)
        walk.on_to(largest)
    found = [point for point in walk.found if not 0 < point[0] < 1e-12 * negligible]
    C, b, gap = (np.array([point[i] for point in found]) for i in (0, 2, 3))
    delta = np.array([point[1] for point in found]).reshape(-1, len(y))
    sound = _sound(G, y, epsilon, bias, C, delta)
    return Breakpoints(unit * C, unit * delta, unit * b, gap, sound, walk.beyond, (G, y, epsilon, bias), unit)


class Event(NamedTuple):
    """The next change of states: the growth of C until then, who leaves the edge to which state, and who joins it.

    Each that joins is given as (j, side), with the side of the tube, 1 or -1, on which it is.
    """

    after: float
    leaving: int | None = None
    to: int = EDGE
    joining: tuple = ()


class Line(NamedTuple):
    """The solution from one C on: v = (delta, b) and H v (m,) there, their slopes, and the event that ends the line."""

    v: Float[Array, " m"]
    product: Float[Array, " m"]
    slope: Float[Array, " m"]
    product_slope: Float[Array, " m"]
    event: Event

    def after(self, growth: float) -> tuple[Float[Array, " m"], Float[Array, " m"]]:
        """v and H v after a growth of C."""
        return self.v + growth * self.slope, self.product + growth * self.product_slope


class Walk:
    """A walk along the path: the C where it is, the sign s_j and the state of each point (n,), and what it found.

    `found` has a tuple (C, delta, b, relative gap) a breakpoint; `beyond` is None until no state changes more.
    """

    def __init__(self, G: Float[Array, "n n"], y: Float[Array, " n"], epsilon: float, bias: bool) -> None:
        self.G, self.y, self.epsilon, self.bias = G, y, epsilon, bias
        self.C, self.s, self.edge = 0.0, self._signs_at_zero(), BlockInverse(G, bias)
        self.state: Int[Array, " n"] = np.where(self.s == 0, TUBE, BOUND)
        self.found: list[tuple] = []
        self.beyond: tuple | None = None
        most = abs(G).sum(axis=1)  # G delta changes by no more, as C grows by 1
        self.noise = ROUNDING * most + 1e-15 * bias * most.max()

    def _signs_at_zero(self) -> Float[Array, " n"]:
        """With a bias, b is the middle of the 2n ends y_j -+ epsilon: n are below it, so that sum_j s_j = 0."""
        if not self.bias:
            return np.where(abs(self.y) > self.epsilon, np.sign(self.y), 0)
        n, ends = len(self.y), np.concatenate([self.y - self.epsilon, self.y + self.epsilon])
        below = np.zeros(2 * n)
        below[np.argsort(ends, kind="stable")[:n]] = 1
        return 1 - below[:n] - below[n:]

    def start_at(self, C: float) -> None:
        """Begin again at C, with the solution by Newton's method."""
        self.C, self.found, self.beyond = C, [], None
        u = newton(C * self.G, self.y[:, None], self.epsilon, self.bias)[0][:, 0]
        self.s, self.state, delta = np.sign(u), np.where(u == 0, TUBE, BOUND), C * u
        self.edge.clear()
        for j in np.flatnonzero((u != 0) & (abs(u) < 1)):
            self._enter(j, self.s[j], delta)

    def on_to(self, largest: float) -> None:
        """Walk to `largest`, or to where no state changes more; not so far where rounding hides what comes next."""
        n, at_once = len(self.y), 0
        while at_once <= n and len(self.found) <= 30 * (n + 1):
            line = self._line()
            if not self._record(line.v, line.product):
                self.edge.renew()
                line = self._line()
                if not self._record(line.v, line.product):
                    return
            event = line.event
            if largest <= self.C:
                return
            if event.after == np.inf or not (self.state == BOUND).any():
                self.beyond = line.slope[:n], line.slope[n:].sum()
                return
            at_once = at_once + 1 if event.after <= ROUNDING * self.C else 0
            if self.C + event.after >= largest:
                self.C = largest
            else:
                self.C += event.after
                if not self._pass(event, *line.after(event.after)):
                    return

    def _line(self) -> Line:
        """The line from C on, with the states as they are."""
        n = len(self.y)
        fixed = np.append(self.s * (self.state == BOUND), np.zeros(int(self.bias)))
        target = np.append(self.y - self.epsilon * self.s, np.zeros(int(self.bias)))
        v, product = self.edge.solve(self.C * fixed, target)
        slope, product_slope = self.edge.solve(fixed, 0 * target)
        r, r_slope = self.y - product[:n], -product_slope[:n]
        if self.bias and not self.edge.on.any():
            v[n], event = self._interval(r, r_slope)
            return Line(v, product + v[n], slope, product_slope, event)
        leave, to = self._leaves(self.s * v[:n], self.s * slope[:n])
        join, side = self._joins(r, r_slope)
        i, j = leave.argmin(), join.argmin()
        if leave[i] <= join[j]:
            return Line(v, product, slope, product_slope, Event(max(leave[i], 0), int(i), to[i]))
        return Line(v, product, slope, product_slope, Event(max(join[j], 0), joining=((j, side[j]),)))

    def _record(self, v: Float[Array, " m"], product: Float[Array, " m"]) -> bool:
        """Whether this is a solution. If so, it is kept, with what rounding has put outside the box put back.

        A sum_j delta_j that is not zero to the last digit counts as a gap of |b sum_j delta_j|.
        """
        n = len(self.y)
        delta, b = np.clip(v[:n], -self.C, self.C), v[n:].sum()
        moved = np.flatnonzero(delta != v[:n])
        f = product[:n] - b + (delta - v[:n])[moved] @ self.G[moved]
        P = delta @ f / 2 + self.C * np.maximum(abs(self.y - f - b) - self.epsilon, 0).sum()
        D = self.y @ delta - delta @ f / 2 - self.epsilon * abs(delta).sum() - abs(b * delta.sum())
        gap = relative_gap(P, D, self.C * abs(self.y).sum())
        if gap <= ENOUGH:
            self.found.append((self.C, delta, b, gap))
        return bool(gap <= ENOUGH)

    def _leaves(
        self, size: Float[Array, " n"], growth: Float[Array, " n"]
    ) -> tuple[Float[Array, " n"], Int[Array, " n"]]:
        """After which growth of C each point leaves the edge, as its |delta_j| = size reaches 0 or C; and where to."""
        with np.errstate(divide="ignore", invalid="ignore"):
            to_bound = np.where(growth > 1 + ROUNDING, (self.C - size) / (growth - 1), np.inf)
            after = np.where(growth < -ROUNDING, -size / growth, to_bound)
        return np.where(self.state == EDGE, after, np.inf), np.where(growth < 0, TUBE, BOUND)

    def _joins(
        self, r: Float[Array, " n"], r_slope: Float[Array, " n"]
    ) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        """After which growth of C each point reaches the edge, and on which side of the tube."""
        side = np.where(self.state == TUBE, np.sign(r_slope), self.s)
        room, speed = self.state * (self.epsilon - side * r), self.state * side * r_slope
        room[room <= 1e-14 * abs(r).max()] = 0  # together, but for rounding
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(speed > self.noise, room / speed, np.inf), side

    def _interval(self, r: Float[Array, " n"], r_slope: Float[Array, " n"]) -> tuple[float, Event]:
        """The middle of the interval of b, and the event that closes it; here r = y - G delta, without b.

        A point in the tube keeps b between r_j - epsilon and r_j + epsilon, and those at a bound keep it below
        r_j - epsilon for s_j = 1, above r_j + epsilon for s_j = -1. All these ends move with r_slope.
        """
        above = np.flatnonzero((self.state == TUBE) | (self.s > 0))
        below = np.flatnonzero((self.state == TUBE) | (self.s < 0))
        high = r[above] + self.epsilon * self.state[above]
        low = r[below] - self.epsilon * self.state[below]
        middle = (high.min(initial=np.inf) + low.max(initial=-np.inf)) / 2
        if not (len(above) and len(below)):
            return middle, Event(np.inf)
        if high.min() - low.max() <= 1e-14 * abs(r).max():
            after, i, j = 0.0, high.argmin(), low.argmax()
        else:  # each time, the pair that closes first is not earlier than the pair of ends that are nearest then
            after, i, j = np.inf, r_slope[above].argmin(), r_slope[below].argmax()
            while (closing := r_slope[below[j]] - r_slope[above[i]]) > 0 and (
                t := (high[i] - low[j]) / closing
            ) < after:
                after = t
                i, j = (high + t * r_slope[above]).argmin(), (low + t * r_slope[below]).argmax()
        i, j = above[i], below[j]
        return middle, Event(after, joining=((i, -self.state[i]), (j, self.state[j])))

    def _pass(self, event: Event, v: Float[Array, " m"], product: Float[Array, " m"]) -> bool:
        """Change the states; where delta moves, both its ends are breakpoints. False if rounding hides one."""
        delta = v[: len(self.y)].copy()
        if event.leaving is not None:
            self.state[event.leaving] = event.to
            self.edge.drop(event.leaving)
        for j, side in event.joining:
            self._enter(j, side, delta)
        return (delta == v[: len(self.y)]).all() or self._record(v, product)

    def _enter(self, j: int, side: float, delta: Float[Array, " n"]) -> None:
        """Let j join the edge on a side of the tube, or cross it, while `delta` moves along the null vectors."""
        while True:
            z, rest = self.edge.beside(j)
            if rest or not self.edge.on.any():
                self.s[j], self.state[j] = side, EDGE
                return self.edge.add(j, z, rest)
            move = -z[: len(self.y)]
            move[j] = 1
            move *= side if self.state[j] == TUBE else -side
            i, far, to = self._first_to_leave(delta, move)
            way = self.C if self.state[j] == TUBE else abs(delta[j])
            delta += max(min(far, way), 0) * move
            if far >= way:
                self.s[j], self.state[j] = side, -self.state[j]
                return None
            self.state[i] = to
            self.edge.drop(i)

    def _first_to_leave(self, delta: Float[Array, " n"], move: Float[Array, " n"]) -> tuple[int, float, int]:
        """Who leaves the edge first, as delta moves at this C: (i, after how much of the move, to which state)."""
        size, growth = self.s * delta, self.s * np.where(abs(move) > 1e-6 * abs(move).max(), move, 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            to_bound = np.where(growth > 0, (self.C - size) / growth, np.inf)
            far = np.where(growth < 0, -size / growth, to_bound)
        far[self.state != EDGE] = np.inf
        i = far.argmin()
        return int(i), far[i], TUBE if growth[i] < 0 else BOUND


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
