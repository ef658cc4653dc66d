"""Masks of the libraries whose attention is replaced."""

import torch


def valid_queries(mask):
    """Where a key mask (B, 1, 1, N) hides keys of a self-attention, it hides the same tokens as queries."""
    if mask is None or mask.shape[-2] != 1 or mask.ndim != 4:
        return None
    return mask[:, 0, 0] if mask.dtype == torch.bool else mask[:, 0, 0] > float("-inf")
