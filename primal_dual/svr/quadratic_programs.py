"""The two quadratic programs of an SVR in cvxpy, in units of C: u = delta / C lies in [-1, 1], and Q = C G.

    primal   minimise  1/2 |w|^2 + sum_j (xi_j + xi~_j),   |y - R w - b| <= epsilon + slack,   R R' = Q,  W = sqrt(C) w
    dual     maximise  -1/2 u'Q u - epsilon sum_j |u_j| + y'u,   -1 <= u <= 1,  sum_j u_j = 0 if there is a bias

A program is compiled once and solved for one output after another: the target y is a cvxpy parameter.
"""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

from primal_dual.types import Array, Float

ACCURATE: dict[str, dict[str, Any]] = {
    "CLARABEL": {"tol_gap_abs": 1e-13, "tol_gap_rel": 1e-13, "tol_feas": 1e-13, "accept_unknown": True},
    "PIQP": {"eps_abs": 1e-12, "eps_rel": 1e-12},
}
Options = Mapping[str, Any] | None


def primal_program(
    R: Float[Array, "n F"], epsilon: float, bias: bool, solver: str, options: Options
) -> Callable[[Float[Array, " n"]], tuple[Float[Array, " F"], Float[Array, " n"]]]:
    """The function y -> the optimal w and its multipliers u, for features R with R R' = Q."""
    import cvxpy as cp

    n, count = R.shape
    y, w, b = cp.Parameter(n), cp.Variable(count), cp.Variable() if bias else 0.0
    xi, xi_tilde, residual = cp.Variable(n, nonneg=True), cp.Variable(n, nonneg=True), cp.Variable(n)
    below, above = residual <= epsilon + xi, -residual <= epsilon + xi_tilde
    objective = cp.Minimize(cp.sum_squares(w) / 2 + cp.sum(xi + xi_tilde))
    problem = cp.Problem(objective, [residual == y - R @ w - b, below, above])

    def minimise(target: Float[Array, " n"]) -> tuple[Float[Array, " F"], Float[Array, " n"]]:
        y.value = target
        _solve(problem, solver, options)
        return w.value, below.dual_value - above.dual_value

    return minimise


def dual_program(
    Q: Float[Array, "n n"],
    R: Float[Array, "n F"] | None,
    bound: Float[Array, " n"],
    epsilon: float,
    bias: bool,
    solver: str,
    options: Options,
) -> Callable[[Float[Array, " n"]], Float[Array, " n"]]:
    """The function y -> the optimal u among -bound <= u <= bound.

    With u = bound t the program is one for t in [-1, 1].

    Parameters
    ----------
    Q : array
        The Gram matrix for t: that of u is Q_ij / (bound_i bound_j).
    R : array, optional
        Features with R R' = Q, where they are few: they make the program smaller.
    bound : array
        The half-width of the box, at most 1.
    epsilon : float
        The half-width of the tube.
    bias : bool
        Whether sum_j u_j = 0 is demanded.
    solver, options
        A cvxpy solver, and options that are added to those of `ACCURATE`, or replace them.
    """
    import cvxpy as cp

    n = len(bound)
    scaled_y, t = cp.Parameter(n), cp.Variable(n)
    alpha: Any = cp.Variable(n, bounds=[0, 1])
    alpha_tilde: Any = cp.Variable(n, bounds=[0, 1])
    square = cp.quad_form(t, cp.psd_wrap(Q)) if R is None else cp.sum_squares(R.T @ t)
    objective = cp.Maximize(scaled_y @ t - square / 2 - epsilon * bound @ (alpha + alpha_tilde))
    problem = cp.Problem(objective, [t == alpha - alpha_tilde] + [bound @ t == 0] * bias)

    def maximise(target: Float[Array, " n"]) -> Float[Array, " n"]:
        scaled_y.value = bound * target
        _solve(problem, solver, options)
        return bound * (alpha.value - alpha_tilde.value)

    return maximise


def _solve(problem: Any, solver: str, options: Options) -> None:
    """Solve a cvxpy problem. ValueError for a solver that is not installed, and without a solution."""
    import cvxpy as cp

    given, solver = solver, str(solver).upper()
    if solver not in cp.installed_solvers():
        mend = '; it comes with pip install ".[piqp]" in the checkout' if solver == "PIQP" else ""
        installed = ", ".join(["newton", *cp.installed_solvers()])
        raise ValueError(f"solver: expected one that is installed, {installed}; got {given!r}{mend}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the relative gap says how accurate a solution is
            problem.solve(solver=solver, **ACCURATE.get(solver, {}) | dict(options or {}))
    except (cp.SolverError, TypeError, ValueError) as error:
        raise ValueError(f"{solver} ended without a solution: {str(error).split('. ')[0]}") from error
    if problem.status not in (cp.OPTIMAL, cp.OPTIMAL_INACCURATE):
        raise ValueError(f"{solver} ended without a solution: status {problem.status}")
