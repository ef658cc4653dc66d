"""Pools: averages of neighbouring tokens, those that a query's training set has of them."""

import torch

from primal_dual.types import Bool, Float
from torch_impl.blocks import split_into_blocks, split_row_into_blocks


def pool(
    x: Float[torch.Tensor, "... N F"], members: Bool[torch.Tensor, "... N"] | None, scale: int
) -> tuple[Float[torch.Tensor, "... n F"], Bool[torch.Tensor, "... n"] | None]:
    """Average the members of each group of `scale` neighbours; the last group may be short.

    Parameters
    ----------
    x : tensor
        A row a token.
    members : tensor of booleans, optional
        Which tokens count; None if all do.
    scale : int
        Tokens in a group.

    Returns
    -------
    tuple
        The averages, zero where a group has no member, and which groups have one, or None if all have.

    Examples
    --------
    >>> pool(torch.tensor([[1.0], [3.0], [5.0]]), None, scale=2)[0].tolist()
    [[2.0], [5.0]]
    """
    if scale == 1:
        return x, members
    groups = split_into_blocks(x, scale)
    if members is None:
        count = x.shape[-2] - scale * torch.arange(groups.shape[-3], device=x.device)[:, None]
        precise = torch.promote_types(x.dtype, torch.float32)
        return (groups.sum(-2, dtype=precise) / count.clamp_max(scale)).to(x.dtype), None
    weights, has_member = pool_weights(members, scale, x.dtype)
    return (weights[..., None, :] @ groups)[..., 0, :], has_member


def pool_weights(
    members: Bool[torch.Tensor, "... N"], scale: int, dtype: torch.dtype
) -> tuple[Float[torch.Tensor, "... n {scale}"], Bool[torch.Tensor, "... n"]]:
    """The weight of each token in the mean of its group, and which groups have a member.

    Examples
    --------
    >>> pool_weights(torch.tensor([True, True, False]), 2, torch.float32)[0].tolist()
    [[0.5, 0.5], [0.0, 0.0]]
    """
    in_groups = split_row_into_blocks(members, scale)
    count = in_groups.sum(-1, keepdim=True)
    return in_groups.to(dtype) / count.clamp_min(1), count[..., 0] > 0
