"""Verify on given keys and targets that primal, dual and attention of a declared primal are one function."""

from dataclasses import dataclass

import numpy as np

from primal_dual.expansion import attention
from primal_dual.primal import Heads
from primal_dual.supports import svr_queries
from primal_dual.svr.certificate import certify
from primal_dual.svr.optimality import relative_gap
from primal_dual.svr.solve import solve_dual, solve_primal
from primal_dual.svr.training_sets import pooled_rows, training_set

GAP, DIFFERENCE = 1e-10, 1e-7  # what passes


@dataclass(frozen=True)
class Verified:
    """One SVR of a catalog entry, or the worst of several.

    relative_gap: the largest of those of `solve_primal`, of `solve_dual`, and between the two. difference: the largest
    |f_primal - attention| at the keys, relative to the largest |f| or target. support_vectors: the share of all
    delta_jd with |delta_jd| > 1e-6 C. error_bound: the certificate's largest at the keys, in units of the targets.
    query, head: whose SVR, if there are several; a query's is judged at the key in its own place. svrs: how many.
    """

    name: str
    keys: int
    dimension: int
    primal_value: float
    dual_value: float
    relative_gap: float
    difference: float
    support_vectors: float
    error_bound: float
    query: int | None
    head: int | None
    svrs: int
    passed: bool


def svrs(primal, keys):
    """The SVRs of a declared primal as (head, primal, keys, query): one for each head, and each query of a support.

    The features of the keys are dealt to the heads in turn, with zeros for features where they do not come out even.
    """
    if isinstance(primal, Heads):
        H = len(primal)
        padded = np.pad(keys, ((0, 0), (0, -keys.shape[1] % H)))
        split = np.split(padded, H, axis=1)
        return [(s, *rest) for s in range(H) for _, *rest in svrs(primal.primals[s], split[s])]
    return [(None, primal, keys, query) for query in svr_queries(primal.support, len(keys))]


def verify(name, primal, keys, targets, *, C=10.0, epsilon=0.1, solver="CLARABEL", advance=lambda: None):
    """Solve every SVR of a primal on keys (N, D) and targets (N, Dv) -> the worst one's Verified.

    C: in multiples of the median of |h(k_j)|; epsilon in units of the targets; advance(): called after each SVR.
    Raises ValueError for what the solvers refuse.
    """
    every = []
    for head, part, part_keys, query in svrs(primal, keys):
        every.append(_verified(name, part, part_keys, targets, head, query, C, epsilon, solver))
        advance()
    worst = max(every, key=lambda row: max(abs(row["relative_gap"]) / GAP, row["difference"] / DIFFERENCE))
    passed = all(abs(row["relative_gap"]) <= GAP and row["difference"] <= DIFFERENCE for row in every)
    return Verified(**worst, svrs=len(every), passed=passed)


def _verified(name, primal, keys, targets, head, query, C, epsilon, solver):
    train = training_set(primal, keys, query)
    C = train.penalty(C)
    problem = dict(C=C, epsilon=epsilon, query=query)
    weights = solve_primal(primal, keys, targets, **problem, solver=solver)
    dual = solve_dual(primal, keys, targets, **problem, solver=solver)
    certificate = certify(primal, keys, dual.values, targets=targets, **problem)
    rows = slice(None) if query is None else [query]
    f = (attention(primal, keys, keys, dual.values) + dual.bias)[rows]
    size = C * abs(pooled_rows("targets", targets, train)).sum()
    gaps = relative_gap(weights.value, dual.value, size), weights.relative_gap, dual.relative_gap
    return dict(
        name=name,
        keys=len(keys),
        dimension=keys.shape[1],
        primal_value=weights.value,
        dual_value=dual.value,
        relative_gap=max(gaps, key=abs),
        difference=float(abs(weights.predict(keys)[rows] - f).max() / (max(abs(f).max(), abs(targets).max()) or 1.0)),
        support_vectors=float((dual.alpha + dual.alpha_tilde > 1e-6 * C).mean()),
        error_bound=float(certificate.error_bound(keys)[rows].max()),
        query=query,
        head=head,
    )
