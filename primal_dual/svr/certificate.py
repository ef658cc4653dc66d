"""The certificate: which SVR given keys and values solve, and by how much they miss its optimum.

Without a bias, any keys and values are the optimum of an SVR: with delta_j = h(k_j) v_j, targets
y_j = f(k_j) + epsilon sign(delta_j) and C >= max |delta|, the primal value of W = sum_j delta_j z_j' equals the dual
value of delta; see tutorial 2. Both are computed here from their own definitions, so that the gap between them is a
real check: |W|^2 from the kernel, f from `attention`. All numbers are in units of exp(log_scale),
log_scale = max_j log |h(k_j)|, so that logits of any size can be certified.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from primal_dual import checks
from primal_dual.primal import Heads, Primal
from primal_dual.supports import svr_queries
from primal_dual.svr.optimality import best_bias, feasible, relative_gap
from primal_dual.svr.solutions import check_head_axis
from primal_dual.svr.training_sets import TrainingSet, pooled_rows, training_set
from primal_dual.types import Array, Float, Num

ROWS_AT_A_TIME = 256  # training points
ROUNDING = 1e-10  # a dual constraint that is missed by more than this fraction of C is violated


@dataclass(frozen=True, eq=False)
class Certificate:
    """The SVR that values solve, and the proof.

    Attributes
    ----------
    targets : array, (n, Dv)
        What the SVR is fitted to.
    log_C : float
        The natural logarithm of the penalty C.
    log_scale : float
        The natural logarithm of the unit of the next two.
    primal_value, dual_value : float
        P of the primal at W, and D of the dual at the nearest feasible delta; equal at the optimum.
    relative_gap : float
        (P - D) / max(|P|, |D|, 0.01 C sum |y|).
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
    """

    targets: np.ndarray
    log_C: float
    log_scale: float
    primal_value: float
    dual_value: float
    relative_gap: float
    stationarity: float
    feasibility: float
    complementarity: float
    query: int | None
    bias: np.ndarray
    _training_set: TrainingSet = field(repr=False)

    def error_bound(self, x: Float[Array, "M D"]) -> Float[Array, " M"]:
        """How far f, the function of the given values, can be from f*, the optimum of the SVR, at each x.

            |f(x) - f*(x)| <= (|Phi(T x)| / |h(x)| + m) sqrt(2 max(gap, 0)),    Euclidean norm over outputs

        Without a bias m = 0: the primal is 1-strongly convex in W, so |W - W*|^2 / 2 <= P - P* <= P - D = gap, whatever
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
        Half the width of the tube.
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
        For shapes that do not fit, numbers that are not finite, C <= 0 and epsilon < 0.

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
    queries = svr_queries(primal.support, len(keys)) if query is None else [query]
    every = (_certify_query(training_set(primal, keys, i), values, targets, C, epsilon, i) for i in queries)
    return max(every, key=lambda certificate: certificate.relative_gap)


class _Expansion(NamedTuple):
    """What the values are as an SVR, in units of exp(log_scale); n training points, Dv outputs.

    v (n, Dv): the values; delta = h v; f: the outputs at the keys by `attention`; expansion: the same by the kernel;
    square: |W|^2; log_h (n, 1): log |h(k_j)|; log_scale: its largest.
    """

    v: np.ndarray
    delta: np.ndarray
    f: np.ndarray
    expansion: np.ndarray
    square: float
    log_h: np.ndarray
    log_scale: float


