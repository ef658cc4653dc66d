"""Tokens in blocks of one size."""

import torch
import torch.nn.functional as F

from primal_dual.types import Bool, Float


def split_into_blocks(
    x: Float[torch.Tensor, "... N F"] | Bool[torch.Tensor, "... N F"], size: int, count: int | None = None
) -> Float[torch.Tensor, "... n {size} F"] | Bool[torch.Tensor, "... n {size} F"]:
    """Split the tokens of x into n blocks of `size` neighbours.

    Parameters
    ----------
    x : tensor
        A row a token.
    size : int
        Tokens in a block.
    count : int, optional
        n, the number of blocks: tokens beyond them are cut off, and missing ones are zero. Without it there are as many
        blocks as N tokens need.

    Examples
    --------
    >>> split_into_blocks(torch.tensor([[1.0], [2.0], [3.0]]), 2)[..., 0].tolist()
    [[1.0, 2.0], [3.0, 0.0]]
    """
    tokens = x.shape[-2]
    count = (tokens + size - 1) // size if count is None else count
    if torch.compiler.is_exporting():  # where padding would fix the length
        token = torch.arange(count * size, device=x.device)
        x = x.index_select(-2, token.clamp_max(tokens - 1)) * (token < tokens)[:, None]
    elif count * size != tokens:
        x = F.pad(x, (0, 0, 0, count * size - tokens))
    return x.unflatten(-2, (count, size))


def split_row_into_blocks(
    x: Float[torch.Tensor, "... N"] | Bool[torch.Tensor, "... N"], size: int, count: int | None = None
) -> Float[torch.Tensor, "... n {size}"] | Bool[torch.Tensor, "... n {size}"]:
    """The same for one number, or one boolean, a token."""
    return split_into_blocks(x[..., None], size, count)[..., 0]


def join_blocks(blocks: Float[torch.Tensor, "... n size F"], tokens: int) -> Float[torch.Tensor, "... {tokens} F"]:
    """The first tokens of all blocks, one after the other: `split_into_blocks` undone."""
    return blocks.flatten(-3, -2)[..., :tokens, :]
