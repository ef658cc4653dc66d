"""The definition of the expansion, a block of queries at a time, so that memory grows with N and not with N^2."""

import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from primal_dual.kernels import Exponential
from primal_dual.types import Bool, Float
from torch_impl import key_statistics
from torch_impl.blocks import split_row_into_blocks
from torch_impl.fast.pools import pool, pool_weights
from torch_impl.fast.problem import Problem
from torch_impl.registry import torch_version
from torch_impl.transforms import add_token_axis, fit

LARGEST_BLOCK = 2**24  # numbers in the largest tensor of a block of queries
Weights = Callable[[Problem, slice], tuple[Float[torch.Tensor, "... m n"], slice]]


def expansion_by(weights: Weights, problem: Problem) -> Float[torch.Tensor, "... M Dv"]:
    """sum_j w_ij v_j by one of the ways to weights below."""

    def block(rows: slice) -> torch.Tensor:
        w, columns = weights(problem, rows)
        return (w @ problem.v[..., columns, :].to(w.dtype)).to(problem.v.dtype)

    return _in_blocks(block, problem, weights)


def weights_by(weights: Weights, problem: Problem) -> Float[torch.Tensor, "... M N"]:
    """All w_ij by one of the ways to weights below."""

    def block(rows: slice) -> torch.Tensor:
        w, columns = weights(problem, rows)
        return F.pad(w, (columns.start, problem.keys - columns.stop)).to(problem.v.dtype)

    return _in_blocks(block, problem, weights)


def definition(problem: Problem, rows: slice) -> tuple[Float[torch.Tensor, "... m n"], slice]:
    """<Phi(x_i), Phi(k_j)> / h(x_i), of a problem without pools and transforms, for the queries in `rows`."""
    columns = slice(0, problem.keys)
    visible = problem.visibility.visible(rows, columns, problem.q.device)
    log_weight = problem.visibility.weight(rows, columns)
    return _weights(problem, problem.q[..., rows, :], problem.k, visible, log_weight), columns


def own_pools(problem: Problem, rows: slice) -> tuple[Float[torch.Tensor, "... m n"], slice]:
    """The weights of a softmax over pools, spread over their keys, for the queries in `rows`, and a slice of the keys.

    The logit of a pool is that of its mean key, q.(sum_j p_j k_j) = sum_j p_j (q.k_j), with the weights p_j of the
    pool's members: so the logits of single keys are averaged, and no query needs a copy of the keys.
    """
    kernel, visibility, scale = problem.kernel, problem.visibility, problem.scale
    assert isinstance(kernel, Exponential)
    slope = kernel.slope(problem.q.shape[-1])
    columns, precise = visibility.span(rows, problem.keys, scale), problem.precise
    visible = visibility.visible(rows, columns, problem.q.device)
    assert visible is not None  # else the pools would be the same for all
    logits = (problem.q[..., rows, :] * slope).to(precise) @ problem.k[..., columns, :].to(precise).mT
    log_weight = visibility.weight(rows, columns)
    logits = logits if log_weight is None else logits + log_weight
    members, has_key = pool_weights(visible, scale, precise)
    logits_in_pools = split_row_into_blocks(logits, scale)
    logits = (logits_in_pools * members).sum(-1).masked_fill(~has_key, float("-inf"))
    w = _exp_of_difference(logits, largest=logits.detach().amax(-1, keepdim=True))
    w = F.dropout(w / w.sum(-1, keepdim=True).clamp_min(1), problem.dropout_p)
    return _spread(w, members, columns), columns


def own_training_sets(problem: Problem, rows: slice) -> tuple[Float[torch.Tensor, "... m n"], slice]:
    """The weights of queries in `rows`, of which each has pools and a T of its own, spread over keys; their slice."""
    q, k, visibility, scale = problem.q, problem.k, problem.visibility, problem.scale
    columns = visibility.span(rows, problem.keys, scale)
    visible = visibility.visible(rows, columns, q.device)
    assert visible is not None  # else the training sets would be the same for all
    keys, has_key = pool(k[..., None, columns, :], visible, scale)
    log_weight = visibility.weight(rows, columns)
    if log_weight is not None:
        log_weight = pool(log_weight[..., None], visible, scale)[0].mT
    assert has_key is not None
    apply, keys = fit(add_token_axis(problem.transforms), replace_padding(keys, has_key), has_key)
    x = apply(q[..., rows, None, :])
    w = _weights(problem, x, keys, has_key[..., None, :], log_weight)[..., 0, :]
    return (w if scale == 1 else _spread(w, pool_weights(visible, scale, w.dtype)[0], columns)), columns


