"""Masks of the libraries whose attention is replaced."""

import torch

from primal_dual.types import Bool, Float


def valid_queries(
    mask: Bool[torch.Tensor, "..."] | Float[torch.Tensor, "..."] | None,
) -> Bool[torch.Tensor, "B N"] | None:
    """The valid queries of a self-attention: where a key mask (B, 1, 1, N) hides keys, it hides the same queries.

    None for a mask of another shape, which says nothing about queries. Booleans are True for a valid token; a float of
    -inf hides one.

    Examples
    --------
    >>> valid_queries(torch.tensor([[[[True, False]]]])).tolist()
    [[True, False]]
    """
    if mask is None or mask.ndim != 4 or mask.shape[-2] != 1:
        return None
    row = mask[:, 0, 0]
    return row if row.dtype == torch.bool else row > float("-inf")
