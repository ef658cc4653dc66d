"""How far a candidate is from the optimum: feasible dual points, objective values, and their relative gap.

Everything is in units of the penalty C: u = delta / C lies in the box [-1, 1], and Q = C G is the Gram matrix. With a
bias b the dual also demands sum_j u_j = 0. A row is a training point, and a column one of Dv outputs.
"""

import numpy as np

from primal_dual.types import Array, Float

ROUNDING = 1e-15  # of a sum beside its absolute terms
SUPPORT_VECTOR = 1e-6  # of C: a smaller |delta| is zero, and one so near to C is at the bound
SMALLEST_Q = 1e-300  # so that a training point of weight zero is not divided by


def feasible(u: Float[Array, "n Dv"], bias: bool, q: Float[Array, " n"]) -> Float[Array, "n Dv"]:
    """A dual point that satisfies the constraints, as near to u as u is to satisfying them.

    Clipping satisfies the box. With a bias, the excess e = sum_j u_j is then taken away: every u_j can move against the
    sign of e by its room, 1 + sign(e) u_j >= 0, and the excess is shared out in proportion to it. Points of small
    q_j = Q_jj go first, since f changes least where they move; a second round, in which all count alike, takes what
    clipping left over. An excess of 1e-15 of sum_j |u_j| is rounding, and stays.

    Parameters
    ----------
    u : array
        The dual point, in units of C.
    bias : bool
        Whether the columns must sum to zero.
    q : array
        The diagonal of Q.
    """
    u = np.clip(u, -1, 1)
    if bias:
        u = _balance(u, 1 / np.maximum(q, SMALLEST_Q)[:, None])
        u = _balance(u, np.ones((len(u), 1)))
    return u


def _balance(u: Float[Array, "n Dv"], preference: Float[Array, "n 1"]) -> Float[Array, "n Dv"]:
    """Take the excess sum_j u_j from the points, in proportion to their room times a preference."""
    excess = u.sum(axis=0)
    excess[abs(excess) <= ROUNDING * abs(u).sum(axis=0)] = 0
    room = preference * (1 + np.sign(excess) * u)
    return np.clip(u - excess * room / room.sum(axis=0), -1, 1)


def best_bias(residual: Float[Array, "n Dv"], epsilon: float) -> Float[Array, " Dv"]:
    """The b that minimises sum_j max(|residual_j - b| - epsilon, 0).

    The sum is piecewise linear in b. Its slope rises from -n to n by one at each of the 2n numbers
    residual_j +- epsilon, so it is least between the n-th and the (n+1)-th of them: b is the midpoint.
    """
    n = len(residual)
    ends = np.sort(np.concatenate([residual - epsilon, residual + epsilon]), axis=0)
    return (ends[n - 1] + ends[n]) / 2


def objective_values(
    f: Float[Array, "n Dv"],
    square: Float[Array, " Dv"],
    u: Float[Array, "n Dv"],
    y: Float[Array, "n Dv"],
    epsilon: float,
    bias: bool,
) -> tuple[Float[Array, " Dv"], Float[Array, " Dv"], Float[Array, " Dv"]]:
    """The primal and the dual value of each output, over C.

        P = |w|^2 / 2 + sum_j max(|y_j - f_j - b| - epsilon, 0),    D = y'u - |w|^2 / 2 - epsilon sum_j |u_j|

    Parameters
    ----------
    f, square : arrays
        The outputs w.z_j sqrt(C) at the training points, without b, and |w|^2.
    u, y : arrays
        A feasible dual point, and the targets.
    epsilon : float
        The half-width of the tube.
    bias : bool
        Whether b is free; else it is zero.

    Returns
    -------
    tuple
        P, D, and the best b.
    """
    b = best_bias(y - f, epsilon) if bias else np.zeros(y.shape[1])
    P = square / 2 + np.maximum(abs(y - f - b) - epsilon, 0).sum(axis=0)
    D = (y * u).sum(axis=0) - square / 2 - epsilon * abs(u).sum(axis=0)
    return P, D, b


def relative_gap(P: float, D: float, size: float) -> float:
    """(P - D) / max(|P|, |D|, 0.01 size), with size = C sum |y| and 0 / 0 = 0.

    Examples
    --------
    >>> relative_gap(2.0, 1.0, 0.0), relative_gap(0.0, 0.0, 0.0)
    (0.5, 0.0)
    """
    scale = gap_scale(P, D, size)
    return (P - D) / scale if scale else 0.0


def gap_scale(P: float, D: float, size: float) -> float:
    """max(|P|, |D|, 0.01 size): what a gap is measured by."""
    return max(abs(P), abs(D), 0.01 * size)
