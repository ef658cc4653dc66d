"""Transforms: the torch twins of primal_dual's."""

from functools import reduce
from typing import NamedTuple

import torch
import torch.nn.functional as F

from primal_dual.transforms import BatchNorm, Convolution, Identity, UnitNorm
from torch_impl.blocks import split_into_blocks
from torch_impl.key_statistics import precise, shared
from torch_impl.registry import register, torch_version


class TensorBatchNorm(NamedTuple):
    """A BatchNorm whose beta is a tensor, and so can be learned; it broadcasts against (..., tokens, D)."""

    beta: torch.Tensor
    eps: float


@register(Identity)
def identity(transform, keys, valid):
    return lambda x: x


@register(BatchNorm)
@register(TensorBatchNorm)
def batch_norm(transform, keys, valid):
    mu, variance, _ = shared(keys, valid)
    s = (variance + transform.eps).rsqrt()
    return lambda x: (x - transform.beta * mu) * s


@register(UnitNorm)
def unit_norm(transform, keys, valid):
    """T x = x / |x|, in float32 or better; a zero vector stays zero, since a tensor's values are not checked."""

    def apply(x):
        x = precise(x)
        largest = x.detach().abs().amax(-1, keepdim=True)
        x = x / torch.where(largest > 0, largest, 1)  # so that no square overflows or underflows
        square = (x * x).sum(-1, keepdim=True)
        return x * torch.where(square > 0, square, 1).rsqrt()

    return apply


@register(Convolution)
def convolve(convolution, x, valid, causal=False, taps=None):
    """x (..., N, D), real (..., N) or None -> (..., N, D); `taps` in place of the kernel's, a tensor of its shape."""
    taps = x.new_tensor(convolution.kernel) if taps is None else taps.to(x.dtype)
    if valid is not None:
        x = x.masked_fill(~valid[..., None], 0)
    tokens, width = x.shape[-2], convolution.width or 1
    taps = taps.reshape(len(taps), -1)
    rows, columns = taps.shape
    up, left = (rows - 1, columns - 1) if causal else (rows // 2, columns // 2)
    grid = split_into_blocks(x, width)
    height = grid.shape[-3]
    grid = F.pad(grid, (0, 0, left, columns - 1 - left, up, rows - 1 - up))
    moved = (grid[..., a : a + height, b : b + width, :] * taps[a, b] for a in range(rows) for b in range(columns))
    return sum(moved).flatten(-3, -2)[..., :tokens, :]


def fit(transforms, keys, valid):
    """Fit transforms from left to right, each on the keys that those before it give -> (x -> T x, T keys)."""
    fitted = []
    for part in transforms:
        fitted.append(torch_version(part)(part, keys, valid))
        keys = fitted[-1](keys)
    return lambda x: reduce(lambda x, apply: apply(x), fitted, x), keys
