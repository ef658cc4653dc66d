"""Decoding images: from an `ImageSource` to pixels in colour, of one size, by all cores."""

import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps

from primal_dual.types import Int, UInt8
from torch_impl.data.images.source import ImageSource
from torch_impl.data.messages import Say, one_line

PIECE = 1000  # images that are decoded side by side
warnings.simplefilter("error", Image.DecompressionBombWarning)  # of an image that may be made to exhaust the memory


class Decoded(NamedTuple):
    """Decoded images.

    Parameters
    ----------
    images : tensor of bytes, (n, 3, size, size)
        In colour.
    positions : list of int
        Which images of the source they are: all that were asked for, but for corrupt ones.
    asked : int
        How many were asked for.
    """

    images: UInt8[torch.Tensor, "n 3 size size"]
    positions: list[int]
    asked: int


@dataclass(frozen=True, eq=False)
class ImageDecoder:
    """How the images of a data set are decoded.

    Parameters
    ----------
    size : int
        The height and width of decoded images. Others are resized by their shorter side, bicubic, and cropped at their
        centre. Transparency is dropped.
    skip_corrupt : bool
        Whether an image that cannot be decoded is left out. Otherwise it raises ValueError.
    say : callable
        Is called with a message about each image that is left out; in a copy, and in another process, `print` is.
    """

    size: int
    skip_corrupt: bool
    say: Say

    def __reduce__(self) -> tuple[type, tuple[int, bool, Say]]:
        return ImageDecoder, (self.size, self.skip_corrupt, print)  # a progress bar stays in its process

    def pixels(self, source: ImageSource, i: int) -> UInt8[np.ndarray, "size size 3"]:
        """The pixels of one image. Raises ValueError if it is corrupt."""
        with open_image(source, i) as image:
            if image.mode.startswith(("I", "F")) or any(";16" in str(tile.args) for tile in getattr(image, "tile", ())):
                raise ValueError(f"mode {image.mode} of more bits")
            frames = getattr(image, "n_frames", 1)
            if frames > 1:
                raise ValueError(f"{frames} frames")
            if "transparency" in image.info:
                image = image.convert("RGBA")
            return np.array(ImageOps.fit(image.convert("RGB"), (self.size, self.size), Image.Resampling.BICUBIC))

    def decode(self, source: ImageSource, index: list[int], map_images: Callable = map) -> Decoded:
        """The images of an index, mapped over by `map` or by a pool's."""
        pixels = list(map_images(lambda i: self._pixels_or_none(source, i), index))
        whole = [i for i, x in zip(index, pixels, strict=True) if x is not None]
        images = np.array([x for x in pixels if x is not None], np.uint8).reshape(-1, self.size, self.size, 3)
        return Decoded(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), whole, len(index))

    def decode_by_pieces(self, source: ImageSource, index: Int[torch.Tensor, " n"]) -> Iterator[Decoded]:
        """The images of an index, PIECE of them at a time, decoded by all cores."""
        with ThreadPoolExecutor() as pool:
            for piece in index.split(PIECE):
                yield self.decode(source, piece.tolist(), pool.map)

    def _pixels_or_none(self, source: ImageSource, i: int) -> UInt8[np.ndarray, "size size 3"] | None:
        try:
            return self.pixels(source, i)
        except ValueError as error:
            if not self.skip_corrupt:
                raise ValueError(f"{error}; --skip-corrupt leaves such images out") from error
            self.say(f"{error}; left out")
            return None


@contextmanager
def open_image(source: ImageSource, i: int) -> Iterator[Image.Image]:
    """The i-th image, opened by PIL. Whatever goes wrong while it is open is a ValueError that names the image."""
    try:
        with source.open(i) as image:
            yield image
    except Exception as error:  # a corrupt image may raise anything inside a decoder
        expected = "expected an image of 8 bits a channel"
        raise ValueError(f"{source.names[i]}: {expected}; got {one_line(error)}") from error


def own_size(source: ImageSource, skip_corrupt: bool) -> int:
    """The size of the first image of a source, or of the first that is not corrupt.

    Raises
    ------
    ValueError
        For an image that is not square, for a corrupt one unless those are skipped, and if there is no other.
    """
    for i in range(len(source.labels)):
        try:
            with open_image(source, i) as image:
                width, height = image.size
        except ValueError:
            if not skip_corrupt:
                raise
        else:
            if width == height:
                return width
            raise ValueError(f"{source.names[i]}: expected a square image, or --size; got {width} x {height}")
    raise ValueError(f"{source.split}: expected images; got {len(source.labels)}, none of them whole")