def spread_over_pools(w: Float[torch.Tensor, "... M n"], problem: Problem) -> Float[torch.Tensor, "... M N"]:
    """The weights of the pools that all queries of a problem share, spread over its keys."""
    valid = problem.visibility.valid
    if valid is None:
        valid = torch.ones(problem.keys, dtype=torch.bool, device=w.device)
    members, _ = pool_weights(valid, problem.scale, w.dtype)
    return _spread(w, members[..., None, :, :], slice(0, problem.keys))


def replace_padding(
    k: Float[torch.Tensor, "... N D"], valid: Bool[torch.Tensor, "... N"]
) -> Float[torch.Tensor, "... N D"]:
    """Keys that are not valid become copies of the first valid one, so that no key loses digits beside their size."""
    return torch.where(valid[..., None], k, key_statistics.first_key(k, valid))


def _weights(
    problem: Problem,
    x: Float[torch.Tensor, "... m D"],
    keys: Float[torch.Tensor, "... n D"],
    visible: Bool[torch.Tensor, "... #m n"] | None,
    log_weight: Float[torch.Tensor, "... #m n"] | None,
) -> Float[torch.Tensor, "... m n"]:
    """<Phi(x), Phi(k_j)> / h(x), in float32 or better and with dropout; x and keys are transformed."""
    w = _kernel_matrix(problem, x.to(problem.precise), keys.to(problem.precise), visible, log_weight)
    if problem.normalizer == "sum":
        h = w.sum(-1, keepdim=True)
        w = w / torch.where(h == 0, 1, h)
    return F.dropout(w, problem.dropout_p)


def _spread(
    w: Float[torch.Tensor, "... m n"], members: Float[torch.Tensor, "... #m n scale"], columns: slice
) -> Float[torch.Tensor, "... m keys"]:
    """The weight w of each pool, spread over its members: sum_g w_g (sum_j p_j v_j) = sum_j (w_g p_j) v_j."""
    return (w[..., None] * members).flatten(-2)[..., : columns.stop - columns.start]


def _kernel_matrix(
    problem: Problem,
    x: Float[torch.Tensor, "... m D"],
    keys: Float[torch.Tensor, "... n D"],
    visible: Bool[torch.Tensor, "... #m n"] | None,
    log_weight: Float[torch.Tensor, "... #m n"] | None,
) -> Float[torch.Tensor, "... m n"]:
    """<Phi(x_i), Phi(k_j)> exp(log_weight), zero where the key is hidden.

    Where h divides them, the rows of a positive kernel are in units of their largest entry: the unit cancels.
    """
    gram = torch_version(problem.kernel)(problem.kernel, x, keys)
    if hasattr(problem.kernel, "log_gram"):
        logits = gram if log_weight is None else gram + log_weight
        logits = logits if visible is None else logits.masked_fill(~visible, float("-inf"))
        largest = logits.detach().amax(-1, keepdim=True)
        return _exp_of_difference(logits, largest if problem.normalizer == "sum" else torch.zeros_like(largest))
    w = gram if log_weight is None else gram * log_weight.exp()
    return w if visible is None else w.masked_fill(~visible, 0)


def _exp_of_difference(
    logits: Float[torch.Tensor, "... m n"], largest: Float[torch.Tensor, "... m 1"]
) -> Float[torch.Tensor, "... m n"]:
    """exp(logits - largest), zero in a row in which all are -inf."""
    return (logits - torch.where(largest > float("-inf"), largest, 0)).exp()


def _in_blocks(
    block: Callable[[slice], torch.Tensor], problem: Problem, weights: Weights
) -> Float[torch.Tensor, "... M F"]:
    """block(rows) for slices of the queries; what a block would keep for its gradient is computed again instead."""
    queries = problem.queries
    if torch.compiler.is_exporting():  # an exported graph may not ask for sizes
        return block(slice(0, queries))
    numbers_a_query = problem.keys * problem.batch * (problem.q.shape[-1] if weights is own_training_sets else 1)
    size = max(1, LARGEST_BLOCK // max(1, numbers_a_query))
    if size >= queries:
        return block(slice(0, queries))
    if weights is own_training_sets and problem.visibility.allowed is not None and not torch.compiler.is_compiling():
        cost = f"copies of {problem.keys} keys for each of {queries} queries"
        warnings.warn(f"attn_mask: under this table, transforms and pools need {cost}, which is slow", stacklevel=2)
    slices = [slice(i, min(i + size, queries)) for i in range(0, queries, size)]

    def block_beside(rows: slice, q: torch.Tensor) -> torch.Tensor:  # whose device tells which random state to keep
        return block(rows)

    return torch.cat([checkpoint(block_beside, rows, problem.q, use_reentrant=False) for rows in slices], -2)
