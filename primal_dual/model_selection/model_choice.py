"""The choice of C, epsilon and a metric by leave-one-out errors: by estimates from one solution, and, since a few of
these are much too large, by the exact errors of the points where they are largest.

A metric m multiplies the features: k_j = m * x_j. It sets the kernel's scale, for all features together or for each. It
is learned without solving anything: let the targets be the values of the attention, and hide from every query its own
key. Then f(k_j) is the Nadaraya-Watson estimate from all other targets, and its squared error has a gradient in m.
"""

from dataclasses import dataclass, replace
from functools import cache
from itertools import product

import autograd.numpy as np
from autograd import value_and_grad

from primal_dual.expansion import attention
from primal_dual.model_selection.leaving_out import estimate_leave_one_out, leave_one_out
from primal_dual.primal import Primal
from primal_dual.supports import Mask
from primal_dual.svr.training_sets import LARGEST_EXPONENT, training_set
from primal_dual.types import Array, Float

FACTORS = {"C": 10**0.5, "epsilon": 2.0, "metric": 2**-0.5}  # of one step of the search
MOVES = ({"C": 1}, {"metric": 1}, {"C": 1, "metric": 1}, {"epsilon": 1})  # a smoother kernel needs a larger C
WORTH_A_STEP = 1e-3  # relative fall of the error
SHARE_SOLVED = 20  # of so many points, the one with the largest estimate is left out exactly
SIGNIFICANT = 2.0  # standard errors
ITERATIONS = 50  # in which a metric is learned


@dataclass(frozen=True, eq=False)
class Choice:
    """C, in multiples of the median of |h|; epsilon; metric (D,); squared leave-one-out errors of training points."""

    C: float
    epsilon: float
    metric: Float[np.ndarray, " D"]
    errors: Float[np.ndarray, " n"]

    @property
    def error(self) -> float:
        """The mean."""
        return float(self.errors.mean())

    def judged(self, primal: Primal, X: Float[Array, "N D"], Y: Float[Array, "N Dv"]) -> "Choice":
        """The same with its errors: estimates, but for the largest."""
        keys = X * self.metric
        train = training_set(primal, keys)
        y, log_C = train.pool(Y), train.log_penalty(self.C)
        with np.errstate(all="ignore"):  # what is no number counts as infinite
            f = estimate_leave_one_out(train, y, log_C, self.epsilon)
            squares = np.nan_to_num((y - f) ** 2, nan=np.inf, posinf=np.inf).mean(axis=1)
        worst = np.argsort(-squares)[: -(-len(y) // SHARE_SOLVED)]
        if log_C < LARGEST_EXPONENT:
            f = leave_one_out(primal, keys, y, C=np.exp(log_C), epsilon=self.epsilon, left_out=worst)
            squares[worst] = ((y[worst] - f) ** 2).mean(axis=1)
        return replace(self, errors=squares)


def choose(
    primal: Primal,
    X: Float[Array, "N D"],
    Y: Float[Array, "N Dv"],
    C: float | None,
    epsilon: float | None,
    metric: Float[Array, " D"] | None,
) -> Choice:
    """The best choice of those that are None, found by moving from one to a better one; C and epsilon in units of Y.

    The search begins at C = 10 and epsilon = 0.1 standard deviations of Y and the metric of ones; then once more at the
    learned metric. Having D parameters from the same targets, that is taken only if it lowers the error significantly.
    """
    largest, D = abs(Y).max() or 1.0, X.shape[1]
    unit = largest * (Y / largest).std() or 1.0
    given = {"C": C, "epsilon": epsilon, "metric": metric}
    moves = [move for move in MOVES if all(given[name] is None for name in move)]
    start = Choice(
        C=10 * unit if C is None else C,
        epsilon=0.1 * unit if epsilon is None else epsilon,
        metric=np.ones(D) if metric is None else metric,
        errors=np.full(1, np.inf),
    )
    if not moves:
        return start
    if len(X) < 2:
        raise ValueError(f'X: expected two samples at least for "loo"; got {len(X)}')
    best = _descend(start, moves, primal, X, Y)
    if metric is None and D > 1:
        learned = _descend(replace(start, metric=learned_metric(primal, X, Y)), moves, primal, X, Y)
        with np.errstate(invalid="ignore"):  # infinite errors are no gain
            gain = best.errors - learned.errors
            significant = gain.mean() > SIGNIFICANT * gain.std() / len(gain) ** 0.5
        best = learned if significant else best
    return best


def _descend(
    start: Choice, moves: list[dict[str, int]], primal: Primal, X: Float[Array, "N D"], Y: Float[Array, "N Dv"]
) -> Choice:
    """Each move is tried, forwards and backwards, and repeated while the error falls; until none lets it fall."""

    @cache
    def judged(*steps: int) -> Choice:
        parts = zip(FACTORS.items(), steps, strict=True)
        moved = {name: getattr(start, name) * factor**n for (name, factor), n in parts}
        return replace(start, **moved).judged(primal, X, Y)

    steps, before = (0,) * len(FACTORS), np.inf
    while judged(*steps).error < before:
        before = judged(*steps).error
        for move, sign in product(moves, (1, -1)):
            while True:
                new = tuple(n + sign * move.get(name, 0) for name, n in zip(FACTORS, steps, strict=True))
                if not judged(*new).error < (1 - WORTH_A_STEP) * judged(*steps).error:
                    break
                steps = new
    return judged(*steps)


def learned_metric(primal: Primal, X: Float[Array, "N D"], Y: Float[Array, "N Dv"]) -> Float[Array, " D"]:
    """The m of the smallest sum_j |y_j - f(k_j)|^2, where f is the attention of all other keys, with the values y.

    Examples
    --------
    >>> X = np.random.default_rng(0).standard_normal((50, 2))
    >>> relevant, irrelevant = learned_metric(Primal(), X, X[:, :1] ** 2)
    >>> bool(relevant > 10 * irrelevant)
    True
    """
    from scipy.optimize import minimize

    others = replace(primal, support=Mask(~np.eye(len(X), dtype=bool)))

    def error(log_metric: Float[Array, " D"]) -> Float[Array, ""]:
        keys = X * np.exp(log_metric)
        return ((Y - attention(others, keys, keys, Y)) ** 2).mean() / (Y.var() or 1.0)

    start = np.zeros(X.shape[1])
    found = minimize(value_and_grad(error), start, jac=True, method="L-BFGS-B", options={"maxiter": ITERATIONS})
    return np.exp(found.x)
