"""MNIST's idx files (LeCun et al., 1998), which Fashion-MNIST has, too: grey images of one size, gzipped or not."""

import math
from pathlib import Path

import numpy as np

from primal_dual.types import UInt8
from torch_impl.data.images.gzip_files import unpacked
from torch_impl.data.images.source import ImageSource, array_source

IMAGES, LABELS = 3, 1  # dimensions
BYTES = 0x08  # the code of unsigned bytes


def has_idx_files(root: Path) -> bool:
    """Whether a folder holds the training images of MNIST, or of a data set in its format."""
    return any(path.exists() for path in _candidates(root, "train-images-idx3-ubyte"))


def idx_sources(root: Path) -> tuple[ImageSource, ImageSource]:
    """The training split, train-images-idx3-ubyte[.gz] and train-labels-idx1-ubyte[.gz], and the test split, t10k-...

    The classes are named by their numbers, "0" to "9".

    Raises
    ------
    ValueError
        For a file that is missing or damaged, and for a number of labels that is not that of the images.
    """
    return _source("train", root, "train"), _source("test", root, "t10k")


def _source(split: str, root: Path, prefix: str) -> ImageSource:
    image_file, label_file = _found(root, f"{prefix}-images-idx3-ubyte"), _found(root, f"{prefix}-labels-idx1-ubyte")
    images, labels = _array(image_file, IMAGES), _array(label_file, LABELS)
    if len(images) != len(labels):
        raise ValueError(f"{label_file}: expected {len(images)} labels, one an image; got {len(labels)}")
    return array_source(split, images, [str(label) for label in labels])


def _candidates(root: Path, name: str) -> tuple[Path, Path]:
    return root / name, root / f"{name}.gz"


def _found(root: Path, name: str) -> Path:
    for path in _candidates(root, name):
        if path.is_file():
            return path
    raise ValueError(f"{root}: expected {name} or {name}.gz; got neither")


def _array(path: Path, dimensions: int) -> UInt8[np.ndarray, "..."]:
    """The array of an idx file: two zero bytes, the type, the number of dimensions, their sizes, and the values."""
    content = unpacked(path, "a gzipped idx file") if path.suffix == ".gz" else path.read_bytes()
    header = 4 + 4 * dimensions
    magic = bytes([0, 0, BYTES, dimensions])
    if content[:4] != magic or len(content) < header:
        got = f"{content[:4].hex()}, and {len(content)} bytes in all"
        raise ValueError(f"{path}: expected an idx file that begins with {magic.hex()}; got {got}")
    sizes = np.frombuffer(content, ">u4", dimensions, offset=4).tolist()
    if len(content) != header + math.prod(sizes):
        shape = " x ".join(map(str, sizes))
        raise ValueError(f"{path}: expected {header} + {shape} bytes, by its header; got {len(content)}")
    return np.frombuffer(content, np.uint8, offset=header).reshape(sizes)
