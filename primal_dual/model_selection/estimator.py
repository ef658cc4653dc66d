"""An attention as a scikit-learn regressor: trained by convex optimisation, its keys the training inputs."""

import warnings
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted, validate_data

from primal_dual import checks
from primal_dual.expansion import attention
from primal_dual.model_selection.leaving_out import expect_no_order
from primal_dual.model_selection.model_choice import Choice, choose
from primal_dual.primal import Heads, Primal, catalog
from primal_dual.svr.solve import solve_scaled_dual
from primal_dual.svr.training_sets import training_set
from primal_dual.types import Array, Float

LEAVE_ONE_OUT = "loo"


class SVRAttention(MultiOutputMixin, RegressorMixin, BaseEstimator):
    """A regressor f(x) = sum_j v_j <Phi(T x), Phi(T k_j)> / h(x) + b: attention from new samples to the training ones.

    The keys k_j are the training samples, and the values v_j come from the dual of the SVR. Source: arXiv 2406.13781.

    C, epsilon and metric may be "loo": then `fit` searches for those of the smallest mean squared leave-one-out error.
    See `model_choice.py`. An attention with a learned metric is the better regressor where some features do not matter;
    where all do, an SVR with a Gaussian kernel is as good and quicker. docs/how-to/your-arrays.md has a table.

    Parameters
    ----------
    primal : str or Primal
        A catalog name or a Primal, without Heads, a positional support or a Convolution, since samples have no order.
        With scale > 1 samples are averaged as they come.
    C : float or "loo"
        The penalty, in multiples of the median of |h(k_j)|: a bound on |v_j| where h(k_j) is that median, so its
        natural size is that of y. Kernels with nearly equal weights, as those of linear attention, need C = 100 or
        more for targets of size 1.
    epsilon : float or "loo"
        The half-width of the tube, in units of y.
    metric : float, array (D,) or "loo"
        What the features are multiplied by. It sets the scale of the kernel, for all features or for each. With "loo" a
        common factor or a learned metric, whichever has the smaller error. It has no effect under BatchNorm.
    solver : str
        "newton", or any cvxpy solver that is installed.

    Attributes
    ----------
    keys_, values_ : arrays, (N, D) and (N, Dv)
        Those of the attention: k_j = metric_ * x_j.
    bias_ : array, (Dv,)
        b, zero without a bias.
    relative_gap_ : float
        The duality gap.
    primal_ : Primal
        What was declared.
    C_, epsilon_, metric_ : float, float and array (D,)
        Those that were given or chosen.
    log_C_ : float
        The logarithm of the penalty as `solve_dual` takes it, C_ times the median of |h(k_j)|.
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
        self,
        primal: str | Primal = "softmax",
        C: float | str = 10.0,
        epsilon: float | str = 0.1,
        metric: Any = 1.0,
        solver: str = "newton",
    ) -> None:
        self.primal = primal
        self.C = C
        self.epsilon = epsilon
        self.metric = metric
        self.solver = solver

    def fit(self, X: Any, y: Any) -> "SVRAttention":
        """Solve the SVR of keys X (N, D) and targets y (N,) or (N, Dv).

        Without a bias f is an average of values of bounded size: centre y, or declare a Primal with bias=True.
        """
        X, y = _validated(self, X, y, multi_output=True, y_numeric=True)
        primal = self._declared(X.shape[1])
        targets = checks.matrix("y", np.reshape(y, (len(X), -1)), "N Dv")
        chosen = self._chosen(primal, X, targets)
        self.C_, self.epsilon_, self.metric_ = chosen.C, chosen.epsilon, chosen.metric
        keys = X * self.metric_
        train = training_set(primal, keys)
        self.log_C_ = train.log_penalty(self.C_)
        optimum = solve_scaled_dual(train, train.pool(targets), self.log_C_, self.epsilon_, self.solver)
        self.bias_, self.relative_gap_ = optimum.bias, optimum.relative_gap
        if self.relative_gap_ > 1e-6:
            message = (
                f"the relative duality gap is {self.relative_gap_:.2g}, and log h(k_j) spans {np.ptp(train.log_h):.3g}"
            )
            warnings.warn(f"{message}: standardise X or choose a smaller C", ConvergenceWarning, stacklevel=2)
        self.primal_, self.keys_, self.values_ = primal, keys, train.spread(optimum.values)
        self.vector_ = np.ndim(y) == 1
        return self

    def predict(self, X: Any) -> Float[Array, "..."]:
        """Attend from X (M, D) to the keys -> (M,) or (M, Dv), as y was."""
        check_is_fitted(self)
        X = _validated(self, X, reset=False)
        f = attention(self.primal_, X * self.metric_, self.keys_, self.values_) + self.bias_
        return f[:, 0] if self.vector_ else f

    def _declared(self, D: int) -> Primal:
        primal = catalog[self.primal] if isinstance(self.primal, str) else self.primal
        if isinstance(primal, Heads):
            raise ValueError(f"primal: expected one Primal; got Heads of {len(primal)}")
        if not isinstance(primal, Primal):
            raise ValueError(f"primal: expected a catalog name or a Primal; got {primal!r}")
        expect_no_order(primal, D)
        return primal

    def _chosen(self, primal: Primal, X: Float[Array, "N D"], Y: Float[Array, "N Dv"]) -> Choice:
        """C, epsilon and the metric, as given or by leave-one-out errors."""
        given = {name: getattr(self, name) for name in ("C", "epsilon", "metric")}
        given = {name: None if isinstance(x, str) and x == LEAVE_ONE_OUT else x for name, x in given.items()}
        if given["C"] is not None:
            checks.number("C", given["C"], above=0)
        if given["epsilon"] is not None:
            checks.number("epsilon", given["epsilon"], least=0)
        if given["metric"] is not None:
            metric, D = checks.array("metric", given["metric"], ""), X.shape[1]
            if metric.shape not in ((), (D,)):
                raise ValueError(f"metric: expected a number or {D}, one a feature; got shape {metric.shape}")
            given["metric"] = np.broadcast_to(metric, D)
        return choose(primal, X, Y, **given)


def _validated(estimator: BaseEstimator, *arrays: Any, **options: Any) -> Any:
    """X, or X and y, as scikit-learn checks them; it would read an array of dates, or one with a mask without it."""
    for name, x in zip("Xy", arrays, strict=False):
        checks.as_array(name, x, "an array of numbers")
    try:
        return validate_data(estimator, *arrays, dtype=float, **options)
    except OverflowError as error:
        raise ValueError(f"X, y: expected numbers that a float can hold; got larger ones ({error})") from error