def _certify_query(
    train: TrainingSet, values: Array, targets: Array | None, C: float | None, epsilon: float, query: int | None
) -> Certificate:
    svr = _expand(train, values)
    delta, f, bias = svr.delta, svr.f, train.primal.bias
    C = abs(delta).max() if C is None else np.exp(np.log(C) - svr.log_scale)
    y = f + epsilon * np.sign(delta) if targets is None else pooled_rows("targets", targets, train)
    if y.shape != f.shape:
        raise ValueError(f"targets: expected as many outputs as the values, {f.shape[1]}; got {y.shape}")

    b = best_bias(y - f, epsilon) if bias else np.zeros(f.shape[1])
    xi = np.maximum(abs(y - f - b) - epsilon, 0)
    P = svr.square / 2 + C * xi.sum()

    beyond_the_box = abs(delta).max() - C
    unbalanced = abs(delta.sum(axis=0)).max() if bias else 0.0
    feasibility = max(0.0, beyond_the_box, unbalanced) / (C or 1.0)
    D = _dual_value(train, svr, y, C, epsilon, feasibility)

    size = C * abs(y).sum()
    parts_of_the_gap = C * xi + epsilon * abs(delta) - (y - f - b) * delta
    return Certificate(
        targets=y,
        log_C=float(svr.log_scale + np.log(C)) if C else -np.inf,
        log_scale=float(svr.log_scale),
        primal_value=float(P),
        dual_value=float(D),
        relative_gap=float(relative_gap(P, D, size)) if np.isfinite(D) else np.inf,
        stationarity=float(abs(f - svr.expansion).max() / (abs(f).max() or 1.0)),
        feasibility=float(feasibility),
        complementarity=float(parts_of_the_gap.max() / (max(abs(P), 0.01 * size) or 1.0)),
        query=query,
        bias=b,
        _training_set=train,
    )


def _expand(train: TrainingSet, values: Float[Array, "N Dv"]) -> _Expansion:
    """delta, f, the expansion and |W|^2 = sum_ij v_i.v_j <Phi_i, Phi_j>, some rows of the kernel matrix at a time."""
    v = train.pool(values)
    f = train.attend(train.keys, v)
    starts = range(0, len(train.keys), ROWS_AT_A_TIME)
    blocks = (train.rows(train.keys[start : start + ROWS_AT_A_TIME]) for start in starts)
    each = [(w @ v, top, sign, log_h) for w, top, sign, log_h in blocks]
    sums, top, sign, log_h = (np.concatenate(columns) for columns in zip(*each, strict=True))
    log_scale = log_h.max()
    with np.errstate(over="ignore", invalid="ignore"):  # reported below
        square = (v * sums * np.exp(top - log_scale)).sum()
    if not np.isfinite(square):
        raise ValueError("values: expected numbers whose squares a float can hold; scale them down")
    delta = sign * np.exp(log_h - log_scale) * v
    return _Expansion(v, delta, f, sums * np.exp(top - log_h) * sign, square, log_h, log_scale)


def _dual_value(
    train: TrainingSet, svr: _Expansion, y: Float[Array, "n Dv"], C: float, epsilon: float, feasibility: float
) -> float:
    """The dual value at the nearest feasible delta + e; minus infinity where a constraint is violated.

    With Z = sum_j e_j z_j, |W + Z|^2 = |W|^2 + 2 sum_j e_j f_j + |Z|^2, and |Z| <= sum_j |e_j| |z_j|: the value is
    rounded down, so that it remains a bound.
    """
    if feasibility > ROUNDING:
        return -np.inf
    delta = svr.delta
    if feasibility == 0:
        return -svr.square / 2 - epsilon * abs(delta).sum() + (y * delta).sum()
    log_norm = train.log_lengths(train.keys)[:, None] - svr.log_h + svr.log_scale / 2  # of z_j
    preference = np.exp(2 * (log_norm - log_norm.max()))[:, 0]
    moved = C * feasible(delta / C, train.primal.bias, preference)
    e = moved - delta
    with np.errstate(over="ignore"):
        largest = (np.exp(np.log(abs(e), where=e != 0, out=np.full(e.shape, -np.inf)) + log_norm)).sum(axis=0)
        longer = 2 * (e * svr.f).sum() + (largest**2).sum()
    return -(svr.square + longer) / 2 - epsilon * abs(moved).sum() + (y * moved).sum()
