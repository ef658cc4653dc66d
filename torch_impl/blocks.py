"""Tokens in blocks of one size."""

import torch
import torch.nn.functional as F


def split_into_blocks(x, size, count=None):
    """(..., N, F) -> (..., count, size, F), cut or filled up with zeros; without `count`, as many as N needs."""
    tokens = x.shape[-2]
    count = (tokens + size - 1) // size if count is None else count
    if torch.compiler.is_exporting():  # where padding would fix the length
        token = torch.arange(count * size, device=x.device)
        x = x.index_select(-2, token.clamp_max(tokens - 1)) * (token < tokens)[:, None]
    elif count * size != tokens:
        x = F.pad(x, (0, 0, 0, count * size - tokens))
    return x.unflatten(-2, (count, size))
