"""The definition of the expansion, a block of queries at a time, so that memory grows with N and not with N^2."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from primal_dual.kernels import Exponential
from primal_dual.types import Bool, Float
from torch_impl import key_statistics
from torch_impl.blocks import split_into_blocks
from torch_impl.fast.problem import Problem
from torch_impl.fast.visibility import pool, pool_weights
from torch_impl.registry import torch_version
from torch_impl.transforms import add_token_axis, fit

LARGEST_BLOCK = 2**24  # numbers in the largest tensor of a block of queries


def by_definition(problem: Problem) -> Float[torch.Tensor, "... M Dv"]:
    """The expansion of a problem without pools and transforms: all queries choose from the same training points."""
    q, k, v, visibility = problem.q, problem.k, problem.v, problem.visibility
    columns = slice(0, problem.keys)

    def block(rows: slice) -> torch.Tensor:
        visible = visibility.visible(rows, columns, q.device)
        return _expansion(problem, q[..., rows, :], k, v, visible, visibility.weight(rows, columns))

    return _in_blocks(block, problem.queries, problem.keys * problem.batch)


def by_own_pools(problem: Problem) -> Float[torch.Tensor, "... M Dv"]:
    """Softmax attention of queries of which each has pools of its own, of the keys that it sees.

    The logit of a pool is that of its mean key, q.(sum_j p_j k_j) = sum_j p_j (q.k_j), with the weights p_j of the
    pool's members: so the logits of single keys are averaged, and no query needs a copy of the keys. For the same
    reason a pool's weight w is spread over the values of its members, w p_j.
    """
    kernel, visibility, scale, keys = problem.kernel, problem.visibility, problem.scale, problem.keys
    assert isinstance(kernel, Exponential)
    v, dropout_p = problem.v, problem.dropout_p
    slope = problem.q.shape[-1] ** -0.5 if kernel.scale is None else kernel.scale
    precise = torch.promote_types(v.dtype, torch.float32)
    q, k = (problem.q * slope).to(precise), problem.k.to(precise)

    def block(rows: slice) -> torch.Tensor:
        columns = visibility.span(rows, keys, scale)
        visible = visibility.visible(rows, columns, q.device)
        assert visible is not None  # else the pools would be the same for all
        members, has_key = pool_weights(visible, scale, q.dtype)
        logits = q[..., rows, :] @ k[..., columns, :].mT
        log_weight = visibility.weight(rows, columns)
        logits = logits if log_weight is None else logits + log_weight
        logits_in_pools = split_into_blocks(logits[..., None], scale)[..., 0]
        logits = (logits_in_pools * members).sum(-1).masked_fill(~has_key, float("-inf"))
        w = _exp_of_difference(logits, largest=logits.detach().amax(-1, keepdim=True))
        w = F.dropout(w / w.sum(-1, keepdim=True).clamp_min(1), dropout_p)
        w_of_each_key = (w[..., None] * members).flatten(-2)[..., : columns.stop - columns.start]
        return w_of_each_key.to(v.dtype) @ v[..., columns, :]

    return _in_blocks(block, problem.queries, keys * problem.batch)


def by_own_training_sets(problem: Problem) -> Float[torch.Tensor, "... M Dv"]:
    """The expansion of queries of which each has pools and a T of its own: each is a batch of one query."""
    q, k, v, visibility, scale = problem.q, problem.k, problem.v, problem.visibility, problem.scale
    transforms = add_token_axis(problem.transforms)

    def block(rows: slice) -> torch.Tensor:
        columns = visibility.span(rows, problem.keys, scale)
        members = visibility.visible(rows, columns, q.device)
        keys, has_key = pool(k[..., None, columns, :], members, scale)
        values, _ = pool(v[..., None, columns, :], members, scale)
        log_weight = visibility.weight(rows, columns)
        if log_weight is not None:
            log_weight = pool(log_weight[..., None], members, scale)[0].mT
        assert has_key is not None  # else the training sets would be the same for all
        apply, keys = fit(transforms, replace_padding(keys, has_key), has_key)
        x = apply(q[..., rows, None, :])
        return _expansion(problem, x, keys, values, has_key[..., None, :], log_weight)[..., 0, :]

    numbers_a_query = problem.keys * (q.shape[-1] + v.shape[-1]) * problem.batch
    return _in_blocks(block, problem.queries, numbers_a_query)


def replace_padding(
    k: Float[torch.Tensor, "... N D"], valid: Bool[torch.Tensor, "... N"]
) -> Float[torch.Tensor, "... N D"]:
    """Keys that are not valid become copies of the first valid one, so that no key loses digits beside their size."""
    return torch.where(valid[..., None], k, key_statistics.first_key(k, valid))


def _expansion(
    problem: Problem,
    x: Float[torch.Tensor, "... m D"],
    keys: Float[torch.Tensor, "... n D"],
    values: Float[torch.Tensor, "... n Dv"],
    visible: Bool[torch.Tensor, "... #m n"] | None,
    log_weight: Float[torch.Tensor, "... #m n"] | None,
) -> Float[torch.Tensor, "... m Dv"]:
    """sum_j v_j <Phi(x), Phi(k_j)> / h(x) by the kernel matrix, in float32 or better; x and keys are transformed."""
    precise = torch.promote_types(values.dtype, torch.float32)
    w = _kernel_matrix(problem, x.to(precise), keys.to(precise), visible, log_weight)
    if problem.normalizer == "sum":
        h = w.sum(-1, keepdim=True)
        w = w / torch.where(h == 0, 1, h)
    return (F.dropout(w, problem.dropout_p) @ values.to(precise)).to(values.dtype)


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
    block: Callable[[slice], torch.Tensor], queries: int, numbers_a_query: int
) -> Float[torch.Tensor, "... {queries} Dv"]:
    """block(rows) for slices of the queries; what a block would keep for its gradient is computed again instead."""
    size = max(1, LARGEST_BLOCK // max(1, numbers_a_query))
    if size >= queries or torch.compiler.is_exporting():
        return block(slice(0, queries))
    slices = [slice(i, min(i + size, queries)) for i in range(0, queries, size)]
    return torch.cat([checkpoint(block, rows, use_reentrant=False) for rows in slices], -2)
