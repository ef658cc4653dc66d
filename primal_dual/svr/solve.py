"""The SVR of a primal, solved explicitly: the primal for W and b, the dual for alpha and alpha~.

    primal   minimise  1/2 |W|^2 + C sum_jd (xi_jd + xi~_jd)    subject to  y_jd - w_d.z_j - b_d <= epsilon + xi_jd,
             w_d.z_j + b_d - y_jd <= epsilon + xi~_jd,  xi, xi~ >= 0
    dual     maximise  -1/2 delta_d' G delta_d - epsilon sum_j (alpha_jd + alpha~_jd) + sum_j y_jd delta_jd
             subject to  0 <= alpha, alpha~ <= C,  delta = alpha - alpha~,  and sum_j delta_jd = 0 if there is a bias

with z_j = Phi(T k_j) / h(k_j) and G_ij = z_i.z_j. Tutorial 1 derives the dual. The solvers work in units of C and of
the largest target: with y = unit y', epsilon = unit epsilon' and C = unit C', a solution for y', epsilon', C' is one
for y, epsilon, C with the same u = delta / C, and W, b, f grow by the unit.
"""

import math
import warnings
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from primal_dual import checks
from primal_dual.primal import Heads, Primal
from primal_dual.svr.features import MOST_EXPLICIT, Features
from primal_dual.svr.gram_rows import GramRows
from primal_dual.svr.optimality import feasible, objective_values, relative_gap
from primal_dual.svr.quadratic_programs import Options, dual_program, primal_program
from primal_dual.svr.solutions import (
    ConvergenceWarning,
    DualHeadSolutions,
    DualSolution,
    PrimalHeadSolutions,
    PrimalSolution,
    check_head_axis,
)
from primal_dual.svr.training_sets import LARGEST_EXPONENT, MOST_HELD, TrainingSet, pooled_rows, training_set
from primal_dual.types import Array, Float, Num

LARGEST_NORM = 1e14  # C |z_j|^2 up to which cvxpy solves the dual as it is
NEWTON = "newton"
LARGEST_GAP = 1e-8  # of a solution, without a warning
LARGEST_SHARE = 1e-3  # of the values, likewise: W is then within 5%
LARGE = 1e10  # a C |z_j|^2 that takes digits of the values


