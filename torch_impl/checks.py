"""Checks of input: a `ValueError` that names what was expected and what came. Values of tensors are not looked at."""

from collections.abc import Collection, Sequence
from math import inf
from typing import Any

import torch


def tensor(name: str, x: Any, shape: str) -> None:
    """ValueError for what is no floating tensor with the last axes of `shape`, such as "N D", none of them empty."""
    axes = shape.split()
    if not isinstance(x, torch.Tensor):
        raise ValueError(f"{name}: expected a tensor; got {type(x).__name__}")
    dense(name, x)
    if not x.is_floating_point():
        raise ValueError(f"{name}: expected floating-point numbers; got {x.dtype}")
    if x.ndim < len(axes) or 0 in x.shape[x.ndim - len(axes) :]:
        raise ValueError(f"{name}: expected shape (..., {', '.join(axes)}), no axis empty; got {tuple(x.shape)}")


def dense(name: str, x: Any) -> None:
    """ValueError for a tensor that is sparse or nested."""
    if isinstance(x, torch.Tensor) and (x.is_nested or x.layout != torch.strided):
        raise ValueError(f"{name}: expected a dense tensor; got {'a nested one' if x.is_nested else x.layout}")


def alike(**tensors: torch.Tensor) -> None:
    """ValueError unless all are on one device and of one dtype. Autocast, where it is on, takes any dtypes."""
    (first, x), *others = tensors.items()
    for name, y in others:
        if x.device != y.device:
            raise ValueError(f"{first}, {name}: expected one device; got {x.device} and {y.device}")
        if x.dtype != y.dtype and (x.device.type == "meta" or not torch.is_autocast_enabled(x.device.type)):
            raise ValueError(f"{first}, {name}: expected one dtype; got {x.dtype} and {y.dtype}")


def mask(name: str, x: Any, length: int, device: torch.device) -> None:
    """ValueError for what is neither None nor booleans (..., length) on `device`."""
    if x is None:
        return
    dense(name, x)
    if not isinstance(x, torch.Tensor) or x.dtype != torch.bool or x.shape[-1:] != (length,):
        expected = f"a tensor of booleans (..., {length}), True for a valid token"
        raise ValueError(f"{name}: expected {expected}; got {describe(x)}")
    if x.device != device:
        raise ValueError(f"{name}: expected it on {device}; got {x.device}")


def attention_mask(x: Any, queries: int, keys: int, device: torch.device) -> None:
    """ValueError for what is neither None nor booleans or floats (..., queries or 1, keys) on `device`."""
    if x is None:
        return
    dense("attn_mask", x)
    if not booleans_or_floats(x) or x.ndim < 2 or x.shape[-1] != keys or x.shape[-2] not in (1, queries):
        raise ValueError(f"attn_mask: expected booleans or floats (..., {queries}, {keys}); got {describe(x)}")
    if x.device != device:
        raise ValueError(f"attn_mask: expected it on {device}; got {x.device}")


def parameter(name: str, x: Any, shapes: Sequence[tuple[int, ...]]) -> None:
    """ValueError for what is no floating tensor of one of these shapes. Without any, the primal takes no tensor."""
    good = isinstance(x, torch.Tensor) and x.is_floating_point()
    if not good or tuple(x.shape) not in shapes:
        got = describe(x) if isinstance(x, torch.Tensor) else repr(x)
        expected = f"a floating tensor {' or '.join(map(str, shapes))}" if shapes else "none for this primal"
        raise ValueError(f"{name}: expected {expected}; got {got}")


def between(name: str, x: float, least: float, most: float) -> None:
    """ValueError for a number that is not from `least` to `most`, which may be infinite."""
    if not least <= x <= most:
        raise ValueError(f"{name}: expected {least} {'or more' if most == inf else f'to {most}'}; got {x}")


def one_of(name: str, x: Any, words: Collection[str]) -> None:
    """ValueError for what is none of some words."""
    if x not in words:
        raise ValueError(f"{name}: expected one of {', '.join(words)}; got {x!r}")


def broadcast(**shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The common shape of leading axes. ValueError if they do not broadcast.

    Examples
    --------
    >>> tuple(broadcast(q=(2, 1), k=(3,)))
    (2, 3)
    """
    first, *others = shapes.values()
    if all(other == first for other in others):  # quicker than torch
        return first
    try:
        return torch.broadcast_shapes(*shapes.values())
    except RuntimeError as error:
        got = ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())
        raise ValueError(f"expected leading axes that broadcast; got {got}") from error


def booleans_or_floats(x: Any) -> bool:
    """Whether x is a tensor of booleans or of floats, as masks in torch are."""
    return isinstance(x, torch.Tensor) and (x.dtype == torch.bool or x.is_floating_point())


def describe(x: Any) -> str:
    """What a message says of x: the dtype and the shape of a tensor, else the type."""
    return f"{x.dtype} {tuple(x.shape)}" if isinstance(x, torch.Tensor) else type(x).__name__
