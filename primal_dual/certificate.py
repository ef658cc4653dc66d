"""The certificate: which SVR given keys and values solve, and by how much they miss its optimum.

Without a bias, any keys and values are the optimum of an SVR: with delta_j = h(k_j) v_j, targets
y_j = f(k_j) + epsilon sign(delta_j) and C >= max |delta|, the primal value of W = sum_j delta_j z_j' equals the dual
value of delta. Both are computed here from their own definitions, so that the gap between them is a real check:
|W|^2 from the kernel, f from `attention`. All numbers are in units of exp(log_scale), log_scale = max_j log |h(k_j)|,
so that logits of any size can be certified.
"""

from dataclasses import dataclass, field

import numpy as np

from primal_dual import checks
from primal_dual.primal import Heads
from primal_dual.programs import best_bias, feasible, relative_gap
from primal_dual.supports import svr_queries
from primal_dual.svr import headed, pooled_rows
from primal_dual.training_set import TrainingSet, training_set

BLOCK = 256  # training points at a time
ROUNDING = 1e-10  # a dual constraint that is missed by more than this share of C is violated


@dataclass(frozen=True, eq=False)
class Certificate:
    """The SVR that values solve, and the proof.

    targets (n, Dv); log_C, the natural logarithm of C itself; primal_value and dual_value in units of exp(log_scale);
    relative_gap = (P - D) / max(|P|, |D|, 0.01 C sum |y|); query: whose SVR, under a sparse support; bias (Dv,).

    stationarity: max_jd |f(k_j) - sum_i delta_i z_i.z_j|, relative to max |f|: how far the expansion is from W.
    feasibility: by what share of C the dual constraints are violated, |delta| <= C and, with a bias, sum_j delta_j = 0.
    complementarity: max_jd of C xi_jd + epsilon |delta_jd| - (y_jd - f_jd - b_d) delta_jd >= 0, the share of the gap
    that is due to one target, relative to the scale of the gap: zero where every slack belongs to a delta at its bound.
    """

    targets: np.ndarray
    log_C: float
    log_scale: float
    primal_value: float
    dual_value: float
    relative_gap: float
    stationarity: float
    feasibility: float
    complementarity: float
    query: int | None
    bias: np.ndarray
    _training_set: TrainingSet = field(repr=False)

    def error_bound(self, x):
        """|f(x) - f*(x)| <= (|Phi(T x)|/|h(x)| + m) sqrt(2 max(gap, 0)), (M, D) -> (M,), Euclidean norm over outputs.

        f is the function of the given values and f* the optimum of the SVR; m = max_j |z_j| with a bias, else 0. It
        holds because the primal is 1-strongly convex in W, whatever solver made the values. With a violated dual
        constraint there is no bound: infinity.
        """
        train = self._training_set
        gap = max(self.primal_value - self.dual_value, 0.0)
        with np.errstate(divide="ignore", over="ignore"):
            log_root = (np.log(2 * gap) + self.log_scale) / 2
            bound = np.exp(train.log_norms(train.convolve(x)) + log_root)
            return bound + np.exp(train.log_norms(train.keys).max() + log_root) if train.primal.bias else bound


