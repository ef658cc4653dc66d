"""Leave-one-out: what the SVR of all other training points says at each. It judges C, epsilon and the kernel.

The training set of a query is what its support shows it. So leaving out is a support, too: *query j sees all keys but
j*, or but those of pool j. Everything follows from that: h sums over the others, and BatchNorm has their statistics.
Since h changes, every z_i = Phi(T k_i) / h(k_i) does, and the solution without j is no rank-one change of that with j.
It is near it, though: Newton's method starts there.

One solution tells nearly the same at once, if the others stay where they are: inside the tube, u_i = 0; at a bound,
u_i = s_i; or on the edge E of the tube, where r_i = epsilon s_i. Let a_ij be the attention weights, so that
t_ij = 1 - a_ij is the share of h(k_i) that is left without key j; t_ij = 1 for the normaliser "one". In terms of
x_i = u_i / t_ij, the values v_i h(k_i) / C, with Q = C G for all keys and x_j = 0,

    sum_l Q_il x_l = t_ij (y_i - epsilon s_i - b) on the edge,   x_i = s_i / t_ij at a bound,   sum_i t_ij x_i = 0

with a bias, and f_j(k_j) = sum_l Q_jl x_l / t_jj + b. This is exact where T does not depend on the keys and no point
changes its state. Elsewhere it is near for most j, and much too large for a few: those far from all other keys.
"""

import math
from dataclasses import replace

import numpy as np

from primal_dual import checks
from primal_dual.primal import Primal
from primal_dual.supports import Everything, Mask
from primal_dual.svr.solve import NEWTON, solve_scaled_dual
from primal_dual.svr.training_sets import TrainingSet, pooled_rows, training_set
from primal_dual.transforms import depends_on_order, independent_of_keys, split_convolutions
from primal_dual.types import Array, Float, Int, Num

ROUNDING = 1e-12


def leave_one_out(
    primal: Primal,
    keys: Num[Array, "N D"],
    targets: Num[Array, "rows Dv"],
    *,
    C: float,
    epsilon: float,
    left_out: Int[Array, " some"] | None = None,
) -> Float[Array, "some Dv"]:
    """The predictions f_j(k_j), where f_j is the solution of the SVR of all training points but j.

    Parameters
    ----------
    primal : Primal
        One that does not depend on the order of keys: without a support of its own, or a Convolution.
    keys, targets : arrays
        Two training points at least. The targets have one row a key, or one a training point, which is a pool of keys
        if scale > 1.
    C : float
        The penalty, the same for all f_j.
    epsilon : float
        The half-width of the tube.
    left_out : whole numbers, optional
        Which training points; all unless given.

    Returns
    -------
    array
        The predictions, one row a point left out. Less the targets, they are the leave-one-out errors.

    Raises
    ------
    ValueError
        For bad input, and for a transform that depends on the order of the keys.

    Examples
    --------
    >>> x = np.linspace(-1, 1, 9)[:, None]
    >>> errors = x**2 - leave_one_out(Primal(bias=True), x, x**2, C=100, epsilon=0.01)
    >>> int(abs(errors).argmax()) in (0, 8)  # the ends have neighbours on one side only
    True
    """
    checks.number("C", C, above=0)
    checks.number("epsilon", epsilon, least=0)
    keys = checks.matrix("keys", keys, "N D")
    expect_no_order(primal, keys.shape[1])
    train = training_set(primal, keys)
    y, n = pooled_rows("targets", targets, train), len(train.keys)
    if n < 2:
        raise ValueError(f"keys: expected two training points at least; got {n}")
    points = np.arange(n) if left_out is None else np.asarray(left_out)
    if points.ndim != 1 or points.dtype.kind not in "iu" or not ((points >= 0) & (points < n)).all():
        raise ValueError(f"left_out: expected whole numbers from 0 to {n - 1}; got {left_out}")
    solution = solve_scaled_dual(train, y, math.log(C), epsilon, NEWTON)
    same_kernel = independent_of_keys(split_convolutions(primal.transform)[1])
    point_of_key = np.arange(len(train.members)) // primal.scale
    f = []
    for j in points:
        kept = np.delete(np.arange(n), j)
        others = training_set(replace(primal, support=Mask(point_of_key[None] != j)), keys, query=0)
        if same_kernel:
            vars(others)["cosines"] = train.cosines[np.ix_(kept, kept)]  # known already
        without = solve_scaled_dual(others, y[kept], math.log(C), epsilon, NEWTON, start=solution.u[kept])
        f.append(others.attend(train.keys[[j]], without.values)[0] + without.bias)
    return np.array(f).reshape(-1, y.shape[1])


def estimate_leave_one_out(
    train: TrainingSet, y: Float[Array, "n Dv"], log_C: float, epsilon: float
) -> Float[Array, "n Dv"]:
    """About what `leave_one_out` returns, for each training point, from the one solution of all of them.

    Examples
    --------
    >>> x = np.linspace(-1, 1, 9)[:, None]
    >>> f = estimate_leave_one_out(training_set(Primal(bias=True), x), x**2, np.log(100), epsilon=0.01)
    >>> bool(np.median(abs(f - leave_one_out(Primal(bias=True), x, x**2, C=100, epsilon=0.01))) < 0.02)
    True
    """
    solution = solve_scaled_dual(train, y, log_C, epsilon, NEWTON)
    Q, w = train.gram(train.keys, log_C), train.own_rows[0]
    left = np.ones(Q.shape) if train.primal.normalizer == "one" else 1 - w / w.sum(axis=1, keepdims=True)
    outputs = zip(y.T, solution.u.T, solution.bias, strict=True)
    return np.array([_states_kept(Q, left, *output, epsilon, train.primal.bias) for output in outputs]).T


def _states_kept(
    Q: Float[Array, "n n"],
    left: Float[Array, "n n"],
    y: Float[Array, " n"],
    u: Float[Array, " n"],
    b: float,
    epsilon: float,
    bias: bool,
) -> Float[Array, " n"]:
    """f_j(k_j) of one output; column j of each matrix is the problem without j, left_ij = t_ij."""
    s, at_bound = np.sign(u), abs(u) >= 1 - ROUNDING
    E, B = np.flatnonzero((u != 0) & ~at_bound), np.flatnonzero(at_bound)
    x_B = s[B, None] / left[B]
    x_B[np.arange(len(B)), B] = 0
    Q_EE = Q[np.ix_(E, E)]
    M = np.linalg.pinv(Q_EE + np.diag(ROUNDING * Q_EE.diagonal()), hermitian=True)  # points may be repeated
    right = np.stack([left[E] * (y - epsilon * s)[E, None] - Q[np.ix_(E, B)] @ x_B, left[E]])  # less b times the second
    x = M @ right
    x[:, :, E] -= x[:, np.arange(len(E)), E][:, None] / M.diagonal() * M  # now x_j = 0 for j in E
    moves_sum = (left[E] * x[1]).sum(axis=0)
    if bias and len(E) > 1:
        b = ((left[E] * x[0]).sum(axis=0) + (left[B] * x_B).sum(axis=0)) / moves_sum
    return ((Q[E] * (x[0] - b * x[1])).sum(axis=0) + (Q[B] * x_B).sum(axis=0)) / left.diagonal() + b


def expect_no_order(primal: Primal, D: int) -> None:
    """ValueError for a primal that depends on the order of its keys, of D features."""
    checks.expect_primal(primal)
    convolutions, transforms = split_convolutions(primal.transform)
    if convolutions or not isinstance(primal.support, Everything) or depends_on_order(transforms, D):
        raise ValueError(f"primal: expected none that depends on the order of keys; got {primal}")
