"""Whether a model fits into memory, found out before any is taken."""

import os
import sys
from collections.abc import Callable

import torch

from torch_impl.data.messages import one_line

BYTES = 16  # of a weight in training: it, its gradient, and two moments, in float32


def expect_to_fit(make: Callable[[], torch.nn.Module], device: torch.device) -> None:
    """ValueError for a model whose weights do not fit into memory in training.

    Parameters
    ----------
    make : callable
        Makes the model. It is called on torch's device "meta", where tensors have shapes but no numbers.
    device : torch.device
        Where it will be trained.

    Examples
    --------
    >>> expect_to_fit(lambda: torch.nn.Linear(10, 10), torch.device("cpu"))
    >>> expect_to_fit(lambda: torch.nn.Linear(10**8, 10**8), torch.device("cpu"))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: expected a model that fits into ... GiB; got 10,000,000,100,000,000 weights, which take 149,011,613 GiB
    """
    try:
        with torch.device("meta"):
            weights = sum(p.numel() for p in make().parameters())
    except (RuntimeError, OverflowError) as error:
        raise ValueError(f"expected a model whose sizes torch can hold; got {one_line(error)}") from error
    needed, available = BYTES * weights, _memory(device)
    if needed > available:
        fits = f"expected a model that fits into {available / 2**30:,.0f} GiB"
        raise ValueError(f"{fits}; got {weights:,} weights, which take {needed / 2**30:,.0f} GiB")


def _memory(device: torch.device) -> int:
    """The bytes of memory of a device; sys.maxsize where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    if not hasattr(os, "sysconf"):  # on Windows
        return sys.maxsize
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
