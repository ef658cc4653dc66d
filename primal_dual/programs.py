"""The two quadratic programs of an SVR in cvxpy, in units of C: u = delta/C in [-1, 1] and Q = C G.

    primal   minimise  1/2 |w|^2 + sum_j (xi_j + xi~_j),   |y - R w - b| <= epsilon + slack,   R R' = Q,  W = sqrt(C) w
    dual     maximise  -1/2 u'Q u - epsilon sum_j |u_j| + y'u,   -1 <= u <= 1,  sum_j u_j = 0 if there is a bias

A program is compiled once and solved for one output after another: the target y is a cvxpy parameter.
"""

import warnings

import numpy as np

ACCURATE = {
    "CLARABEL": {"tol_gap_abs": 1e-13, "tol_gap_rel": 1e-13, "tol_feas": 1e-13, "accept_unknown": True},
    "PIQP": {"eps_abs": 1e-12, "eps_rel": 1e-12},
}


def primal_program(R, epsilon, bias, solver, options):
    """The function y (n,) -> the optimal w and its multipliers u, for features R (n, F)."""
    import cvxpy as cp

    n, count = R.shape
    y, w, b = cp.Parameter(n), cp.Variable(count), cp.Variable() if bias else 0.0
    xi, xi_tilde, residual = cp.Variable(n, nonneg=True), cp.Variable(n, nonneg=True), cp.Variable(n)
    below, above = residual <= epsilon + xi, -residual <= epsilon + xi_tilde
    objective = cp.Minimize(cp.sum_squares(w) / 2 + cp.sum(xi + xi_tilde))
    problem = cp.Problem(objective, [residual == y - R @ w - b, below, above])

    def minimise(target):
        y.value = target
        _solve(problem, solver, options)
        return w.value, below.dual_value - above.dual_value

    return minimise


def dual_program(Q, R, share, epsilon, bias, solver, options):
    """The function y (n,) -> the optimal u, searched for in -share <= u <= share, for Q given as share Q share.

    R (n, F), if not None, has R R' equal to that Q and few columns, which makes the program smaller.
    """
    import cvxpy as cp

    n = len(share)
    scaled_y, t = cp.Parameter(n), cp.Variable(n)  # u = share t
    alpha, alpha_tilde = cp.Variable(n, bounds=[0, 1]), cp.Variable(n, bounds=[0, 1])
    square = cp.quad_form(t, cp.psd_wrap(Q)) if R is None else cp.sum_squares(R.T @ t)
    objective = cp.Maximize(scaled_y @ t - square / 2 - epsilon * share @ (alpha + alpha_tilde))
    problem = cp.Problem(objective, [t == alpha - alpha_tilde] + [share @ t == 0] * bias)

    def maximise(target):
        scaled_y.value = share * target
        _solve(problem, solver, options)
        return share * (alpha.value - alpha_tilde.value)

    return maximise


def _solve(problem, solver, options):
    import cvxpy as cp

    solver = str(solver).upper()
    if solver not in cp.installed_solvers():
        mend = "; it comes with pip install 'primal-dual-attention[piqp]'" if solver == "PIQP" else ""
        installed = ", ".join(cp.installed_solvers())
        raise ValueError(f"solver: expected one that is installed, {installed}; got {solver!r}{mend}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of inaccuracy: the gap tells it
            problem.solve(solver=solver, **ACCURATE.get(solver, {}) | (options or {}))
    except (cp.SolverError, TypeError, ValueError) as error:
        raise ValueError(f"{solver} ended without a solution: {str(error).split('. ')[0]}") from error
    if problem.status not in (cp.OPTIMAL, cp.OPTIMAL_INACCURATE):
        raise ValueError(f"{solver} ended without a solution: status {problem.status}")


def feasible(u, bias, q):
    """Move u (n, Dv) into the box [-1, 1] and, with a bias, to sum_j u_j = 0 by as little as it is off.

    The first to move are those of small q_j = Q_jj (n,), on whose fit it tells least.
    """
    u = np.clip(u, -1, 1)
    for ease in (1 / np.maximum(q, 1e-300)[:, None], 1) if bias else ():
        excess = u.sum(axis=0)
        room = ease * (1 + np.sign(excess) * u)
        u = np.clip(u - excess * room / room.sum(axis=0), -1, 1)
    return u


def best_bias(residual, epsilon):
    """The b that minimises sum_j max(|residual_j - b| - epsilon, 0), (n, Dv) -> (Dv,): the middle of its interval."""
    n = len(residual)
    ends = np.sort(np.concatenate([residual - epsilon, residual + epsilon]), axis=0)
    return (ends[n - 1] + ends[n]) / 2


def values(f, square, u, y, epsilon, bias):
    """Primal and dual value over C and the best bias, each (Dv,), for f = R w (n, Dv), |w|^2 (Dv,), a feasible u."""
    b = best_bias(y - f, epsilon) if bias else np.zeros(y.shape[1])
    P = square / 2 + np.maximum(abs(y - f - b) - epsilon, 0).sum(axis=0)
    D = (y * u).sum(axis=0) - square / 2 - epsilon * abs(u).sum(axis=0)
    return P, D, b


def relative_gap(P, D, size):
    """(P - D) / max(|P|, |D|, 0.01 size), with size = C sum |y|; 0/0 = 0."""
    scale = max(abs(P), abs(D), 0.01 * size)
    return (P - D) / scale if scale else 0.0


def refine(u, Q, y, epsilon, bias, steps=20):
    """Bring a dual solution u (n,) of an interior-point solver to the last digits, where its gap is not there yet.

    Semismooth Newton steps: where u_j + (y - Q u - b)_j / Q_jj, less the tube, lies inside the box, u_j is free and
    solves the linear equations |y - Q u - b| = epsilon; elsewhere it is 0 or +-1. Returns the u of the smallest gap,
    and that relative gap.
    """

    def measured(u):
        u = feasible(u[:, None], bias, q)
        f = Q @ u
        P, D, b = values(f, (u * f).sum(axis=0), u, y[:, None], epsilon, bias)
        return relative_gap(P[0], D[0], abs(y).sum()), u[:, 0], b[0]

    q = np.diag(Q)
    best, u, b = measured(u)
    step = u
    for _ in range(steps):
        if best <= 1e-13 or not q.all():
            break
        target = step + (y - Q @ step - b) / q
        inside = abs(target) - epsilon / q
        free = (inside > 0) & (inside < 1)
        step = np.sign(target) * np.clip(inside, 0, 1)
        rest = y[free] - np.sign(target[free]) * epsilon - Q[np.ix_(free, ~free)] @ step[~free]
        step[free], b = _equations(Q[np.ix_(free, free)], rest, -step[~free].sum(), b, bias)
        gap, candidate, _ = measured(step)
        if gap < best:
            best, u = gap, candidate
    return u, best


def _equations(Q, rest, total, b, bias):
    """Solve Q u + b = rest, with sum_j u_j = total and a free b if there is a bias -> u, b."""
    n = len(rest)
    if not n:
        return rest, b
    d = np.ones(n + bias)
    d[:n] = 1 / np.sqrt(np.diag(Q))
    matrix = np.zeros((n + bias, n + bias))
    matrix[:n, :n] = Q
    matrix[:n, n:], matrix[n:, :n] = 1, 1
    right = np.append(rest, [total] * bias)
    solution = d * np.linalg.lstsq(d[:, None] * matrix * d, d * right, rcond=None)[0]
    return solution[:n], solution[n] if bias else b
