"""Three tasks of the Long Range Arena as sequences of tokens: ListOps, text byte by byte, and images pixel by pixel.

Source: Tay et al. (ICLR 2021) and the programs published with the benchmark.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from primal_dual.types import UInt8
from torch_impl.data.dataset import DataSet, Examples, Split
from torch_impl.data.long_range_arena.imdb import SENTIMENTS, inside, read_reviews
from torch_impl.data.long_range_arena.listops import expressions
from torch_impl.data.long_range_arena.listops_files import WORDS, read_expressions
from torch_impl.data.messages import Say, say_nothing

LENGTHS = {"ListOps": 2000, "Text": 4000, "PixelCIFAR10": 1024}  # tokens
TRAIN, TEST = 96_000, 2_000  # how many expressions of ListOps are generated


def load_lra(
    name: str,
    folder: Path | str | None = None,
    *,
    length: int | None = None,
    cases: int | None = None,
    say: Say = say_nothing,
) -> DataSet:
    """A task of the Long Range Arena.

    The validation examples of the benchmark are not used: folds of the training split take their place.

    Parameters
    ----------
    name : str
        "ListOps": expressions such as [MAX 4 3 [SM 9 9 ] ] and their values. Token 0 is padding, 1 to 10 are the
        digits, 11 to 14 the operators, 15 is the closing bracket. Read from the benchmark's files basic_train.tsv and
        basic_test.tsv, if the folder has them; else generated, 96,000 for training and 2,000 for the test.
        "Text": IMDb's reviews as bytes. Token 0 is padding, b + 1 is the byte b. See `imdb.read_reviews` for the files.
        "PixelCIFAR10": CIFAR-10 in grey, row by row: 1,024 tokens 0 to 255, see `pixels`.
    folder : path, optional
        Holds these files, or a folder listops or imdb that does; for CIFAR-10, a folder cifar10 for `load_images`.
    length : int, optional
        The length of the sequences: 2,000 for ListOps, which at any other length, from 32 to 8,000, is generated;
        4,000 for Text, as in later work, where the benchmark has 1,000 to 4,000. Longer reviews are cut.
    cases : int, optional
        The largest number of examples of a split. They are drawn at random, but always the same ones.
    say : callable
        Is called with messages about the progress.

    Returns
    -------
    DataSet
        Its inputs are whole numbers, (n, length). Its name tells of another length, and of fewer examples.

    Raises
    ------
    ValueError
        For what is missing, truncated, empty or malformed.

    Examples
    --------
    >>> data = load_lra("ListOps", length=32, cases=10)
    >>> data.name, data.train.inputs.shape
    ('ListOps-32-10cases', torch.Size([10, 32]))
    """
    if name not in LENGTHS:
        raise ValueError(f"name: expected one of {', '.join(LENGTHS)}; got {name!r}")
    for what, number in (("length", length), ("cases", cases)):
        if number is not None and number < 1:
            raise ValueError(f"{what}: expected 1 or more; got {number}")
    if name != "ListOps" and folder is None:
        raise ValueError(f"{name}: expected --data, the folder of its files; got none")
    if folder is not None and not Path(folder).is_dir():
        raise ValueError(f"{folder}: expected a folder of {name}; got none")
    tokens = length or LENGTHS[name]
    if name == "ListOps":
        data = _listops(folder, tokens, cases, say)
    else:
        load = _text if name == "Text" else _pixel_cifar10
        data = load(Path(str(folder)), tokens, say)
    other_length = "" if tokens == LENGTHS[name] else f"-{tokens}"
    fewer = f"-{cases}cases" if cases else ""
    train, test = _at_most(data.train, cases), _at_most(data.test, cases)
    return data._replace(name=name + other_length + fewer, train=train, test=test)


def pixels(images: DataSet) -> DataSet:
    """Images in colour as sequences of grey pixels, row by row: one token, 0 to 255, for each luma

        L = (299 R + 587 G + 114 B) / 1000,    ITU-R BT.601,

    in the fixed-point arithmetic of PIL's convert("L"), whose results it equals.

    Parameters
    ----------
    images : DataSet
        Its inputs are bytes, (n, 3, H, W).

    Returns
    -------
    DataSet
        Its inputs are bytes, (n, H W).

    Raises
    ------
    ValueError
        For images of another shape or dtype.
    """
    train, test = _grey(images.train), _grey(images.test)
    sizes = dict(vocabulary=256, length=train.inputs.shape[1], classes=len(images.classes))
    return images._replace(train=train, test=test, sizes=sizes, mean=[], deviation=[])


class _Sequences(NamedTuple):
    """Sequences of bytes and their labels."""

    rows: Sequence[bytes]
    labels: Sequence[int]


def _listops(folder: Path | str | None, length: int, cases: int | None, say: Say) -> DataSet:
    files = [inside(Path(folder), "listops") / f"basic_{split}.tsv" for split in ("train", "test")] if folder else []
    if length == LENGTHS["ListOps"] and any(file.exists() for file in files):
        train, test = (_Sequences(*read_expressions(file, length)) for file in files)
    else:
        rows, values = expressions(TEST + min(TRAIN, cases or TRAIN), length, say=say)
        train, test = _Sequences(rows[TEST:], values[TEST:]), _Sequences(rows[:TEST], values[:TEST])
    sizes = dict(vocabulary=len(WORDS) + 1, length=length, classes=10)
    train_split, test_split = _padded(train, length, np.uint8), _padded(test, length, np.uint8)
    return DataSet("ListOps", train_split, test_split, WORDS[:10], sizes, [], [])


def _text(folder: Path, length: int, say: Say) -> DataSet:
    splits = {}
    for split in ("train", "test"):
        reviews = _Sequences(*read_reviews(folder, split))
        say(f"Text: {len(reviews.rows):,} reviews for {split}")
        splits[split] = _padded(reviews, length, np.int16)
    sizes = dict(vocabulary=257, length=length, classes=len(SENTIMENTS))
    return DataSet("Text", splits["train"], splits["test"], SENTIMENTS, sizes, [], [])


def _pixel_cifar10(folder: Path, length: int, say: Say) -> DataSet:
    if length != LENGTHS["PixelCIFAR10"]:
        raise ValueError(f"length: expected 1024, the pixels of an image; got {length}")
    from torch_impl.data.images.loading import load_images  # needs PIL, which the other tasks do without

    return pixels(load_images("cifar10", folder, size=32, say=say))


def _padded(sequences: _Sequences, length: int, dtype: type[np.generic]) -> Split:
    """Inputs (n, length): each byte plus 1, cut at the length or padded with 0."""
    padded = np.zeros((len(sequences.rows), length), dtype)
    for tokens, row in zip(padded, sequences.rows, strict=True):
        values = np.frombuffer(row[:length], np.uint8)
        tokens[: len(values)] = values
        tokens[: len(values)] += 1
    inputs = torch.from_numpy(padded)
    key_mask = inputs > 0
    return Split(inputs, None if key_mask.all() else key_mask, torch.tensor(sequences.labels))


def _at_most(split: Examples, count: int | None) -> Examples:
    """`count` random examples, always the same, in their order; all of them if they are not more."""
    if count is None or count >= len(split):
        return split
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))
    return split.take(order[:count].sort().values)


def _grey(split: Examples) -> Split:
    assert isinstance(split, Split)  # CIFAR-10 fits into memory
    return Split(_luma(split.inputs), None, split.labels)


def _luma(images: torch.Tensor) -> UInt8[torch.Tensor, "n pixels"]:
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images: expected uint8 (n, 3, H, W); got {images.dtype} {tuple(images.shape)}")
    grey = []
    for piece in images.split(1000):
        r, g, b = piece.int().flatten(2).unbind(1)
        grey.append((19595 * r + 38470 * g + 7471 * b + 2**15 >> 16).to(torch.uint8))
    return torch.cat(grey)
