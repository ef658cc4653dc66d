"""The SVR of a primal, solved explicitly by cvxpy: the primal for W and b, the dual for alpha and alpha~.

    primal   minimise  1/2 |W|^2 + C sum_jd (xi_jd + xi~_jd)    subject to  y_jd - w_d.z_j - b_d <= epsilon + xi_jd,
             w_d.z_j + b_d - y_jd <= epsilon + xi~_jd,  xi, xi~ >= 0
    dual     maximise  -1/2 delta_d' G delta_d - epsilon sum_j (alpha_jd + alpha~_jd) + sum_j y_jd delta_jd
             subject to  0 <= alpha, alpha~ <= C,  delta = alpha - alpha~,  and sum_j delta_jd = 0 if there is a bias

with z_j = Phi(T k_j)/h(k_j) and G_ij = z_i.z_j. Both are solved in units in which C and the targets are 1, which
interior-point solvers need to come to the last digits: for u = delta/C, with G, epsilon and y scaled to match.
"""

import warnings
from dataclasses import dataclass, field

import numpy as np

from primal_dual import checks
from primal_dual.primal import Heads
from primal_dual.training_set import TrainingSet, training_set

MOST_EXPLICIT = 2_000  # features up to which the primal is solved in Phi itself
ACCURATE = {
    "CLARABEL": {"tol_gap_abs": 1e-13, "tol_gap_rel": 1e-13, "tol_feas": 1e-13, "accept_unknown": True},
    "PIQP": {"eps_abs": 1e-12, "eps_rel": 1e-12},
}


@dataclass(frozen=True, eq=False)
class PrimalSolution:
    """The primal's optimum: weight W (Dv, F), bias b (Dv,), the primal value and its gap to the dual one.

    F counts the features of the kernel where they are finite and few; else W is in the coordinates of an orthonormal
    basis of the span of the training points' features, which contains the optimum.
    """

    weight: np.ndarray
    bias: np.ndarray
    value: float
    relative_gap: float
    _features: object = field(repr=False)
    _training_set: TrainingSet = field(repr=False)

    def predict(self, x):
        """f(x) = W Phi(T x)/h(x) + b, (M, D) -> (M, Dv)."""
        return self._features(self._training_set.convolve(x)) @ self.weight.T + self.bias


@dataclass(frozen=True, eq=False)
class DualSolution:
    """The dual's optimum: alpha and alpha_tilde (n, Dv), bias b (Dv,), the dual value and its gap to the primal one.

    values (N, Dv): v_j = (alpha_j - alpha~_j)/h(k_j), with which attention(primal, q, keys, values) + bias predicts.
    """

    alpha: np.ndarray
    alpha_tilde: np.ndarray
    values: np.ndarray
    bias: np.ndarray
    value: float
    relative_gap: float
    _training_set: TrainingSet = field(repr=False)

    def predict(self, x):
        """f(x) = sum_j v_j <Phi(T x), Phi(T k_j)>/h(x) + b, (M, D) -> (M, Dv)."""
        train = self._training_set
        return train.attend(train.convolve(x), train.pool(self.values)) + self.bias


@dataclass(frozen=True, eq=False)
class HeadSolutions:
    """The solutions of the SVRs of Heads, side by side: `heads` holds them, the other names put them together."""

    heads: tuple

    def __getattr__(self, name):
        """Arrays are stacked along a head axis, or a tuple where heads differ in shape; values are summed."""
        if name.startswith("_"):
            raise AttributeError(name)
        each = [getattr(head, name) for head in self.heads]
        if name == "value":
            return sum(each)
        return np.stack(each) if len({np.shape(x) for x in each}) == 1 else tuple(each)

    @property
    def relative_gap(self):
        """The largest of the heads'."""
        return max(head.relative_gap for head in self.heads)

    def predict(self, x):
        """(H, M, D) -> (H, M, Dv)."""
        return np.stack([head.predict(one) for head, one in zip(self.heads, x, strict=True)])


