"""What kernels and transforms need of an array library, so that one formula serves NumPy, autograd and PyTorch."""

import sys

import autograd.numpy as np
from autograd.tracer import getval


def namespace(x):
    """The library that `x` belongs to: torch for a tensor, else autograd's numpy."""
    torch = sys.modules.get("torch")
    return torch if torch is not None and isinstance(x, torch.Tensor) else np


def constant(x):
    """The value of `x`, through which no derivative flows."""
    return getval(x) if namespace(x) is np else x.detach()


def transpose(x):
    """Swap the last two axes: (..., M, N) -> (..., N, M)."""
    return x.swapaxes(-1, -2)


def like(values, x):
    """The NumPy array `values` in the library, type and place of `x`."""
    xp = namespace(x)
    return values if xp is np else xp.asarray(values, dtype=x.dtype, device=x.device)
