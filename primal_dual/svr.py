"""The SVR of a primal, solved explicitly by cvxpy: the primal for W and b, the dual for alpha and alpha~.

    primal   minimise  1/2 |W|^2 + C sum_jd (xi_jd + xi~_jd)    subject to  y_jd - w_d.z_j - b_d <= epsilon + xi_jd,
             w_d.z_j + b_d - y_jd <= epsilon + xi~_jd,  xi, xi~ >= 0
    dual     maximise  -1/2 delta_d' G delta_d - epsilon sum_j (alpha_jd + alpha~_jd) + sum_j y_jd delta_jd
             subject to  0 <= alpha, alpha~ <= C,  delta = alpha - alpha~,  and sum_j delta_jd = 0 if there is a bias

with z_j = Phi(T k_j)/h(k_j) and G_ij = z_i.z_j.
"""

from dataclasses import dataclass, field

import numpy as np

from primal_dual import checks
from primal_dual.primal import Heads
from primal_dual.programs import dual_program, feasible, primal_program, refine, relative_gap, values
from primal_dual.training_set import TrainingSet, training_set

LARGEST = 1e14  # C |z_j|^2 up to which the dual is solved as it is
ENOUGH = 1e-12  # relative gap of an output that needs no second try
MOST_EXPLICIT = 2_000  # features up to which the primal is solved in Phi itself


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
    _features: "Features" = field(repr=False)

    def predict(self, x):
        """f(x) = W Phi(T x)/h(x) + b, (M, D) -> (M, Dv)."""
        return self._features(self._features.train.convolve(x)) @ self.weight.T + self.bias


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
        headed(self.heads, x=x)
        return np.stack([head.predict(one) for head, one in zip(self.heads, x, strict=True)])


def solve_primal(primal, keys, targets, *, C, epsilon, query=None, solver="CLARABEL", solver_options=None):
    """Solve the primal SVR -> PrimalSolution.

    keys (N, D); targets (N, Dv), one a key and pooled with them, or (n, Dv), one a training point; for Heads a head
    axis comes first. C > 0 and epsilon >= 0 as in the module's equations; `query` says whose SVR under a support
    other than Everything. `solver_options` go to the cvxpy solver; without, its result is refined to the last digits.
    Raises ValueError for bad input, a solver that is not installed, and a solve that ends without a solution.
    Source: arXiv 2406.13781.
    """
    if isinstance(primal, Heads):
        return _each_head(solve_primal, primal, keys, targets, C, epsilon, query, solver, solver_options)
    train, y = _posed(primal, keys, targets, C, epsilon, query)
    unit = abs(y).max() or 1.0
    y, epsilon, log_C = y / unit, epsilon / unit, np.log(C) - np.log(unit)
    features = Features.of(train)
    R = features.at_keys(log_C)
    if not np.isfinite(R).all():
        raise ValueError(f"keys: expected less spread than that of log h, {np.ptp(train.log_h):.3g}: scale them down")
    minimise = primal_program(R, epsilon, primal.bias, solver, solver_options)
    w, u = (np.array(columns).T for columns in zip(*map(minimise, y.T), strict=True))
    w, u, P, D, b = _with_values(R, w, u, y, epsilon, primal.bias)
    if solver_options is None:
        Q = R @ R.T
        u = np.array([refine(a, Q, t, epsilon, primal.bias)[0] for a, t in zip(u.T, y.T, strict=True)]).T
        refined = _with_values(R, R.T @ u, u, y, epsilon, primal.bias)
        better = refined[2] - refined[3] < P - D
        w, u, P, D, b = (np.where(better, new, old) for new, old in zip(refined, (w, u, P, D, b), strict=True))
    gap = relative_gap(P.sum(), D.sum(), abs(y).sum())
    scale = np.sqrt(C) * np.sqrt(unit)
    return PrimalSolution(scale * w.T, b * unit, float(C * unit * P.sum()), float(gap), features)


def _with_values(R, w, u, y, epsilon, bias):
    """w, u made feasible, the primal value of w, the dual value of u, and the bias."""
    u = feasible(u, bias, (R**2).sum(axis=1))
    P, _, b = values(R @ w, (w**2).sum(axis=0), u, y, epsilon, bias)
    _, D, _ = values(R @ w, ((R.T @ u) ** 2).sum(axis=0), u, y, epsilon, bias)
    return w, u, P, D, b


def solve_dual(primal, keys, targets, *, C, epsilon, query=None, solver="CLARABEL", solver_options=None):
    """Solve the dual SVR -> DualSolution. Arguments, errors and source as for `solve_primal`."""
    if isinstance(primal, Heads):
        return _each_head(solve_dual, primal, keys, targets, C, epsilon, query, solver, solver_options)
    train, y = _posed(primal, keys, targets, C, epsilon, query)
    u, v, b, D, gap = expand(train, y, np.log(C), epsilon, solver, solver_options)
    return DualSolution(C * np.maximum(u, 0), C * np.maximum(-u, 0), train.spread(v), b, float(C * D), gap, train)


