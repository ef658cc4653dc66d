"""Sparse supports: a strided one splits into a problem a remainder, and a window into one a block of queries.

Each split turns a problem into one with a new batch axis before the tokens, whose queries see fewer keys; the matching
join puts the outputs back in order.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F

from primal_dual.kernels import Exponential
from primal_dual.supports import Everything, Strided, Window
from primal_dual.types import Bool, Float
from torch_impl.blocks import join_blocks, split_into_blocks
from torch_impl.fast.problem import Problem
from torch_impl.fast.visibility import Visibility
from torch_impl.registry import torch_version
from torch_impl.transforms import add_token_axis

SHORTEST_BLOCK = 32  # queries


def splits_by_remainder(problem: Problem) -> bool:
    """Whether the support is strided, and nothing else tells keys of the same remainder apart."""
    visibility = problem.visibility
    return isinstance(visibility.support, Strided) and problem.scale == 1 and visibility.by_position


def split_by_remainder(problem: Problem) -> Problem:
    """Tokens whose positions have the same remainder see each other and no others: the remainder is a batch axis.

    A query sees every key of its remainder, so that each has one training set, and BatchNorm one pair of statistics.
    """
    visibility = problem.visibility
    assert isinstance(visibility.support, Strided)
    stride = visibility.support.stride
    valid = visibility.valid
    if valid is None:
        valid = torch.ones_like(problem.k[..., 0], dtype=torch.bool)
    weight = visibility.log_weight
    return replace(
        problem,
        transforms=add_token_axis(problem.transforms),
        q=_group_by_remainder(problem.q, stride),
        k=_group_by_remainder(problem.k, stride),
        v=_group_by_remainder(problem.v, stride),
        visibility=Visibility(
            support=Everything(),
            causal=visibility.causal,
            valid=_group_by_remainder(valid[..., None], stride)[..., 0],
            allowed=None,
            log_weight=None if weight is None else _group_by_remainder(weight.mT, stride).mT,
        ),
    )


def join_remainders(f: Float[torch.Tensor, "... stride m Dv"], queries: int) -> Float[torch.Tensor, "... {queries} Dv"]:
    """The outputs of `split_by_remainder` in the order of their positions."""
    return join_blocks(f.transpose(-3, -2), queries)


def _group_by_remainder(
    x: Float[torch.Tensor, "... N F"] | Bool[torch.Tensor, "... N F"], stride: int
) -> Float[torch.Tensor, "... {stride} n F"] | Bool[torch.Tensor, "... {stride} n F"]:
    """The tokens 0, stride, 2 stride, ...; then 1, stride + 1, ...; and so on."""
    return split_into_blocks(x, stride).transpose(-3, -2)


def splits_into_windows(problem: Problem) -> bool:
    """Whether the support is a window that is narrower than the sequence, and causality alone cuts it."""
    support = problem.visibility.support
    if not isinstance(support, Window) or not problem.visibility.by_position:
        return False
    return 2 * support.radius < max(problem.queries, problem.keys)


def split_into_windows(problem: Problem) -> Problem:
    """Blocks of queries, each against the keys of its own block and `radius` more on either side.

    Blocks of twice the radius were fastest: half of the keys that a block reads are then visible to a query.
    """
    visibility = problem.visibility
    assert isinstance(visibility.support, Window)
    radius = visibility.support.radius
    size = max(2 * radius, SHORTEST_BLOCK)
    last_key = min(problem.keys, problem.queries + radius)  # that a query sees, where there are more keys than queries
    count = (max(problem.queries, last_key) + size - 1) // size

    def around(x: torch.Tensor) -> torch.Tensor:
        return _with_neighbours(split_into_blocks(x, size, count), radius)

    exists = _exists(problem.keys, size, count, radius, problem.q.device)
    keys = around(problem.k)
    if not isinstance(problem.kernel, Exponential):  # others would lose digits to tokens of another size
        keys = torch.where(exists.mT, keys, keys[..., radius : radius + 1, :])
    visible = _sees_in_block(visibility, size, radius, problem.q.device) & exists
    if visibility.valid is not None:
        visible = visible & around(visibility.valid[..., None]).mT
    weight = None if visibility.log_weight is None else around(visibility.log_weight.mT).mT
    return replace(
        problem,
        q=split_into_blocks(problem.q, size, count),
        k=keys,
        v=around(problem.v),
        visibility=Visibility(Everything(), causal=False, valid=None, allowed=visible, log_weight=weight),
    )


def _with_neighbours(
    blocks: Float[torch.Tensor, "... count size F"] | Bool[torch.Tensor, "... count size F"], radius: int
) -> Float[torch.Tensor, "... count width F"] | Bool[torch.Tensor, "... count width F"]:
    """Each block with the last `radius` tokens of the one before it and the first of the one after it."""
    before = F.pad(blocks[..., blocks.shape[-2] - radius :, :], (0, 0, 0, 0, 1, 0))[..., :-1, :, :]
    after = F.pad(blocks[..., :radius, :], (0, 0, 0, 0, 0, 1))[..., 1:, :, :]
    return torch.cat([before, blocks, after], -2)


def _sees_in_block(
    visibility: Visibility, size: int, radius: int, device: torch.device
) -> Bool[torch.Tensor, "{size} width"]:
    """Which query of a block sees which key around it: the same in every block, as positions differ by a constant."""
    i = torch.arange(size, device=device)[:, None]
    j = torch.arange(-radius, size + radius, device=device)
    visible = torch_version(visibility.support)(visibility.support, i, j)
    return visible & (j <= i) if visibility.causal else visible


def _exists(
    keys: int, size: int, count: int, radius: int, device: torch.device
) -> Bool[torch.Tensor, "{count} 1 width"]:
    """True where the sequence has a key: not so beyond its ends, where blocks are filled up."""
    start = size * torch.arange(count, device=device)[:, None, None]
    position = start + torch.arange(-radius, size + radius, device=device)
    return (position >= 0) & (position < keys)
