"""Supports: the torch versions of those in primal_dual. Which key trains the SVR of which query, by position."""

from functools import lru_cache

import torch

from primal_dual.supports import Causal, Everything, Mask, Strided, Window
from primal_dual.types import Bool, Int
from torch_impl.registry import register

register(Everything)(Everything.sees)
register(Window)(Window.sees)
register(Strided)(Strided.sees)
register(Causal)(Causal.sees)


@register(Mask)
def mask(support: Mask, i: Int[torch.Tensor, "..."], j: Int[torch.Tensor, "..."]) -> Bool[torch.Tensor, "..."]:
    """table[i, j].

    Examples
    --------
    >>> mask(Mask([[True, False]]), torch.tensor([[0]]), torch.arange(2)).tolist()
    [[True, False]]
    """
    return _table(support, i.device)[i, j]


@lru_cache(maxsize=16)
def _table(support: Mask, device: torch.device) -> Bool[torch.Tensor, "M N"]:
    return torch.tensor(support.table, device=device)
