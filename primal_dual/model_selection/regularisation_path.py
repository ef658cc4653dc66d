"""The regularisation path: the solution of an SVR for every penalty C, exactly.

As C grows, each delta_j is a piecewise linear function of C, since the optimality conditions are linear equations while
no point enters or leaves the edge of the tube. `breakpoints.py` follows them from one such event to the next. Source:
Gunter and Zhu, Efficient computation and model selection for the support vector regression, Neural Computation 2007.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from primal_dual import checks
from primal_dual.primal import Primal
from primal_dual.svr.optimality import feasible, objective_values, relative_gap
from primal_dual.svr.solutions import DualSolution
from primal_dual.svr.solve import total_value, warn_of_gap
from primal_dual.svr.training_sets import LARGEST_EXPONENT, TrainingSet, pooled_rows, training_set
from primal_dual.types import Array, Float, Num

if TYPE_CHECKING:
    from primal_dual.model_selection.breakpoints import Breakpoints


@dataclass(frozen=True, eq=False)
class RegularisationPath:
    """The solution for every C.

    Attributes
    ----------
    outputs : tuple of Breakpoints
        One an output: its C (K,), and delta (K, n), bias (K,) and relative_gap (K,) there.
    """

    outputs: "tuple[Breakpoints, ...]"
    _training_set: TrainingSet
    _G: Float[np.ndarray, "n n"]
    _targets: Float[np.ndarray, "n Dv"]
    _epsilon: float

    def __repr__(self) -> str:
        count = sum(len(output.C) for output in self.outputs)
        return f"RegularisationPath on {len(self._G)} points with {len(self.outputs)} outputs: {count} breakpoints"

    def at(self, C: float) -> DualSolution:
        """The optimum of the dual at a penalty C > 0, as `solve_dual` returns it, and with its warning."""
        checks.number("C", C, above=0)
        train, y, bias = self._training_set, self._targets, self._training_set.primal.bias
        u = np.array([output.at(C)[0] for output in self.outputs]).T / C
        u = feasible(u, bias, self._G.diagonal())
        unit = abs(y).max() or 1.0
        f = C / unit * (self._G @ u)
        P, D, b = objective_values(f, (u * f).sum(axis=0), u, y / unit, self._epsilon / unit, bias)
        values_and_size = P.sum(), D.sum(), abs(y / unit).sum()
        warn_of_gap(*values_and_size, math.log(C) - math.log(unit), train)
        gap = float(relative_gap(*values_and_size))
        values = train.spread(C * u * (train.sign_h * np.exp(-train.log_h))[:, None])
        alpha, alpha_tilde = C * np.maximum(u, 0), C * np.maximum(-u, 0)
        return DualSolution(alpha, alpha_tilde, values, unit * b, total_value(C, unit, D, y), gap, train)


def svr_path(
    primal: Primal,
    keys: Num[Array, "N D"],
    targets: Num[Array, "rows Dv"],
    epsilon: float,
    *,
    largest: float = np.inf,
    query: int | None = None,
) -> RegularisationPath:
    """The solutions of the dual SVR for all C, in about the time of thirty solves by Newton's method or a few by cvxpy.

    Parameters
    ----------
    primal : Primal
        What is declared.
    keys, targets : arrays
        As for `solve_dual`.
    epsilon : float
        The half-width of the tube.
    largest : float
        Where the path may end; beyond it, `at` solves.
    query : int, optional
        Whose SVR, under a support other than Everything.

    Returns
    -------
    RegularisationPath
        With `at(C)` and the breakpoints of each output.

    Raises
    ------
    ValueError
        For bad input, and where the Gram matrix is too large for a float.

    Examples
    --------
    >>> x = np.linspace(-1, 1, 9)[:, None]
    >>> path = svr_path(Primal(bias=True), x, x**2, epsilon=0.05)
    >>> path.at(100.0).relative_gap < 1e-12
    True
    """
    from primal_dual.model_selection.breakpoints import follow  # which loads SciPy

    checks.expect_primal(primal)
    checks.number("epsilon", epsilon, least=0)
    if largest != np.inf:
        checks.number("largest", largest, above=0)
    train = training_set(primal, keys, query)
    y = pooled_rows("targets", targets, train)
    longest = train.log_norms(train.keys).max()
    if not 2 * longest <= LARGEST_EXPONENT:
        expected = f"expected log |Phi(T k_j) / h(k_j)| of at most {LARGEST_EXPONENT / 2:g}"
        raise ValueError(f"keys: {expected}; got up to {longest:.4g}: scale them down")
    G = train.gram(train.keys)
    G = (G + G.T) / 2
    outputs = tuple(follow(G, target, epsilon, primal.bias, largest) for target in y.T)
    return RegularisationPath(outputs, train, G, y, epsilon)
