"""What kernels and transforms need of an array library, so that one formula serves NumPy, autograd and PyTorch."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import autograd.numpy as np
import numpy
from autograd.tracer import getval

from primal_dual.types import Array, Float


def namespace(x: Array) -> Any:
    """The library that `x` belongs to: torch for a tensor, else autograd's numpy."""
    torch = sys.modules.get("torch")
    return torch if torch is not None and isinstance(x, torch.Tensor) else np


def constant(x: Array) -> Array:
    """The value of `x`, through which no derivative flows."""
    return getval(x) if namespace(x) is np else x.detach()


def transpose(x: Float[Array, "... M N"]) -> Float[Array, "... N M"]:
    """Swap the last two axes."""
    return x.swapaxes(-1, -2)


def like(values: Array, x: Array) -> Array:
    """The NumPy array `values` in the library, type and place of `x`."""
    xp = namespace(x)
    return values if xp is np else xp.asarray(values, dtype=x.dtype, device=x.device)


@contextmanager
def writes_refused(part: object, *arrays: Array) -> Iterator[tuple[Array, ...]]:
    """The same arrays, into which a part of somebody's own cannot write: ValueError where it tries to."""
    kept = tuple(x.view() if isinstance(x, numpy.ndarray) else x for x in arrays)
    for x in kept:
        if isinstance(x, numpy.ndarray):
            x.flags.writeable = False
    try:
        yield kept
    except ValueError as error:
        if "read-only" not in str(error):
            raise
        raise ValueError(f"{part}: expected a part that does not write into its arguments; got {error}") from error