def certify(primal, keys, values, *, targets=None, C=None, epsilon=0.0, query=None):
    """The certificate of values (N, Dv) at keys (N, D) -> Certificate; a tuple of them for Heads, a head axis first.

    Without `targets`, those which the values fit: y_j = f(k_j) + epsilon sign(delta_j); else (N, Dv), one a key and
    pooled with them, or (n, Dv). Without `C`, the smallest that the values need. Under a support other than Everything
    each query has an SVR of its own: `query` says which; without it all are certified and the worst is returned.
    With a bias, the values must satisfy sum_j h(k_j) v_j = 0; b is then the best one for them.

    Raises ValueError for other shapes, numbers that are not finite, C <= 0 and epsilon < 0. Source: arXiv 2406.13781.
    """
    options = dict(C=C, epsilon=epsilon)
    if isinstance(primal, Heads):
        headed(primal, keys=keys, values=values, **({} if targets is None else {"targets": targets}))
        targets = [None] * len(primal) if targets is None else targets
        each = zip(primal, keys, values, targets, strict=True)
        return tuple(certify(p, k, v, targets=y, query=query, **options) for p, k, v, y in each)
    if C is not None:
        checks.number("C", C, above=0)
    checks.number("epsilon", epsilon, least=0)
    checks.primal(primal)
    keys, values = checks.matrix("keys", keys, "N D"), checks.matrix("values", values, "N Dv")
    if len(keys) != len(values):
        raise ValueError(f"expected as many values as keys; got {values.shape} and {keys.shape}")
    queries = svr_queries(primal.support, len(keys)) if query is None else [query]
    every = (_certificate(training_set(primal, keys, i), values, targets, query=i, **options) for i in queries)
    return max(every, key=lambda certificate: certificate.relative_gap)


def _certificate(train, values, targets, C, epsilon, query):
    v = train.pool(values)
    f = train.attend(train.keys, v)
    blocks = (train.rows(train.keys[i : i + BLOCK]) for i in range(0, len(train.keys), BLOCK))
    each = [(w @ v, top, sign, log_h) for w, top, sign, log_h in blocks]
    sums, top, sign, log_h = (np.concatenate(part) for part in zip(*each, strict=True))
    log_scale = log_h.max()
    with np.errstate(over="ignore", invalid="ignore"):  # told by the check below
        square = (v * sums * np.exp(top - log_scale)).sum()
    if not np.isfinite(square):
        raise ValueError("values: expected numbers whose squares a float can hold; scale them down")
    delta = sign * np.exp(log_h - log_scale) * v
    C = abs(delta).max() if C is None else np.exp(np.log(C) - log_scale)
    y = f + epsilon * np.sign(delta) if targets is None else pooled_rows("targets", targets, train)
    if y.shape != f.shape:
        raise ValueError(f"targets: expected as many outputs as the values, {f.shape[1]}; got {y.shape}")
    b = best_bias(y - f, epsilon) if train.primal.bias else np.zeros(f.shape[1])
    xi = np.maximum(abs(y - f - b) - epsilon, 0)
    feasibility = max(0.0, abs(delta).max() - C, abs(delta.sum(axis=0)).max() if train.primal.bias else 0.0) / (
        C or 1.0
    )
    P = square / 2 + C * xi.sum()
    D = -np.inf
    if feasibility <= ROUNDING:
        # The dual value is that of the nearest feasible delta + e: |W|^2 grows by 2 e.f and at most (sum |e| |z|)^2.
        length = np.exp(train.log_lengths(train.keys)[:, None] - log_h + log_scale / 2)
        e = C * feasible(delta / (C or 1.0), train.primal.bias, length[:, 0] ** 2) - delta
        longer = 2 * (e * f).sum() + ((abs(e) * length).sum(axis=0) ** 2).sum()
        D = -(square + longer) / 2 - epsilon * abs(delta + e).sum() + (y * (delta + e)).sum()
    size = C * abs(y).sum()
    shares = C * xi + epsilon * abs(delta) - (y - f - b) * delta
    largest = max(abs(P), 0.01 * size) or 1.0
    return Certificate(
        targets=y,
        log_C=float(log_scale + np.log(C)) if C else -np.inf,
        log_scale=float(log_scale),
        primal_value=float(P),
        dual_value=float(D),
        relative_gap=float(relative_gap(P, D, size)) if np.isfinite(D) else np.inf,
        stationarity=float(abs(f - sums * np.exp(top - log_h) * sign).max() / (abs(f).max() or 1.0)),
        feasibility=float(feasibility),
        complementarity=float(shares.max() / largest),
        query=query,
        bias=b,
        _training_set=train,
    )