def solve_primal(
    primal: Primal | Heads,
    keys: Num[Array, "*heads N D"],
    targets: Num[Array, "*heads rows Dv"],
    *,
    C: float,
    epsilon: float,
    query: int | None = None,
    solver: str = "CLARABEL",
    solver_options: Options = None,
) -> PrimalSolution | PrimalHeadSolutions:
    """Solve the primal SVR for the weight W of the layer.

    Source: arXiv 2406.13781; see tutorials 1 and 2.

    Parameters
    ----------
    primal : Primal or Heads
        What is declared. For Heads, a head axis comes first in keys and targets.
    keys : array, (N, D)
        The training inputs.
    targets : array, (N, Dv) or (n, Dv)
        One row a key, pooled with the keys; or one a training point.
    C : float
        The penalty, positive. It has no natural absolute size; multiples of the median of |h(k_j)| are a good unit.
    epsilon : float
        The half-width of the tube, 0 or more, in units of the targets.
    query : int, optional
        Whose SVR, under a support other than Everything.
    solver : str
        "newton", much faster (see `projected_newton.py`); or a cvxpy solver of quadratic programs that
        is installed.
    solver_options : dict, optional
        For the solver; they are added to tight tolerances, or replace them. Without any, Newton's method brings the
        last digits.

    Returns
    -------
    PrimalSolution
        With weight, bias, value, relative_gap and predict(x).

    Raises
    ------
    ValueError
        For bad input, a solver that is not installed, and a solve that ends without a solution.

    Warns
    -----
    ConvergenceWarning
        For a relative gap above 1e-8, or a penalty so large that the primal and the dual value, tiny beside C sum |y|,
        differ by more than 0.1 % of themselves; unless the solver has options of yours.

    Examples
    --------
    >>> solution = solve_primal(Primal(), np.eye(3), np.eye(3), C=10, epsilon=0.1)
    >>> solution.predict(np.eye(3)).shape, solution.relative_gap < 1e-10
    ((3, 3), True)
    """
    if isinstance(primal, Heads):
        check_head_axis(primal, keys=keys, targets=targets)
        common: dict[str, Any] = dict(C=C, epsilon=epsilon, query=query, solver=solver, solver_options=solver_options)
        each = zip(primal, keys, targets, strict=True)
        return PrimalHeadSolutions(tuple(solve_primal(p, k, y, **common) for p, k, y in each))
    train, y = _prepare(primal, keys, targets, C, epsilon, query)
    scaled, unit = _scale(y, epsilon, math.log(C), primal.bias)
    features = Features.from_training_set(train)
    R = features.at_keys(scaled.log_C)
    if not np.isfinite(R).all():
        raise ValueError(f"keys: expected less spread than that of log h, {np.ptp(train.log_h):.3g}: scale them down")
    if solver == NEWTON:
        u = _newton(R @ R.T, scaled, solver_options)
        optimum = _evaluate(R, R.T @ u, u, scaled)
    else:
        minimise = primal_program(R, scaled.epsilon, primal.bias, solver, solver_options)
        each_output = [minimise(target) for target in scaled.y.T]
        w = np.array([w for w, _ in each_output]).T
        u = np.array([u for _, u in each_output]).T
        optimum = _evaluate(R, w, u, scaled)
        if solver_options is None:
            u = _newton(R @ R.T, scaled, None, u)
            optimum = _better(optimum, _evaluate(R, R.T @ u, u, scaled))
    P, D, size = optimum.P.sum(), optimum.D.sum(), abs(scaled.y).sum()
    weight, value = math.sqrt(C) * math.sqrt(unit) * optimum.w.T, total_value(C, unit, optimum.P, y)
    if solver_options is None:
        warn_of_gap(P, D, size, scaled.log_C, train)
    return PrimalSolution(weight, optimum.b * unit, value, float(relative_gap(P, D, size)), features)


def solve_dual(
    primal: Primal | Heads,
    keys: Num[Array, "*heads N D"],
    targets: Num[Array, "*heads rows Dv"],
    *,
    C: float,
    epsilon: float,
    query: int | None = None,
    solver: str = "CLARABEL",
    solver_options: Options = None,
) -> DualSolution | DualHeadSolutions:
    """Solve the dual SVR for the values of the attention, v_j = (alpha_j - alpha~_j) / h(k_j).

    Parameters, errors and source are those of `solve_primal`.

    Returns
    -------
    DualSolution
        With alpha, alpha_tilde, values, bias, value, relative_gap and predict(x).

    Examples
    --------
    >>> solution = solve_dual(Primal(), np.eye(3), np.eye(3), C=10, epsilon=0.1)
    >>> solution.values.shape, solution.relative_gap < 1e-10
    ((3, 3), True)
    """
    if isinstance(primal, Heads):
        check_head_axis(primal, keys=keys, targets=targets)
        common: dict[str, Any] = dict(C=C, epsilon=epsilon, query=query, solver=solver, solver_options=solver_options)
        each = zip(primal, keys, targets, strict=True)
        return DualHeadSolutions(tuple(solve_dual(p, k, y, **common) for p, k, y in each))
    train, y = _prepare(primal, keys, targets, C, epsilon, query)
    optimum = solve_scaled_dual(train, y, math.log(C), epsilon, solver, solver_options)
    alpha, alpha_tilde = C * np.maximum(optimum.u, 0), C * np.maximum(-optimum.u, 0)
    values, value = train.spread(optimum.values), total_value(C, 1.0, optimum.value, y)
    if solver_options is None:
        log_C = math.log(C) - math.log(abs(y).max() or 1.0)
        warn_of_gap(optimum.primal_value, optimum.value, optimum.size, log_C, train)
    return DualSolution(alpha, alpha_tilde, values, optimum.bias, value, optimum.relative_gap, train)


