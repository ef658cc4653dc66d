"""The images of a split before they are decoded: how many, of which class, and how each is opened."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from PIL import Image

from primal_dual.types import UInt8

MEMORY = 4 * 2**30  # bytes: images that take more stay on disk


class ImageSource(NamedTuple):
    """A split of images, in files or in an array.

    Parameters
    ----------
    split : str
        What messages call it.
    labels : list
        The name of each image's class.
    names : list of str
        Where each image is, for messages.
    open : callable
        i -> the i-th image, opened by PIL. It must pickle, since a DataLoader's workers call it.

    Examples
    --------
    >>> source = array_source("train", np.zeros((3, 8, 8), np.uint8), ["a", "b", "a"])
    >>> source.subset([1]).labels, source.open(0).size
    (['b'], (8, 8))
    """

    split: str
    labels: list
    names: list[str]
    open: Callable[[int], Image.Image]

    def subset(self, index: Sequence[int]) -> "ImageSource":
        """The source of some of the images."""
        labels, names = [self.labels[i] for i in index], [self.names[i] for i in index]
        return ImageSource(self.split, labels, names, partial(_open_selected, self.open, index))


def array_source(split: str, images: UInt8[np.ndarray, "n H W *channels"], labels: Sequence) -> ImageSource:
    """The source of the images in an array, grey (n, H, W) or in colour (n, H, W, 3)."""
    names = [f"{split} image {i}" for i in range(len(labels))]
    return ImageSource(split, list(labels), names, partial(_open_row, images))


def _open_selected(open_image: Callable[[int], Image.Image], index: Sequence[int], i: int) -> Image.Image:
    return open_image(index[i])


def _open_row(images: UInt8[np.ndarray, "n H W *channels"], i: int) -> Image.Image:
    return Image.fromarray(images[i])
