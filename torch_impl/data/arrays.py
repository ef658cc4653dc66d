"""Examples in arrays: time series as aeon has them, (n, channels, time), and images, (n, height, width[, channels]).

They come from a caller, or from files: see `array_files`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from primal_dual.checks import expect_no_mask
from primal_dual.types import UInt8
from torch_impl.data.messages import one_line
from torch_impl.data.ts_files import Series, checked_series

SERIES = "time series, (n, time) or (n, channels, time), or a list of (channels, time) whose times differ"
IMAGES = "images of bytes, 0 to 255, (n, height, width) or (n, height, width, 1 or 3)"


def series_of_arrays(name: str, X: Any) -> Series:
    """Time series as arrays (time steps, features).

    Parameters
    ----------
    name : str
        What a message calls them.
    X : array, (n, time) or (n, channels, time), or a sequence of arrays, (channels, time)
        NaN where a value is missing. The times of a sequence may differ.

    Raises
    ------
    ValueError
        For other shapes, what holds no real numbers, infinite numbers, values whose size exceeds 1e20, and bytes in
        squares, which could be grey images.

    Examples
    --------
    >>> [x.shape for x in series_of_arrays("X", [np.ones((2, 5)), np.ones((2, 7))])]
    [(5, 2), (7, 2)]
    """
    if not len(X):
        raise ValueError(f"{name}: expected {SERIES}; got none")
    examples = [_real(name, x, SERIES) for x in X]
    axes = {x.ndim for x in examples}
    if axes == {1} and len({len(x) for x in examples}) == 1:
        examples = [x[None] for x in examples]
    elif axes != {2}:
        raise ValueError(f"{name}: expected {SERIES}; got examples of shape {_first_shapes(examples)}")
    if all(x.dtype == np.uint8 and len(x) == x.shape[1] > 1 for x in examples):
        cures = f"give grey images as {name}[..., None], and series of bytes as {name}.astype(float)"
        raise ValueError(f"{name}: expected {SERIES}; got bytes of shape {examples[0].shape}: {cures}")
    return checked_series(name, examples)


def images_of_array(name: str, X: Any) -> UInt8[np.ndarray, "n H W *colours"]:
    """Images as bytes, (n, H, W) or (n, H, W, 3).

    Parameters
    ----------
    name : str
        What a message calls them.
    X : array, (n, height, width) or (n, height, width, channels)
        Whole numbers from 0 to 255 of any dtype; one channel or three.

    Raises
    ------
    ValueError
        For other shapes and other numbers.

    Examples
    --------
    >>> images_of_array("X", np.full((3, 8, 8, 1), 255.0)).shape
    (3, 8, 8)
    """
    X = _real(name, X, IMAGES)
    if X.ndim not in (3, 4) or 0 in X.shape or X.shape[3:] not in ((), (1,), (3,)):
        raise ValueError(f"{name}: expected {IMAGES}; got shape {X.shape}")
    with np.errstate(invalid="ignore"):  # reported below
        pixels = X.astype(np.uint8)
    if (pixels != X).any():
        raise ValueError(f"{name}: expected {IMAGES}; got numbers from {X.min():g} to {X.max():g}, {X.dtype}")
    return pixels[..., 0] if X.shape[3:] == (1,) else pixels


def labels_of_array(name: str, y: np.ndarray, count: int) -> list[str]:
    """Labels (n,), as words. ValueError for another number of them, a missing one, and numbers that are not whole.

    Examples
    --------
    >>> labels_of_array("y", np.array([3, 1]), 2)
    ['3', '1']
    """
    expected = f"{name}: expected a label for each of {count} examples"
    if y.shape != (count,):
        raise ValueError(f"{expected}; got shape {y.shape}")
    labels = [str(label) for label in y.tolist()]
    expect_no_missing_label(expected, labels)
    for number, label in enumerate(labels):
        if y.dtype.kind == "f" and not y[number].is_integer():
            raise ValueError(f"{expected}; got {label}, as the targets of a regression are")
    return labels


def expect_no_missing_label(expected: str, labels: Sequence[object]) -> None:
    """ValueError for a label that `is_missing_label`; `expected` is how the message begins."""
    for number, label in enumerate(labels):
        if is_missing_label(label):
            raise ValueError(f"{expected}; got {label!r} for example {number}")


def is_missing_label(label: object) -> bool:
    """Whether a label is none: empty, or what Python, NumPy and pandas write for a missing value.

    Examples
    --------
    >>> [is_missing_label(label) for label in ("", "NaN", np.nan, "none")]
    [True, True, True, False]
    """
    return str(label).strip().lower() in ("", "nan", "<na>")


def _real(name: str, x: Any, expected: str) -> np.ndarray:
    """An array of real numbers. ValueError for what is none, and for a masked array."""
    expect_no_mask(name, x, expected)
    try:
        x = np.asarray(x)
        x = x.astype(float) if x.dtype == object else x
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: expected {expected}; got {one_line(error)}") from error
    if x.dtype.kind not in "biuf":
        raise ValueError(f"{name}: expected {expected}; got dtype {x.dtype}")
    return x


def _first_shapes(examples: list[np.ndarray]) -> str:
    return " and ".join(map(str, sorted({x.shape for x in examples}, key=len)[:2]))
