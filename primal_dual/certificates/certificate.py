"""The certificate: which SVR given keys and values solve, and by how much they miss its optimum.

Without a bias, any keys and values are the optimum of an SVR: with delta_j = h(k_j) v_j, targets
y_j = f(k_j) + epsilon sign(delta_j) and C >= max |delta|, the primal value of W = sum_j delta_j z_j' equals the dual
value of delta; see tutorial 2. Both are computed here from their own definitions, so that the gap between them is a
real check: |W|^2 from the kernel, f from `attention`; see `gap.py`. Where each query has an SVR of its own, the one
with the largest gap is found first, by running sums or in blocks. All numbers are in units of exp(log_scale),
log_scale = max_j log |h(k_j)|, so that logits of any size can be certified.
"""

import math
from dataclasses import dataclass

import numpy as np

from primal_dual import checks
from primal_dual.certificates.causal_positions import gaps_by_running_sums, has_running_sums
from primal_dual.certificates.gap import Expansion, judge
from primal_dual.certificates.position_blocks import gaps_by_blocks
from primal_dual.primal import Heads, Primal
from primal_dual.supports import Everything
from primal_dual.svr.optimality import SUPPORT_VECTOR, gap_scale
from primal_dual.svr.solutions import check_head_axis
from primal_dual.svr.solve import solve_scaled_dual
from primal_dual.svr.training_sets import TrainingSet, pooled_rows, training_set
from primal_dual.types import Array, Bool, Float, Num

ROWS_AT_A_TIME = 256  # training points
ROUNDING = 1e-8  # of |W|^2, beside the most that it can be
SMALLEST_LOG = -640.0  # of a number that is well above the least float


@dataclass(frozen=True, eq=False)
class Certificate:
    """The SVR that values solve, and the proof; printed as a one-line summary.

    Attributes
    ----------
    targets : array, (n, Dv)
        What the SVR is fitted to.
    log_C : float
        The natural logarithm of the penalty C.
    log_scale : float
        The natural logarithm of the unit of the primal and the dual value, and of delta.
    log_norm : float
        log |W|, the norm of the head as a function in its feature space.
    primal_value, dual_value : float
        P of the primal at W, and Q of the dual at the nearest feasible delta; equal at the optimum.
    relative_gap : float
        (P - Q) / max(|P|, |Q|, 0.01 C sum |y|).
    stationarity : float
        max_jd |f(k_j) - sum_i delta_i z_i.z_j|, relative to max |f|: how far the expansion is from W.
    feasibility : float
        By what fraction of C the dual constraints are violated: |delta| <= C and, with a bias, sum_j delta_j = 0.
    complementarity : float
        The largest fraction of the gap that is due to one target, max_jd of
        C xi_jd + epsilon |delta_jd| - (y_jd - f_jd - b_d) delta_jd >= 0, relative to the scale of the gap. It is zero
        where every slack belongs to a delta at its bound.
    query : int or None
        Whose SVR, under a sparse support.
    bias : array, (Dv,)
        b, zero without a bias.
    delta : array, (n, Dv)
        delta_j = h(k_j) v_j, in units of exp(log_scale).
    """

    targets: np.ndarray
    log_C: float
    log_scale: float
    log_norm: float
    primal_value: float
    dual_value: float
    relative_gap: float
    stationarity: float
    feasibility: float
    complementarity: float
    query: int | None
    bias: np.ndarray
    delta: np.ndarray
    _training_set: TrainingSet

    def __repr__(self) -> str:
        n, outputs = self.targets.shape
        whose = "" if self.query is None else f" of query {self.query}"
        size = f"log C = {self.log_C:.4g}, log |W| = {self.log_norm:.4g}"
        return f"SVR{whose} on {n} points with {outputs} outputs: relative gap {self.relative_gap:.1e}, {size}"

    def support_vectors(self, epsilon: float) -> Bool[Array, "n Dv"]:
        """Which delta are not zero, if the SVR is solved anew with a tube of half-width `epsilon`."""
        checks.number("epsilon", epsilon, least=0)
        solved = solve_scaled_dual(self._training_set, self.targets, self.log_C, epsilon, "newton")
        return abs(solved.u) > SUPPORT_VECTOR

    def error_bound(self, x: Float[Array, "M D"]) -> Float[Array, " M"]:
        """How far f, the function of the given values, can be from f*, the optimum of the SVR, at each x.

            |f(x) - f*(x)| <= (|Phi(T x)| / |h(x)| + m) sqrt(2 max(gap, 0)),    Euclidean norm over outputs

        Without a bias m = 0: the primal is 1-strongly convex in W, so |W - W*|^2 / 2 <= P - P* <= P - Q = gap, whatever
        solver made the values, and f - f* = (W - W*) Phi / h. With a bias, m = max_j |z_j|: the best bias of a function
        moves by at most as much as the function does at the training points, max_j |(W - W*) z_j|. With a violated dual
        constraint there is no bound: infinity.
        """
        train = self._training_set
        gap = max(self.primal_value - self.dual_value, 0.0)
        with np.errstate(divide="ignore", over="ignore"):
            log_root = (np.log(2 * gap) + self.log_scale) / 2
            bound = np.exp(train.log_norms(train.convolve(x)) + log_root)
            return bound + np.exp(train.log_norms(train.keys).max() + log_root) if train.primal.bias else bound


