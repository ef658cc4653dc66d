"""Checks of input: a `ValueError` that names what was expected and what came. Values of tensors are not looked at."""

from math import inf

import torch


def tensor(name, x, shape):
    """A floating tensor; `shape` names its last axes, e.g. "N D", none of them empty."""
    axes = shape.split()
    if not isinstance(x, torch.Tensor):
        raise ValueError(f"{name}: expected a tensor; got {type(x).__name__}")
    if not x.is_floating_point():
        raise ValueError(f"{name}: expected floating-point numbers; got {x.dtype}")
    if x.ndim < len(axes) or 0 in x.shape[x.ndim - len(axes) :]:
        raise ValueError(f"{name}: expected shape (..., {', '.join(axes)}), no axis empty; got {tuple(x.shape)}")


def alike(**tensors):
    """One device, and one dtype unless autocast is on, which takes any."""
    (first, x), *others = tensors.items()
    for name, y in others:
        if x.device != y.device:
            raise ValueError(f"{first}, {name}: expected one device; got {x.device} and {y.device}")
        if x.dtype != y.dtype and (x.device.type == "meta" or not torch.is_autocast_enabled(x.device.type)):
            raise ValueError(f"{first}, {name}: expected one dtype; got {x.dtype} and {y.dtype}")


def mask(name, x, length, device):
    """None, or booleans (..., length) on `device`."""
    if x is None:
        return
    got = f"{x.dtype} {tuple(x.shape)}" if isinstance(x, torch.Tensor) else type(x).__name__
    if not isinstance(x, torch.Tensor) or x.dtype != torch.bool or x.shape[-1:] != (length,):
        raise ValueError(f"{name}: expected a tensor of booleans (..., {length}), True for a real token; got {got}")
    if x.device != device:
        raise ValueError(f"{name}: expected it on {device}; got {x.device}")


def attention_mask(x, queries, keys, device):
    """None, or booleans or floats (..., queries or 1, keys) on `device`."""
    if x is None:
        return
    good = isinstance(x, torch.Tensor) and (x.dtype == torch.bool or x.is_floating_point())
    if not good or x.ndim < 2 or x.shape[-1] != keys or x.shape[-2] not in (1, queries):
        got = f"{x.dtype} {tuple(x.shape)}" if isinstance(x, torch.Tensor) else type(x).__name__
        raise ValueError(f"attn_mask: expected booleans or floats (..., {queries}, {keys}); got {got}")
    if x.device != device:
        raise ValueError(f"attn_mask: expected it on {device}; got {x.device}")


def parameter(name, x, shapes):
    """A floating tensor of one of some shapes; none of them where the primal has no part for it."""
    good = isinstance(x, torch.Tensor) and x.is_floating_point()
    if not shapes or not good or tuple(x.shape) not in shapes:
        got = f"{x.dtype} {tuple(x.shape)}" if isinstance(x, torch.Tensor) else repr(x)
        expected = f"a floating tensor {' or '.join(map(str, shapes))}" if shapes else "none for this primal"
        raise ValueError(f"{name}: expected {expected}; got {got}")


def between(name, x, least, most):
    """A number from least to most, which may be infinite."""
    if not least <= x <= most:
        raise ValueError(f"{name}: expected {least} {'or more' if most == inf else f'to {most}'}; got {x}")


def broadcast(**shapes):
    """Leading axes that broadcast -> their common shape."""
    first, *others = shapes.values()
    if all(other == first for other in others):  # torch takes its time
        return first
    try:
        return torch.broadcast_shapes(*shapes.values())
    except RuntimeError as error:
        got = ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())
        raise ValueError(f"expected leading axes that broadcast; got {got}") from error