class ScaledDual(NamedTuple):
    """The optimum of a dual in units of C, which may be larger than a float: only its logarithm is known.

    u = delta / C and values = delta / h, both (n, Dv); bias (Dv,); value and primal_value: those of the dual and of
    the primal over C; size: sum |y|.
    """

    u: np.ndarray
    values: np.ndarray
    bias: np.ndarray
    value: float
    primal_value: float
    size: float

    @property
    def relative_gap(self) -> float:
        """That between the two values."""
        return relative_gap(self.primal_value, self.value, self.size)


def solve_scaled_dual(
    train: TrainingSet,
    y: Float[Array, "n Dv"],
    log_C: float,
    epsilon: float,
    solver: str = "CLARABEL",
    solver_options: Options = None,
    start: Float[Array, "n Dv"] | None = None,
) -> ScaledDual:
    """Solve the dual of a training set for a penalty of any size, given by its logarithm.

    Newton's method may start at the u of a similar problem.

    Where C |z_j|^2 exceeds LARGEST_NORM, the solvers of cvxpy fail, and Newton's method does where Q overflows. There
    u_j, which is then tiny, is searched for in the smaller box |u_j| <= exp(-excess_j), in which Q_jj is LARGEST_NORM.
    """
    scaled, unit = _scale(y, epsilon, log_C, train.primal.bias)
    if solver == NEWTON and len(train.keys) > MOST_HELD:
        train.check_kernel()
        Q = GramRows(train, scaled.log_C)
        u = feasible(_newton(Q, scaled, solver_options, start), scaled.bias, Q.diagonal())
        f = Q @ u
    else:
        u = _solve_held(train, scaled, solver, solver_options, start)
        w, top, sign, log_h = train.own_rows
        f = w @ (u * sign * np.exp(np.minimum(scaled.log_C - log_h, LARGEST_EXPONENT))) * sign * np.exp(top - log_h)
    values = u * (train.sign_h * np.exp(np.minimum(scaled.log_C - train.log_h, LARGEST_EXPONENT)))[:, None]
    P, D, b = objective_values(f, (u * f).sum(axis=0), u, scaled.y, scaled.epsilon, scaled.bias)
    dual, primal = total_value(1.0, unit, D, y), total_value(1.0, unit, P, y)
    return ScaledDual(u, values * unit, b * unit, dual, primal, float(abs(y).sum()))


def _solve_held(
    train: TrainingSet,
    scaled: "_Scaled",
    solver: str,
    solver_options: Options,
    start: Float[Array, "n Dv"] | None,
) -> Float[Array, "n Dv"]:
    """u, with the Gram matrix in memory."""
    log_norm = train.log_norms(train.keys)[:, None] + scaled.log_C / 2
    fits = log_norm.max() < LARGEST_EXPONENT / 2
    excess = np.maximum(0, log_norm - np.log(LARGEST_NORM) / 2)
    norm = np.exp(log_norm - excess)
    Q_bounded = norm * train.cosines * norm.T
    Q = Q_bounded * np.exp(excess + excess.T) if fits and excess.any() else Q_bounded
    if solver == NEWTON and fits:
        u = _newton(Q, scaled, solver_options, start)
    else:
        solver = "CLARABEL" if solver == NEWTON else solver
        R = None
        if train.feature_count <= min(MOST_EXPLICIT, len(Q) / 4):
            R = Features.from_training_set(train).at_keys(scaled.log_C) * np.exp(-excess)
        bound = np.exp(-excess[:, 0])
        maximise = dual_program(Q_bounded, R, bound, scaled.epsilon, scaled.bias, solver, solver_options)
        u = np.array([maximise(target) for target in scaled.y.T]).T
        if solver_options is None and fits:
            u = _newton(Q, scaled, None, u)
    return feasible(u, scaled.bias, np.diag(Q))


@dataclass(frozen=True, eq=False)
class _Scaled:
    """Targets (n, Dv), tube and penalty in units of the largest target, and whether there is a bias."""

    y: np.ndarray
    epsilon: float
    log_C: float
    bias: bool


