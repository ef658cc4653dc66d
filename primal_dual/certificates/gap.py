"""The duality gap of values that are given: what they are as an SVR, and their primal and dual value.

All numbers are in units of exp(log_scale), log_scale = max_j log |h(k_j)|, so that logits of any size can be certified.
"""

import math
from typing import NamedTuple

import numpy as np

from primal_dual.svr.optimality import best_bias, feasible, relative_gap
from primal_dual.types import Array, Float

ROUNDING = 1e-10  # a dual constraint that is missed by more than this fraction of C is violated


class Expansion(NamedTuple):
    """What the values are as an SVR; n training points, Dv outputs.

    Attributes
    ----------
    delta : array, (n, Dv)
        h(k_j) v_j.
    f : array, (n, Dv)
        The outputs at the keys, by attention.
    square : float
        |W|^2 = sum_ij v_i.v_j <Phi_i, Phi_j>, by the kernel.
    log_h : array, (n, 1)
        log |h(k_j)|.
    log_scale : float
        Its largest.
    log_lengths : array, (n,)
        log |Phi(T k_j)|.
    """

    delta: Float[np.ndarray, "n Dv"]
    f: Float[np.ndarray, "n Dv"]
    square: float
    log_h: Float[np.ndarray, "n 1"]
    log_scale: float
    log_lengths: Float[np.ndarray, " n"]


class Judged(NamedTuple):
    """An expansion beside the targets y.

    Attributes
    ----------
    y : array, (n, Dv)
        The targets.
    xi : array, (n, Dv), or (1, 1) where all are zero
        The slack beyond the tube.
    b : array, (Dv,)
        The bias.
    C : float
        The penalty.
    primal_value, dual_value : float
        P of W, and Q of the nearest feasible delta; minus infinity where a dual constraint is violated.
    relative_gap : float
        (P - Q) / max(|P|, |Q|, 0.01 C sum |y|).
    feasibility : float
        By what fraction of C the dual constraints are violated.
    size : float
        C sum |y|.
    """

    y: Float[np.ndarray, "n Dv"]
    xi: Float[np.ndarray, "_ _"]
    b: Float[np.ndarray, " Dv"]
    C: float
    primal_value: float
    dual_value: float
    relative_gap: float
    feasibility: float
    size: float


def judge(svr: Expansion, targets: Float[Array, "n Dv"] | None, C: float | None, epsilon: float, bias: bool) -> Judged:
    """The primal and the dual value of an expansion.

        P = |W|^2 / 2 + C sum xi,    Q = -|W|^2 / 2 - epsilon sum |delta| + sum y delta

    Parameters
    ----------
    svr : Expansion
        The values as an SVR.
    targets : array, (n, Dv), or None
        y; None for those that the values fit, f + epsilon sign(delta).
    C : float or None
        The penalty, not yet in units of exp(log_scale); None for the smallest that the values need.
    epsilon : float
        The half-width of the tube.
    bias : bool
        Whether b is free; it is then the best one.

    Raises
    ------
    ValueError
        For targets of another shape than f.
    """
    delta, f = svr.delta, svr.f
    if targets is not None and targets.shape != f.shape:
        raise ValueError(f"targets: expected as many outputs as the values, {f.shape[1]}; got {targets.shape}")
    largest = max(delta.max(), -delta.min())
    C = largest if C is None else np.exp(math.log(C) - svr.log_scale)
    on_edge = f + epsilon * np.sign(delta) if epsilon and targets is None else f  # what the values fit without slack
    y = on_edge if targets is None else targets
    b = best_bias(y - f, epsilon) if bias else np.zeros(f.shape[1])
    xi = np.zeros((1, 1)) if targets is None and not bias else np.maximum(abs(y - f - b) - epsilon, 0)
    P = svr.square / 2 + C * xi.sum()

    beyond_the_box = largest - C
    unbalanced = abs(delta.sum(axis=0)).max() if bias else 0.0
    feasibility = max(0.0, beyond_the_box, unbalanced) / (C or 1.0)
    Q = _dual_value(svr, y, C, epsilon, feasibility, bias)
    size = C * abs(y).sum()
    gap = relative_gap(P, Q, size) if -np.inf < Q else np.inf
    return Judged(y, xi, b, C, P, Q, gap, feasibility, size)


def _dual_value(
    svr: Expansion, y: Float[Array, "n Dv"], C: float, epsilon: float, feasibility: float, bias: bool
) -> float:
    """The dual value at the nearest feasible delta + e; minus infinity where a constraint is violated.

    With Z = sum_j e_j z_j, |W + Z|^2 = |W|^2 + 2 sum_j e_j f_j + |Z|^2, and |Z| <= sum_j |e_j| |z_j|: the value is
    rounded down, so that it remains a bound.
    """
    if feasibility > ROUNDING:
        return -np.inf
    delta = svr.delta
    if feasibility == 0:
        return -svr.square / 2 - (epsilon and epsilon * abs(delta).sum()) + (y * delta).sum()
    log_norm = svr.log_lengths[:, None] - svr.log_h + svr.log_scale / 2  # of z_j
    preference = np.exp(2 * (log_norm - log_norm.max()))[:, 0]
    moved = C * feasible(delta / C, bias, preference)
    e = moved - delta
    with np.errstate(over="ignore"):
        largest = (np.exp(np.log(abs(e), where=e != 0, out=np.full(e.shape, -np.inf)) + log_norm)).sum(axis=0)
        longer = 2 * (e * svr.f).sum() + (largest**2).sum()
    return -(svr.square + longer) / 2 - epsilon * abs(moved).sum() + (y * moved).sum()
