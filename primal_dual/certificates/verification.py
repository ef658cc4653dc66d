"""Verify on given keys and targets that primal, dual and attention of a declared primal are one function."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from primal_dual.certificates.certificate import Certificate, certify
from primal_dual.expansion import attention
from primal_dual.primal import Heads, Primal
from primal_dual.supports import svr_queries
from primal_dual.svr.optimality import SUPPORT_VECTOR, relative_gap
from primal_dual.svr.solve import solve_dual, solve_primal
from primal_dual.svr.training_sets import pooled_rows, training_set
from primal_dual.types import Array, Float

LARGEST_GAP, LARGEST_DIFFERENCE = 1e-10, 1e-7  # what passes


@dataclass(frozen=True)
class Verified:
    """One SVR of a catalog entry, or the worst of several.

    Attributes
    ----------
    name : str
        The catalog entry.
    keys, dimension : int
        N and D.
    primal_value, dual_value : float
        The values at the two optima.
    relative_gap : float
        The largest of those of `solve_primal`, of `solve_dual`, and between the two.
    difference : float
        The largest |f_primal - attention| at the keys, relative to the largest |f| or target.
    support_vectors : float
        The fraction of all delta_jd with |delta_jd| > 1e-6 C.
    error_bound : float
        The certificate's largest at the keys, in units of the targets.
    query, head : int or None
        Whose SVR, if there are several. A query's SVR is compared at the key in its own position only.
    svrs : int
        How many there are.
    passed : bool
        Whether all of them are within the limits.
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


def list_svrs(
    primal: Primal | Heads, keys: Float[Array, "N D"]
) -> list[tuple[int | None, Primal, Float[Array, "N d"], int | None]]:
    """The SVRs of a declared primal as (head, primal, keys, query): one for each head, and each query of a support.

    Each head gets an equal block of the keys' features, the last one filled up with zeros.
    """
    if isinstance(primal, Heads):
        H = len(primal)
        padded = np.pad(keys, ((0, 0), (0, -keys.shape[1] % H)))
        blocks = np.split(padded, H, axis=1)
        return [(s, *rest) for s in range(H) for _, *rest in list_svrs(primal.primals[s], blocks[s])]
    return [(None, primal, keys, query) for query in svr_queries(primal.support, len(keys))]


def verify(
    name: str,
    primal: Primal | Heads,
    keys: Float[Array, "N D"],
    targets: Float[Array, "N Dv"],
    *,
    C: float = 10.0,
    epsilon: float = 0.1,
    solver: str = "CLARABEL",
    advance: Callable[[], object] = lambda: None,
) -> Verified:
    """Solve every SVR of a primal, and return what was found of the worst.

    Parameters
    ----------
    name : str
        The catalog entry.
    primal : Primal or Heads
        What is declared.
    keys, targets : arrays
        The training set.
    C : float
        The penalty, in multiples of the median of |h(k_j)|.
    epsilon : float
        The half-width of the tube, in units of the targets.
    solver : str
        A cvxpy solver that is installed.
    advance : function
        Called after each SVR.

    Raises
    ------
    ValueError
        For what the solvers refuse.
    """
    every = []
    for head, part, part_keys, query in list_svrs(primal, keys):
        every.append(_verify_one(name, part, part_keys, targets, head, query, C, epsilon, solver))
        advance()
    worst = max(every, key=lambda one: max(abs(one.relative_gap) / LARGEST_GAP, one.difference / LARGEST_DIFFERENCE))
    return replace(worst, svrs=len(every), passed=all(one.passed for one in every))


def _verify_one(
    name: str,
    primal: Primal,
    keys: Float[Array, "N D"],
    targets: Float[Array, "N Dv"],
    head: int | None,
    query: int | None,
    C: float,
    epsilon: float,
    solver: str,
) -> Verified:
    train = training_set(primal, keys, query)
    C = train.penalty(C)
    problem: dict[str, Any] = dict(C=C, epsilon=epsilon, query=query)
    weights = solve_primal(primal, keys, targets, **problem, solver=solver)
    dual = solve_dual(primal, keys, targets, **problem, solver=solver)
    certificate = certify(primal, keys, dual.values, targets=targets, **problem)
    assert isinstance(certificate, Certificate)
    rows = slice(None) if query is None else [query]
    f = (attention(primal, keys, keys, dual.values) + dual.bias)[rows]
    size = C * abs(pooled_rows("targets", targets, train)).sum()
    gaps = relative_gap(weights.value, dual.value, size), weights.relative_gap, dual.relative_gap
    gap = max(gaps, key=abs)
    difference = float(abs(weights.predict(keys)[rows] - f).max() / (max(abs(f).max(), abs(targets).max()) or 1.0))
    return Verified(
        name=name,
        keys=len(keys),
        dimension=keys.shape[1],
        primal_value=weights.value,
        dual_value=dual.value,
        relative_gap=gap,
        difference=difference,
        support_vectors=float((dual.alpha + dual.alpha_tilde > SUPPORT_VECTOR * C).mean()),
        error_bound=float(certificate.error_bound(keys)[rows].max()),
        query=query,
        head=head,
        svrs=1,
        passed=abs(gap) <= LARGEST_GAP and difference <= LARGEST_DIFFERENCE,
    )
