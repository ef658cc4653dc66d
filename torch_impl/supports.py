"""Supports: the torch twins of primal_dual's, which key trains the SVR of which query, by position."""

from functools import lru_cache

import torch

from primal_dual.supports import Causal, Everything, Mask, Strided, Window
from torch_impl.registry import register

for support in (Everything, Window, Strided, Causal):
    register(support)(support.sees)


@register(Mask)
def mask(support, i, j):
    return _table(support, i.device)[i, j]


@lru_cache(maxsize=16)
def _table(support, device):
    return torch.tensor(support.table, device=device)