def _scale(y: Float[Array, "n Dv"], epsilon: float, log_C: float, bias: bool) -> tuple[_Scaled, float]:
    unit = abs(y).max() or 1.0
    return _Scaled(y / unit, epsilon / unit, log_C - np.log(unit), bias), unit


def _newton(
    Q: Float[Array, "n n"] | GramRows,
    scaled: _Scaled,
    solver_options: Options,
    start: Float[Array, "n Dv"] | None = None,
) -> Float[Array, "n Dv"]:
    from primal_dual.svr.projected_newton import newton  # which loads SciPy

    if solver_options:
        raise ValueError(f'solver_options: expected none for solver "newton"; got {dict(solver_options)}')
    return newton(Q, scaled.y, scaled.epsilon, scaled.bias, start).u


class _Candidate(NamedTuple):
    """w (F, Dv) with its primal value P and bias b; feasible multipliers u (n, Dv) with their dual value D, (Dv,)."""

    w: np.ndarray
    u: np.ndarray
    P: np.ndarray
    D: np.ndarray
    b: np.ndarray


def _evaluate(R: Float[Array, "n F"], w: Float[Array, "F Dv"], u: Float[Array, "n Dv"], scaled: _Scaled) -> _Candidate:
    """The primal value of w and the dual value of u, which may belong to different functions."""
    u = feasible(u, scaled.bias, (R**2).sum(axis=1))
    problem = (u, scaled.y, scaled.epsilon, scaled.bias)
    P, _, b = objective_values(R @ w, (w**2).sum(axis=0), *problem)
    _, D, _ = objective_values(R @ w, ((R.T @ u) ** 2).sum(axis=0), *problem)
    return _Candidate(w, u, P, D, b)


def _better(one: _Candidate, other: _Candidate) -> _Candidate:
    """Of each output, the candidate with the smaller gap."""
    better = other.P - other.D < one.P - one.D
    return _Candidate(*(np.where(better, new, old) for new, old in zip(other, one, strict=True)))


def total_value(C: float, unit: float, values: Float[Array, " Dv"] | float, y: Float[Array, "n Dv"]) -> float:
    """The value of all outputs. ValueError where it is too large for a float."""
    with np.errstate(over="ignore"):
        total = float(C * unit * np.sum(values))
    if not np.isfinite(total):
        expected = "expected a value that a float can hold"
        raise ValueError(f"targets, C: {expected}; got targets of {abs(y).max():.3g}: scale them down, or lower C")
    return total


def warn_of_gap(P: float, D: float, size: float, log_C: float, train: TrainingSet) -> None:
    """A ConvergenceWarning for a gap that is too large, of C sum |y| = `size` or of the values themselves.

    A penalty of 1e14 makes C sum |y| so much larger than both values that rounding leaves them few digits, or none.
    `log_C` is that of the penalty over the largest target.
    """
    gap, of_values = relative_gap(P, D, size), relative_gap(P, D, 0.0)
    if not gap <= LARGEST_GAP:
        spans = f"log h(k_j) spans {np.ptp(train.log_h):.3g}"
        message = f"the relative duality gap is {gap:.2g}, and {spans}: scale the keys down or choose a smaller C"
        warnings.warn(message, ConvergenceWarning, stacklevel=3)
    elif of_values > LARGEST_SHARE and log_C + 2 * train.log_norms(train.keys).max() > math.log(LARGE):
        message = (
            f"the primal and the dual value differ by {of_values:.2g} of themselves, being tiny beside C sum |y|: "
            "choose a smaller C"
        )
        warnings.warn(message, ConvergenceWarning, stacklevel=3)


def _prepare(
    primal: Primal, keys: Array, targets: Array, C: float, epsilon: float, query: int | None
) -> tuple[TrainingSet, Float[Array, "n Dv"]]:
    """The training set of a query, and its targets, one row a training point."""
    checks.number("C", C, above=0)
    checks.number("epsilon", epsilon, least=0)
    train = training_set(primal, keys, query)
    return train, pooled_rows("targets", targets, train)