def solve_primal(primal, keys, targets, *, C, epsilon, query=None, solver="CLARABEL", solver_options=None):
    """Solve the primal SVR -> PrimalSolution.

    keys (N, D); targets (N, Dv), one a key and pooled with them, or (n, Dv), one a training point; for Heads a head
    axis comes first. C > 0 and epsilon >= 0 as in the module's equations; `query` says whose SVR under a support
    other than Everything. `solver_options` go to the cvxpy solver; without them Clarabel and PIQP run to the last digits.
    Raises ValueError for bad input, a solver that is not installed, and a solve that ends without a solution.
    Source: arXiv 2406.13781.
    """
    if isinstance(primal, Heads):
        return _each_head(solve_primal, primal, keys, targets, C, epsilon, query, solver, solver_options)
    train, y, unit = _posed(primal, keys, targets, C, epsilon, query)
    features, Z = _features(train)
    R = Z * np.sqrt(C / unit)
    minimise = _primal_problem(R, epsilon / unit, primal.bias, solver, solver_options)
    w, u = map(np.array, zip(*map(minimise, (y / unit).T), strict=True))
    u = _feasible(u.T, primal.bias)
    P, b = _primal_value(R @ w.T, (w**2).sum(), y / unit, epsilon / unit, primal.bias)
    D = _dual_value(((R.T @ u) ** 2).sum(), u, y / unit, epsilon / unit)
    return PrimalSolution(w * np.sqrt(C * unit), b * unit, C * unit * P, relative_gap(P, D, abs(y / unit).sum()), features, train)


def solve_dual(primal, keys, targets, *, C, epsilon, query=None, solver="CLARABEL", solver_options=None):
    """Solve the dual SVR -> DualSolution. Arguments, errors and source as for `solve_primal`."""
    if isinstance(primal, Heads):
        return _each_head(solve_dual, primal, keys, targets, C, epsilon, query, solver, solver_options)
    train, y, unit = _posed(primal, keys, targets, C, epsilon, query)
    Q = train.gram(train.keys, C / unit)
    Q = (Q + Q.T) / 2
    count = getattr(train.primal.kernel, "feature_count", lambda D: np.inf)(train.keys.shape[1])
    R = _features(train)[1] * np.sqrt(C / unit) if count <= len(Q) / 4 else None
    maximise = _dual_problem(Q, R, epsilon / unit, primal.bias, solver, solver_options)
    u = _feasible(np.array([maximise(column) for column in (y / unit).T]).T, primal.bias)
    square = (u * (Q @ u)).sum()
    P, b = _primal_value(Q @ u, square, y / unit, epsilon / unit, primal.bias)
    D = _dual_value(square, u, y / unit, epsilon / unit)
    _, _, sign, log_h = train.rows(train.keys)
    values = train.spread(u * sign * np.exp(np.log(C) - log_h))
    gap = relative_gap(P, D, abs(y / unit).sum())
    return DualSolution(C * np.maximum(u, 0), C * np.maximum(-u, 0), values, b * unit, C * unit * D, gap, train)


def relative_gap(P, D, size):
    """(P - D) / max(|P|, |D|, 0.01 size), with size = C sum |y|; 0/0 = 0."""
    scale = max(abs(P), abs(D), 0.01 * size)
    return (P - D) / scale if scale else 0.0


def best_bias(residual, epsilon):
    """The b that minimises sum_j max(|residual_j - b| - epsilon, 0), (n, Dv) -> (Dv,): the middle of its interval."""
    n = len(residual)
    ends = np.sort(np.concatenate([residual - epsilon, residual + epsilon]), axis=0)
    return (ends[n - 1] + ends[n]) / 2


def _posed(primal, keys, targets, C, epsilon, query):
    checks.number("C", C, above=0)
    checks.number("epsilon", epsilon, least=0)
    train = training_set(primal, keys, query)
    y = pooled_rows("targets", targets, train)
    return train, y, abs(y).max() or 1.0


def pooled_rows(name, y, train):
    """One row a training point, (n, Dv), from that or from one row a key, (N, Dv)."""
    y = checks.matrix(name, y, "N Dv")
    if len(y) not in (len(train.members), len(train.keys)):
        raise ValueError(f"{name}: expected {len(train.members)} rows, one a key, or {len(train.keys)}, one a training point; got {y.shape}")
    return train.pool(y) if len(y) == len(train.members) else y


