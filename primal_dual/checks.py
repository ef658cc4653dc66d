"""Checks of input: a `ValueError` that names what was expected and what came."""

import sys
from typing import Any

import numpy as np
from autograd.tracer import getval, isbox

from primal_dual.types import Array, Bool, Float

LARGEST_FLOAT = sys.float_info.max


def array(name: str, x: Any, shape: str) -> Float[Array, "..."]:
    """`x` as a finite float64 array, or autograd's box of one.

    Parameters
    ----------
    name : str
        What a message calls it.
    x : array or nested lists
        Real numbers of any type.
    shape : str
        Names of its last axes, such as "N D".

    Raises
    ------
    ValueError
        For too few axes, an empty axis, a complex, object or text array, NaN or infinity.

    Examples
    --------
    >>> array("keys", [[1, 2]], "N D").dtype
    dtype('float64')
    """
    axes = shape.split()
    expected = f"({', '.join(['...', *axes])})"
    x = _real(name, x, expected)
    if x.ndim < len(axes) or 0 in x.shape[x.ndim - len(axes) :]:
        raise ValueError(f"{name}: expected shape {expected}, no axis empty; got {x.shape}")
    return x


def matrix(name: str, x: Any, shape: str) -> Float[Array, "rows columns"]:
    """`array` with no leading axes."""
    axes = shape.split()
    expected = f"({', '.join(axes)})"
    x = _real(name, x, expected)
    if x.ndim != len(axes) or 0 in x.shape:
        mend = "; x[:, None] makes a column of x" if x.ndim == 1 and axes == ["N", "Dv"] else ""
        raise ValueError(f"{name}: expected shape {expected}, no axis empty; got {x.shape}{mend}")
    return x


def _real(name: str, x: Any, shape: str) -> Float[Array, "..."]:
    """`x` as a float64 array, or autograd's box of one, if all its numbers are finite."""
    numbers = x if isbox(x) else as_array(name, x, f"an array {shape}")
    value = getval(numbers)
    if value.dtype.kind not in "biuf":
        got = f"dtype {value.dtype}" if value.ndim else type(x).__name__
        raise ValueError(f"{name}: expected real numbers; got {got}")
    if not np.isfinite(value).all():
        raise ValueError(
            f"{name}: expected finite numbers; got {np.count_nonzero(~np.isfinite(value))} NaN or infinite"
        )
    return numbers if value.dtype == float else numbers.astype(float)


def expect_primal(x: Any) -> None:
    """ValueError for what is no Primal: a name, a class, or Heads where one SVR is meant."""
    if not hasattr(x, "kernel") or isinstance(x, type):
        raise ValueError(f"primal: expected a Primal, such as catalog['bn']; got {x!r}")


def mask(name: str, x: Any, length: int) -> Bool[Array, "..."]:
    """`x` as an array of booleans (..., length); all True for None."""
    x = np.ones(length, bool) if x is None else booleans(name, x)
    if x.ndim < 1 or x.shape[-1] != length:
        raise ValueError(f"{name}: expected booleans (..., {length}); got {x.dtype} {x.shape}")
    return x


def sizes(q: tuple[int, ...], k: tuple[int, ...], v: tuple[int, ...]) -> None:
    """ValueError for shapes of q (..., M, D), k (..., N, D) and v (..., N, Dv) whose D or N differ."""
    if q[-1] != k[-1]:
        raise ValueError(f"q, k: expected the same last axis, D; got {q[-1]} and {k[-1]}")
    if k[-2] != v[-2]:
        raise ValueError(f"k, v: expected as many values as keys, N; got {k[-2]} and {v[-2]}")


def head_axis(heads: int, **shapes: tuple[int, ...]) -> None:
    """ValueError for shapes whose last axis but two is none of so many heads."""
    for name, shape in shapes.items():
        if len(shape) < 3 or shape[-3] != heads:
            raise ValueError(f"{name}: expected (..., {heads} heads, tokens, features); got {tuple(shape)}")


def no_head_axis(name: str, shape: tuple[int, ...], most: int, heads: int) -> None:
    """ValueError for the shape of a mask of more axes than `most`, whose last but one looks like an axis of heads."""
    if len(shape) > most and shape[-2] in (1, heads):
        raise ValueError(f"{name}: expected at most {most} axes, since masks have no axis of heads; got {shape}")


def booleans(name: str, x: Any) -> Bool[np.ndarray, "..."]:
    """A copy of `x` as an array of booleans."""
    x = as_array(name, x, "an array of booleans")
    if x.dtype != bool:
        raise ValueError(f"{name}: expected an array of booleans; got {x.dtype} {x.shape}")
    return x.copy()


def number(name: str, x: Any, *, above: float | None = None, least: float | None = None) -> None:
    """ValueError for what is no finite real number, or not > `above`, or not >= `least`."""
    value = x.item() if isinstance(x, np.generic) and x.dtype.kind in "iuf" else x  # no date becomes a number
    is_real = isinstance(value, int | float | np.longdouble) and not isinstance(value, bool)
    if (
        not (is_real and abs(value) <= LARGEST_FLOAT)
        or (above is not None and x <= above)
        or (least is not None and x < least)
    ):
        bound = f" > {above}" if above is not None else f" >= {least}" if least is not None else ""
        raise ValueError(f"{name}: expected a finite number{bound}; got {x!r}")


def integer(name: str, x: Any, least: int) -> None:
    """ValueError for what is no whole number >= `least`."""
    if isinstance(x, bool | np.timedelta64) or not isinstance(x, int | np.integer) or x < least:
        raise ValueError(f"{name}: expected a whole number >= {least}; got {x!r}")


def as_array(name: str, x: Any, expected: str) -> np.ndarray:
    """`x` as a NumPy array, if that loses nothing."""
    expect_no_mask(name, x, expected)
    try:
        x = np.asarray(x)
        if x.dtype.kind in "mM":
            raise TypeError("dates and times are no numbers")
        return x
    except ValueError as error:
        raise ValueError(f"{name}: expected {expected}; got a ragged list") from error
    except (RuntimeError, TypeError) as error:  # the former are torch's, of tensors that need a gradient or are sparse
        got = f"{type(x).__name__} that NumPy cannot read: {' '.join(str(error).split())[:80]}"
        raise ValueError(f"{name}: expected {expected}; got a {got}") from error


def expect_no_mask(name: str, x: Any, expected: str) -> None:
    """ValueError for a masked array, whose mask NumPy's functions would lose."""
    if isinstance(x, np.ma.MaskedArray):
        cure = "fill it, with NaN where missing values are taken; keys are hidden by key_mask"
        raise ValueError(f"{name}: expected {expected}; got a numpy.ma array: {cure}")
