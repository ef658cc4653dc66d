"""An attention as a scikit-learn regressor: trained by convex optimisation, its keys the training inputs."""

import warnings
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted, validate_data

from primal_dual import checks
from primal_dual.expansion import attention
from primal_dual.primal import Heads, Primal, catalog
from primal_dual.supports import Everything
from primal_dual.svr.solve import solve_scaled_dual
from primal_dual.svr.training_sets import training_set
from primal_dual.transforms import split_convolutions
from primal_dual.types import Array, Float


class SVRAttention(MultiOutputMixin, RegressorMixin, BaseEstimator):
    """A regressor f(x) = sum_j v_j <Phi(T x), Phi(T k_j)> / h(x) + b: attention from new samples to the training ones.

    The keys k_j are the training samples, and the values v_j come from the dual of the SVR. Source: arXiv 2406.13781.

    Parameters
    ----------
    primal : str or Primal
        A catalog name or a Primal, without Heads, a positional support or a Convolution, since samples have no order.
        With scale > 1 samples are averaged as they come.
    C : float
        The penalty, in multiples of the median of |h(k_j)|.
    epsilon : float
        Half the width of the tube, in units of Y.
    solver : str
        "newton", or any cvxpy solver that is installed.

    Attributes
    ----------
    keys_, values_ : arrays, (N, D) and (N, Dv)
        Those of the attention.
    bias_ : array, (Dv,)
        b, zero without a bias.
    relative_gap_ : float
        The duality gap.
    primal_ : Primal
        What was declared.
    n_features_in_ : int
        D.

    Examples
    --------
    >>> X = np.linspace(-1, 1, 20)[:, None]
    >>> model = SVRAttention(Primal(bias=True), C=1000.0, epsilon=0.01).fit(X, X[:, 0] ** 2)
    >>> bool(abs(model.predict(X) - X[:, 0] ** 2).max() < 0.02)
    True
    """

    def __init__(
        self, primal: str | Primal = "softmax", C: float = 10.0, epsilon: float = 0.1, solver: str = "newton"
    ) -> None:
        self.primal = primal
        self.C = C
        self.epsilon = epsilon
        self.solver = solver

    def fit(self, X: Any, Y: Any) -> "SVRAttention":
        """Solve the SVR of keys X (N, D) and targets Y (N,) or (N, Dv).

        Without a bias f is an average of values of bounded size: centre Y, or declare a Primal with bias=True.
        """
        X, Y = validate_data(self, X, Y, dtype=float, multi_output=True, y_numeric=True)
        primal = self._declared()
        checks.number("C", self.C, above=0)
        checks.number("epsilon", self.epsilon, least=0)
        train = training_set(primal, X)
        log_C = np.log(self.C) + np.median(train.log_h)
        targets = train.pool(checks.matrix("Y", np.reshape(Y, (len(X), -1)), "N Dv"))
        optimum = solve_scaled_dual(train, targets, log_C, self.epsilon, self.solver)
        self.bias_, self.relative_gap_ = optimum.bias, optimum.relative_gap
        if self.relative_gap_ > 1e-6:
            message = (
                f"the relative duality gap is {self.relative_gap_:.2g}, and log h(k_j) spans {np.ptp(train.log_h):.3g}"
            )
            warnings.warn(f"{message}: standardise X or choose a smaller C", ConvergenceWarning, stacklevel=2)
        self.primal_, self.keys_, self.values_ = primal, X, train.spread(optimum.values)
        self.vector_ = np.ndim(Y) == 1
        return self

    def predict(self, X: Any) -> Float[Array, "..."]:
        """Attend from X (M, D) to the keys -> (M,) or (M, Dv), as Y was."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=float, reset=False)
        f = attention(self.primal_, X, self.keys_, self.values_) + self.bias_
        return f[:, 0] if self.vector_ else f

    def _declared(self) -> Primal:
        primal = catalog[self.primal] if isinstance(self.primal, str) else self.primal
        if isinstance(primal, Heads):
            raise ValueError(f"primal: expected one Primal; got Heads of {len(primal)}")
        if not isinstance(primal, Primal):
            raise ValueError(f"primal: expected a catalog name or a Primal; got {primal!r}")
        if not isinstance(primal.support, Everything) or split_convolutions(primal.transform)[0]:
            raise ValueError(f"primal: expected none that depends on the order of samples; got {primal}")
        return primal