def _features(train):
    """The function x -> z(x), (M, D) -> (M, F), and its value at the training points.

    Phi(T x)/h(x) where Phi is finite and small. Else the coordinates of z(x) in the span of the z_j, from
    G = d K d with K = U S U' of unit diagonal: d U S^(1/2) at the training points, <z(x), z_j>/d_j U S^(-1/2) at x.
    """
    kernel, keys = train.primal.kernel, train.keys
    if hasattr(kernel, "feature_count") and kernel.feature_count(keys.shape[1]) <= MOST_EXPLICIT:
        def explicit(x):
            _, _, sign, log_h = train.rows(x)
            return kernel.features(train.transform(x)) * sign * np.exp(-log_h)
        return explicit, explicit(keys)
    G = train.gram(keys)
    d = np.sqrt(np.diag(G))
    S, U = np.linalg.eigh(G / d[:, None] / d)
    kept = S > len(S) * np.finfo(float).eps * S[-1]
    basis = U[:, kept] / np.sqrt(S[kept])
    return lambda x: train.gram(x) / d @ basis, d[:, None] * U[:, kept] * np.sqrt(S[kept])


def _primal_problem(R, epsilon, bias, solver, options):
    """y (n,) -> the optimal w and the multipliers u = (alpha - alpha~)/C, for features R."""
    import cvxpy as cp

    n, count = R.shape
    y, w, b = cp.Parameter(n), cp.Variable(count), cp.Variable() if bias else 0.0
    xi, xi_tilde, residual = cp.Variable(n, nonneg=True), cp.Variable(n, nonneg=True), cp.Variable(n)
    below, above = residual <= epsilon + xi, -residual <= epsilon + xi_tilde
    problem = cp.Problem(cp.Minimize(cp.sum_squares(w) / 2 + cp.sum(xi + xi_tilde)), [residual == y - R @ w - b, below, above])

    def minimise(target):
        y.value = target
        _solve(problem, solver, options)
        return w.value, below.dual_value - above.dual_value

    return minimise


def _dual_problem(Q, R, epsilon, bias, solver, options):
    """y (n,) -> the optimal u = (alpha - alpha~)/C, for Q = R R', with R given where its columns are few."""
    import cvxpy as cp

    n = len(Q)
    y, u = cp.Parameter(n), cp.Variable(n)
    alpha, alpha_tilde = cp.Variable(n, bounds=[0, 1]), cp.Variable(n, bounds=[0, 1])
    square = cp.quad_form(u, cp.psd_wrap(Q)) if R is None else cp.sum_squares(R.T @ u)
    objective = y @ u - square / 2 - epsilon * cp.sum(alpha + alpha_tilde)
    problem = cp.Problem(cp.Maximize(objective), [u == alpha - alpha_tilde] + [cp.sum(u) == 0] * bias)

    def maximise(target):
        y.value = target
        _solve(problem, solver, options)
        return alpha.value - alpha_tilde.value

    return maximise


def _solve(problem, solver, options):
    import cvxpy as cp

    if solver not in cp.installed_solvers():
        raise ValueError(f"solver: expected one that is installed, {', '.join(cp.installed_solvers())}; got {solver!r}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of inaccuracy: the gap tells it
            problem.solve(solver=solver, **ACCURATE.get(solver, {}) | (options or {}))
    except (cp.SolverError, TypeError) as error:
        raise ValueError(f"{solver} ended without a solution: {error}") from error
    if problem.status not in (cp.OPTIMAL, cp.OPTIMAL_INACCURATE):
        raise ValueError(f"{solver} ended without a solution: status {problem.status}")


def _feasible(u, bias):
    """Move u (n, Dv) into the box [-1, 1], and to sum_j u_j = 0 if there is a bias, by at most what it is off."""
    u = np.clip(u, -1, 1)
    if bias:
        excess = u.sum(axis=0)
        room = 1 + np.sign(excess) * u
        u = u - excess * room / room.sum(axis=0)
    return u


def _primal_value(f, square, y, epsilon, bias):
    """The primal objective of a w with f = W z and |W|^2 = square, and the bias that is best for it."""
    b = best_bias(y - f, epsilon) if bias else np.zeros(y.shape[1])
    return square / 2 + np.maximum(abs(y - f - b) - epsilon, 0).sum(), b


def _dual_value(square, u, y, epsilon):
    return -square / 2 - epsilon * abs(u).sum() + (y * u).sum()


def _each_head(solve, heads, keys, targets, C, epsilon, query, solver, options):
    if len(keys) != len(heads) or len(targets) != len(heads):
        raise ValueError(f"expected keys and targets of {len(heads)} heads; got {len(keys)} and {len(targets)}")
    common = dict(C=C, epsilon=epsilon, query=query, solver=solver, solver_options=options)
    return HeadSolutions(tuple(solve(*each, **common) for each in zip(heads, keys, targets, strict=True)))
