"""Left padding, where positions count from the first valid token: tokens turn until that token comes first."""

import torch

from primal_dual.types import Bool, Int


def turn(valid: Bool[torch.Tensor, "B N"]) -> tuple[Int[torch.Tensor, "B N"], Int[torch.Tensor, "B N"]]:
    """The numbers of the tokens once the first valid one has come first, and those that undo it.

    Examples
    --------
    >>> [each.tolist() for each in turn(torch.tensor([[False, True, True]]))]
    [[[1, 2, 0]], [[2, 0, 1]]]
    """
    first, N = valid.int().argmax(-1, keepdim=True), valid.shape[-1]
    position = torch.arange(N, device=valid.device)
    return (position + first) % N, (position - first) % N


def take_rows(x: torch.Tensor, numbers: Int[torch.Tensor, "B N"]) -> torch.Tensor:
    """The tokens of x (B, heads, N, F), by their numbers.

    Examples
    --------
    >>> take_rows(torch.tensor([[[[1.0], [2.0]]]]), torch.tensor([[1, 0]])).tolist()
    [[[[2.0], [1.0]]]]
    """
    return torch.take_along_dim(x, numbers[:, None, :, None], 2)


def take_columns(x: torch.Tensor, numbers: Int[torch.Tensor, "B N"]) -> torch.Tensor:
    """The columns of x (B, heads, M, N), by their numbers.

    Examples
    --------
    >>> take_columns(torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([[1, 0]])).tolist()
    [[[[2.0, 1.0]]]]
    """
    return torch.take_along_dim(x, numbers[:, None, None, :], 3)