def certify(
    primal: Primal | Heads,
    keys: Num[Array, "*heads N D"],
    values: Num[Array, "*heads N Dv"],
    *,
    targets: Num[Array, "*heads rows Dv"] | None = None,
    C: float | None = None,
    epsilon: float = 0.0,
    query: int | None = None,
) -> Certificate | tuple[Certificate, ...]:
    """The certificate of an attention head: the SVR that its keys and values solve, and the gap that proves it.

    Source: arXiv 2406.13781; see tutorials 2 and 6.

    Parameters
    ----------
    primal : Primal or Heads
        Which attention it is. For Heads, a head axis comes first in all arrays.
    keys, values : arrays, (N, D) and (N, Dv)
        Those of the head. With a bias, the values must satisfy sum_j h(k_j) v_j = 0; b is then the best one for them.
    targets : array, (N, Dv) or (n, Dv), optional
        What the SVR is fitted to. By default those that the values fit, y_j = f(k_j) + epsilon sign(delta_j).
    C : float, optional
        The penalty; by default the smallest that the values need.
    epsilon : float
        The half-width of the tube.
    query : int, optional
        Under a support other than Everything each query has an SVR of its own: `query` says which. Without it all are
        certified and the one with the largest gap is returned.

    Returns
    -------
    Certificate
        A tuple of them for Heads.

    Raises
    ------
    ValueError
        For shapes that do not fit, numbers that are not finite, C <= 0 and epsilon < 0; and for a kernel that is not
        symmetric and positive semidefinite, at the keys if they are few, else at 256 of them or fewer.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> certify(Primal(), rng.standard_normal((20, 4)), rng.standard_normal((20, 3))).relative_gap < 1e-12
    True
    """
    if isinstance(primal, Heads):
        check_head_axis(primal, keys=keys, values=values, **({} if targets is None else {"targets": targets}))
        targets = [None] * len(primal) if targets is None else targets
        heads = zip(primal, keys, values, targets, strict=True)
        return tuple(_certify_head(*head, C, epsilon, query) for head in heads)
    return _certify_head(primal, keys, values, targets, C, epsilon, query)


def _certify_head(
    primal: Primal,
    keys: Array,
    values: Array,
    targets: Array | None,
    C: float | None,
    epsilon: float,
    query: int | None,
) -> Certificate:
    """The certificate of one head; of the query with the largest gap where each has one."""
    if C is not None:
        checks.number("C", C, above=0)
    checks.number("epsilon", epsilon, least=0)
    checks.expect_primal(primal)
    keys, values = checks.matrix("keys", keys, "N D"), checks.matrix("values", values, "N Dv")
    if len(keys) != len(values):
        raise ValueError(f"expected as many values as keys; got {values.shape} and {keys.shape}")
    if query is None and not isinstance(primal.support, Everything):
        y = None if targets is None else checks.matrix("targets", targets, "N Dv")
        position_gaps = gaps_by_running_sums if has_running_sums(primal) else gaps_by_blocks
        query = int(np.argmax(position_gaps(primal, keys, values, y, C, epsilon)))
    return _certify_query(training_set(primal, keys, query), values, targets, C, epsilon, query)