def expand(train, y, log_C, epsilon, solver="CLARABEL", solver_options=None):
    """Solve the dual of a training set with targets y (n, Dv) and a penalty of any size, given by its logarithm.

    -> u = delta/C (n, Dv), values v = delta/h (n, Dv), bias (Dv,), dual value over C, relative gap.
    """
    bias, unit = train.primal.bias, abs(y).max() or 1.0
    y, epsilon, log_C = y / unit, epsilon / unit, log_C - np.log(unit)
    # Where C |z_j|^2 is beyond LARGEST, u_j is searched for in a smaller box, so that Q has no infinity.
    log_d = train.log_norms(train.keys)[:, None] + log_C / 2
    excess = np.maximum(0, log_d - np.log(LARGEST) / 2)
    d = np.exp(log_d - excess)
    Q = d * train.cosines * d.T
    few = train.feature_count <= min(MOST_EXPLICIT, len(Q) / 4)
    R = Features.of(train).at_keys(log_C) * np.exp(-excess) if few else None
    maximise = dual_program(Q, R, np.exp(-excess[:, 0]), epsilon, bias, solver, solver_options)
    u = np.array([maximise(column) for column in y.T]).T
    if solver_options is None and not excess.any():
        u = _refined(train, u, Q, y, log_C, epsilon, bias, solver)
    u = feasible(u, bias, np.diag(Q))
    w, top, sign, log_h = train.own_rows
    v = u * sign * np.exp(np.minimum(log_C - log_h, 700))
    f = w @ v * sign * np.exp(top - log_h)
    P, D, b = values(f, (u * f).sum(axis=0), u, y, epsilon, bias)
    return u, v * unit, b * unit, float(D.sum() * unit), float(relative_gap(P.sum(), D.sum(), abs(y).sum()))


def _refined(train, u, Q, y, log_C, epsilon, bias, solver):
    """u refined; where that leaves a gap, the multipliers of the primal program refined, if theirs is smaller."""
    each = [refine(a, Q, t, epsilon, bias) for a, t in zip(u.T, y.T, strict=True)]
    if max(gap for _, gap in each) > ENOUGH:
        minimise = primal_program(Features.of(train).at_keys(log_C), epsilon, bias, solver, None)
        again = (
            refine(minimise(t)[1], Q, t, epsilon, bias) if gap > ENOUGH else (a, gap)
            for (a, gap), t in zip(each, y.T, strict=True)
        )
        each = [min(pair, key=lambda solved: solved[1]) for pair in zip(each, again, strict=True)]
    return np.array([a for a, _ in each]).T


def _posed(primal, keys, targets, C, epsilon, query):
    checks.number("C", C, above=0)
    checks.number("epsilon", epsilon, least=0)
    train = training_set(primal, keys, query)
    return train, pooled_rows("targets", targets, train)


def pooled_rows(name, y, train):
    """One row a training point, (n, Dv), from that or from one row a key, (N, Dv)."""
    y = checks.matrix(name, y, "N Dv")
    if len(y) not in (len(train.members), len(train.keys)):
        pooled = f", or {len(train.keys)}, one a training point" if len(train.keys) != len(train.members) else ""
        raise ValueError(f"{name}: expected {len(train.members)} rows, one a key{pooled}; got {y.shape}")
    return train.pool(y) if len(y) == len(train.members) else y


@dataclass(frozen=True, eq=False)
class Features:
    """x -> z(x), (M, D) -> (M, F): Phi(T x)/h(x) where Phi is finite and small, and `basis` is None.

    Else the coordinates of z(x) in the span of the z_j: with |z_j| and the cosines U S U' between them, `basis` (n, F)
    is U S^(-1/2), and z(x) is made of <z(x), z_j>/|z_j|.
    """

    train: TrainingSet
    basis: np.ndarray | None

    @classmethod
    def of(cls, train):
        """The features of a training set."""
        if train.feature_count <= MOST_EXPLICIT:
            return cls(train, None)
        S, U = np.linalg.eigh(train.cosines)
        kept = len(S) * np.finfo(float).eps * S[-1] < S
        return cls(train, U[:, kept] / np.sqrt(S[kept]))

    def __call__(self, x):
        if self.basis is None:
            return self._explicit(x, 0.0)
        return self.train.gram(x, -self.train.log_norms(self.train.keys)) @ self.basis

    def at_keys(self, log_C):
        """sqrt(C) z_j, (n, F)."""
        with np.errstate(over="ignore", invalid="ignore"):  # for the caller to tell
            if self.basis is None:
                return self._explicit(self.train.keys, log_C)
            norms = np.exp(self.train.log_norms(self.train.keys) + log_C / 2)
            return norms[:, None] * (self.train.cosines @ self.basis)

    def _explicit(self, x, log_C):
        train = self.train
        kernel, (_, _, sign, log_h) = train.primal.kernel, train.own_rows if x is train.keys else train.rows(x)
        if hasattr(kernel, "log_features"):
            return np.exp(kernel.log_features(train.transform(x)) - log_h + log_C / 2) * sign
        return kernel.features(train.transform(x)) * np.exp(log_C / 2 - log_h) * sign


def _each_head(solve, heads, keys, targets, C, epsilon, query, solver, options):
    headed(heads, keys=keys, targets=targets)
    common = dict(C=C, epsilon=epsilon, query=query, solver=solver, solver_options=options)
    return HeadSolutions(tuple(solve(*each, **common) for each in zip(heads, keys, targets, strict=True)))


def headed(heads, **arrays):
    """ValueError for arrays without a first axis of one entry a head."""
    for name, x in arrays.items():
        if np.ndim(x) < 1 or len(x) != len(heads) or any(np.ndim(one) != 2 for one in x):
            got = np.shape(x) if np.ndim(x) else type(x).__name__
            raise ValueError(f"{name}: expected ({len(heads)}, N, ...), one of each head of Heads; got {got}")
