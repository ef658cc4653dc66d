"""Leave-one-out: what the SVR of all other keys says at each key. It judges C, epsilon and the kernel by training data.

The training set of a query is what its support shows it. So leaving out is a support, too: *query j sees all keys but
j*. Everything follows from that: without key j, h sums over the others, BatchNorm has their statistics, and the pool of
j averages what is left of it. Since h changes, every z_i = Phi(T k_i) / h(k_i) does, and the solution without j is no
rank-one change of that with j. It is near it, though: Newton's method starts there.
"""

from dataclasses import replace

import numpy as np

from primal_dual import checks
from primal_dual.primal import Primal
from primal_dual.supports import Everything, Mask
from primal_dual.svr.solve import NEWTON, solve_scaled_dual
from primal_dual.svr.training_sets import training_set
from primal_dual.transforms import split_convolutions
from primal_dual.types import Array, Float, Num


def leave_one_out(
    primal: Primal, keys: Num[Array, "N D"], targets: Num[Array, "N Dv"], *, C: float, epsilon: float
) -> Float[Array, "N Dv"]:
    """The predictions f_j(k_j), where f_j is the solution of the SVR of all keys but j.

    Parameters
    ----------
    primal : Primal
        One that does not depend on the order of keys: without a support of its own, or a Convolution.
    keys, targets : arrays
        The training set, of two keys at least.
    C : float
        The penalty, the same for all f_j.
    epsilon : float
        Half the width of the tube.

    Returns
    -------
    array
        The predictions. Those of `targets - predictions` are the leave-one-out errors.

    Raises
    ------
    ValueError
        For bad input.

    Examples
    --------
    >>> x = np.linspace(-1, 1, 9)[:, None]
    >>> errors = x**2 - leave_one_out(Primal(bias=True), x, x**2, C=100, epsilon=0.01)
    >>> int(abs(errors).argmax()) in (0, 8)  # the ends have neighbours on one side only
    True
    """
    checks.number("C", C, above=0)
    checks.number("epsilon", epsilon, least=0)
    expect_no_order(primal)
    train, y = training_set(primal, keys), checks.matrix("targets", targets, "N Dv")
    if not len(y) == len(train.members) > 1:
        raise ValueError(f"targets: expected one row a key, and two keys at least; got {y.shape}, {np.shape(keys)}")
    keys = checks.matrix("keys", keys, "N D")
    all_keys = solve_scaled_dual(train, train.pool(y), np.log(C), epsilon, NEWTON)
    f = np.empty(y.shape)
    for j, visible in enumerate(~np.eye(len(y), dtype=bool)):
        others = training_set(replace(primal, support=Mask(visible[None])), keys, query=0)
        emptied = len(others.keys) < len(train.keys)  # the pool of j
        start = np.delete(all_keys.u, j // primal.scale, axis=0) if emptied else all_keys.u
        without = solve_scaled_dual(others, others.pool(y), np.log(C), epsilon, NEWTON, start=start)
        f[j] = (others.attend(keys[[j]], without.values) + without.bias)[0]
    return f


def expect_no_order(primal: Primal) -> None:
    """ValueError for a primal that depends on the order of the keys."""
    checks.expect_primal(primal)
    if not isinstance(primal.support, Everything) or split_convolutions(primal.transform)[0]:
        raise ValueError(f"primal: expected none that depends on the order of keys; got {primal}")
