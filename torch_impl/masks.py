"""The numbers by which the masks of models hide keys."""

import torch

from primal_dual.primal import Heads, Primal
from primal_dual.transforms import independent_of_keys, split_convolutions
from primal_dual.types import Bool, Float

HIDDEN = -88  # models hide by -100, by -10,000, or by the smallest float; exp(-88) is no normal float of 32 bits


def with_infinity(mask: Float[torch.Tensor, "..."]) -> Float[torch.Tensor, "..."]:
    """A mask of floats with -inf for its numbers below -88."""
    return mask.masked_fill(mask < HIDDEN, float("-inf"))


def hide_low_numbers(
    mask: Bool[torch.Tensor, "..."] | Float[torch.Tensor, "..."], primals: Heads
) -> Bool[torch.Tensor, "..."] | Float[torch.Tensor, "..."]:
    """A mask with -inf for numbers below -88, where a primal takes means of keys, which are those of visible ones.

    For other primals, the numbers are added to the logits as they are.

    Examples
    --------
    >>> from primal_dual import heads
    >>> mask = torch.tensor([0.5, -1e9])
    >>> hide_low_numbers(mask, heads("bn", 1)).tolist(), hide_low_numbers(mask, heads("softmax", 1)).tolist()
    ([0.5, -inf], [0.5, -1000000000.0])
    """
    if mask.dtype == torch.bool or not any(map(_takes_means, primals)):
        return mask
    return with_infinity(mask)


def _takes_means(primal: Primal) -> bool:
    """Of keys or of tokens: statistics, pools or convolutions."""
    convolutions, others = split_convolutions(primal.transform)
    return primal.scale > 1 or bool(convolutions) or not independent_of_keys(others)