def _certify_query(
    train: TrainingSet, values: Array, targets: Array | None, C: float | None, epsilon: float, query: int | None
) -> Certificate:
    train.check_kernel()
    svr, stationarity = _expand(train, values)
    y = None if targets is None else pooled_rows("targets", targets, train)
    judged = judge(svr, y, C, epsilon, train.primal.bias)
    lower = judged.dual_value if math.isfinite(judged.dual_value) else 0.0
    parts_of_the_gap = judged.C * judged.xi + epsilon * abs(svr.delta) - (judged.y - svr.f - judged.b) * svr.delta
    return Certificate(
        targets=judged.y,
        log_C=float(svr.log_scale + np.log(judged.C)) if judged.C else -np.inf,
        log_scale=float(svr.log_scale),
        log_norm=float((math.log(svr.square) + svr.log_scale) / 2) if svr.square > 0 else -np.inf,
        primal_value=float(judged.primal_value),
        dual_value=float(judged.dual_value),
        relative_gap=float(judged.relative_gap),
        stationarity=stationarity,
        feasibility=float(judged.feasibility),
        complementarity=float(parts_of_the_gap.max() / (gap_scale(judged.primal_value, lower, judged.size) or 1.0)),
        query=query,
        bias=judged.b,
        delta=svr.delta,
        _training_set=train,
    )


def _expand(train: TrainingSet, values: Float[Array, "N Dv"]) -> tuple[Expansion, float]:
    """The values as an SVR, some rows of the kernel matrix at a time; and how far their expansion is from f."""
    v = train.pool(values)
    f = train.attend(train.keys, v)
    starts = range(0, len(train.keys), ROWS_AT_A_TIME)
    blocks = (train.rows(train.keys[start : start + ROWS_AT_A_TIME]) for start in starts)
    each = [(w @ v, top, sign, log_h) for w, top, sign, log_h in blocks]
    sums, top, sign, log_h = (np.concatenate(columns) for columns in zip(*each, strict=True))
    log_scale = log_h.max()
    with np.errstate(over="ignore", invalid="ignore"):  # reported below
        square = (v * sums * np.exp(top - log_scale)).sum()
    log_lengths = train.log_lengths(train.keys)
    _expect_norm(train, v, log_lengths, log_scale, square)
    expansion = sums * np.exp(top - log_h) * sign
    stationarity = float(abs(f - expansion).max() / (abs(f).max() or 1.0))
    delta = sign * np.exp(log_h - log_scale) * v
    return Expansion(delta, f, square, log_h, log_scale, log_lengths), stationarity


def _expect_norm(
    train: TrainingSet, v: Float[Array, "n Dv"], log_lengths: Float[Array, " n"], log_scale: float, square: float
) -> None:
    """ValueError where |W|^2, in units of exp(log_scale), leaves the range of floats, or is negative beyond rounding.

    It is at most (sum_j |v_j| |Phi(T k_j)|)^2, and only a kernel that is none makes it negative.
    """
    with np.errstate(divide="ignore"):
        log_most = 2 * np.logaddexp.reduce(np.log(abs(v)) + log_lengths[:, None], axis=None) - log_scale
    if not np.isfinite(square) or SMALLEST_LOG > log_most > -np.inf:
        expected = "expected |W|^2 that a float can hold, in units of the largest h(k_j)"
        mend = "scale the values, or the keys where the kernel is tiny"
        raise ValueError(f"keys, values: {expected}; got one of up to exp({log_most:.4g}): {mend}")
    if square < 0 and math.log(-square) > math.log(ROUNDING) + log_most:
        expected = "expected <Phi(x), Phi(y)>, positive semidefinite"
        raise ValueError(f"{train.primal.kernel}: {expected}; got a negative |W|^2 for these keys and values")
