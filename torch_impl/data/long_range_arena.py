"""Three tasks of the Long Range Arena as tokens: ListOps, byte-level text, and images pixel by pixel.

Source: Tay et al. (ICLR 2021) and the benchmark's published programs; ListOps is by Nangia and Bowman (2018).
"""

import gzip
import json
import zlib
from pathlib import Path

import numpy as np
import torch

from torch_impl.data.dataset import DataSet, Split
from torch_impl.data.listops import expressions

LENGTHS = {"ListOps": 2000, "Text": 4000, "PixelCIFAR10": 1024}
TRAIN, TEST = 96_000, 2_000  # expressions of ListOps
WORDS = (*"0123456789", "[MIN", "[MAX", "[MED", "[SM", "]")  # of ListOps; SM is the sum modulo 10
CODES = {word.encode(): code for code, word in enumerate(WORDS)}
DEPTHS = np.array([0] * 10 + [1] * 4 + [-1])  # how much deeper it is after a word
SENTIMENTS = ("neg", "pos")


def load_lra(name, folder=None, *, length=None, cases=None, say=lambda line: None):
    """A task of the Long Range Arena -> DataSet: inputs (n, length) of integers, key_mask (n, length) or None.

    ListOps: expressions such as [MAX 4 3 [SM 9 9 ] ] and their values. Token 0 is padding, 1 to 10 are the digits, 11
        to 14 the operators, 15 the closing bracket. From basic_train.tsv and basic_test.tsv, the benchmark's own
        files, if the folder has them; else 96,000 for training and 2,000 for the test are generated as it does, see
        `expressions`. Another length than 2,000, from 32 to 8,000, is always generated.
    Text: IMDb's reviews as bytes, cut at `length`: 4,000 by default, as in later work; the benchmark has 1,000 to
        4,000. Token 0 is padding, b + 1 is the byte b. From train.jsonl.gz and test.jsonl.gz, with a line {"text":
        ..., "label": 0 or 1} for each review, or the original aclImdb/train/pos/*.txt and so on.
    PixelCIFAR10: CIFAR-10 in grey, row by row: 1,024 tokens 0 to 255, see `pixels`.

    folder: holds these files, or a folder listops or imdb that does; for CIFAR-10 a folder cifar10 for `load_images`.
    The benchmark's validation cases are not used: folds of the training split take their place. cases: at most so
    many of each split, drawn at random, but always the same ones. The data set's name tells of another length, and
    of fewer cases. say: told of the progress.
    Raises ValueError for what is missing, truncated, empty or malformed.
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
    if name == "ListOps":
        data = _listops(folder, length or LENGTHS[name], cases, say)
    elif name == "Text":
        data = _text(Path(folder), length or LENGTHS[name], say)
    else:
        data = _pixel_cifar10(folder, length or LENGTHS[name], say)
    shortened = f"-{length}" if length not in (None, LENGTHS[name]) else ""
    fewer = f"-{cases}cases" if cases else ""
    return data._replace(name=name + shortened + fewer, train=_drawn(data.train, cases), test=_drawn(data.test, cases))


def pixels(images):
    """Images (n, 3, H, W) of uint8 in a DataSet -> their luma as tokens (n, H W), 0 to 255.

        L = (299 R + 587 G + 114 B) / 1000,    ITU-R BT.601

    in the fixed point of PIL's convert("L"), to which it is equal. Raises ValueError for other images.
    """
    train, test = (Split(_luma(split.inputs), None, split.labels) for split in (images.train, images.test))
    sizes = dict(vocabulary=256, length=train.inputs.shape[1], classes=len(images.classes))
    return images._replace(train=train, test=test, sizes=sizes, mean=[], deviation=[])


def _luma(images):
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images: expected uint8 (n, 3, H, W); got {images.dtype} {tuple(images.shape)}")
    pieces = (piece.int().flatten(2).unbind(1) for piece in images.split(1000))
    return torch.cat([(19595 * r + 38470 * g + 7471 * b + 2**15 >> 16).to(torch.uint8) for r, g, b in pieces])


def _listops(folder, length, cases, say):
    files = [_inside(Path(folder), "listops") / f"basic_{split}.tsv" for split in ("train", "test")] if folder else []
    if length == LENGTHS["ListOps"] and any(file.exists() for file in files):
        splits = (_published(file, length) for file in files)
    else:
        rows, values = expressions(TEST + min(TRAIN, cases or TRAIN), length, say=say)
        splits = (rows[TEST:], values[TEST:]), (rows[:TEST], values[:TEST])
    return _data_set(splits, length, WORDS[:10], len(WORDS) + 1, np.uint8)


def _published(path, length):
    """The expressions of one of the benchmark's files, and their values."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file; expected basic_train.tsv and basic_test.tsv")
    rows, values = [], []
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            source, _, target = line.rstrip().partition(b"\t")
            if number == 1 and (source, target) == (b"Source", b"Target"):
                continue
            row = [CODES.get(word, -1) for word in source.translate(None, b"()").split()]
            value = CODES.get(target, -1)
            depth = DEPTHS[row].cumsum() if row else np.ones(1)
            if -1 in row or depth[-1] != 0 or (depth[:-1] <= 0).any() or not 0 <= value <= 9:
                raise ValueError(
                    f"{path}, line {number}: expected a whole expression, a tab and a digit; got {_ends(line)!r}"
                )
            if len(row) >= length:
                raise ValueError(
                    f"{path}, line {number}: expected fewer than {length} tokens, as published; got {len(row)}"
                )
            rows.append(bytes(row))
            values.append(value)
    if not rows:
        raise ValueError(f"{path}: expected expressions; got none")
    return rows, values


def _text(folder, length, say):
    splits = []
    for split in ("train", "test"):
        file = _inside(folder, "imdb") / f"{split}.jsonl.gz"
        splits.append(_json_lines(file) if file.exists() else _text_files(_inside(folder, "aclImdb") / split, file))
        say(f"Text: {len(splits[-1][0]):,} reviews for {split}")
    return _data_set(splits, length, SENTIMENTS, 257, np.int16)


def _json_lines(path):
    texts, labels = [], []
    try:
        with gzip.open(path) as file:
            for line in file:
                case = json.loads(line)
                text, label = case["text"].encode(), (0, 1).index(case["label"])
                if not text:
                    raise ValueError("no text")
                texts.append(text)
                labels.append(label)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: expected a whole gzip file; got after line {len(labels)}: {error}") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}, line {len(texts) + 1}: expected JSON with a text that is not empty and a label 0 or 1; "
            f"got {_ends(line)!r}"
        ) from error
    if not texts:
        raise ValueError(f"{path}: expected reviews; got none")
    return texts, labels


def _text_files(folder, instead):
    texts, labels = [], []
    for label, sentiment in enumerate(SENTIMENTS):
        files = sorted((folder / sentiment).glob("*.txt"))
        if not files:
            raise ValueError(f"{folder / sentiment}: expected reviews, *.txt, or else {instead}; got neither")
        for file in files:
            text = file.read_bytes()
            if not text:
                raise ValueError(f"{file}: expected a text; got an empty file")
            texts.append(text)
            labels.append(label)
    return texts, labels


def _pixel_cifar10(folder, length, say):
    if length != LENGTHS["PixelCIFAR10"]:
        raise ValueError(f"length: expected 1024, the pixels of an image; got {length}")
    from torch_impl.data.images import load_images

    return pixels(load_images("cifar10", folder, size=32, say=say))


def _inside(folder, name):
    return folder / name if (folder / name).is_dir() else folder


def _data_set(splits, length, classes, vocabulary, dtype):
    sizes = dict(vocabulary=vocabulary, length=length, classes=len(classes))
    return DataSet("", *(_padded(*split, length, dtype) for split in splits), classes, sizes, [], [])


def _padded(rows, labels, length, dtype):
    """Rows of bytes -> inputs, each byte plus 1, cut and padded with 0, and their key_mask."""
    inputs = np.zeros((len(rows), length), dtype)
    for tokens, row in zip(inputs, rows, strict=True):
        row = np.frombuffer(row[:length], np.uint8)
        tokens[: len(row)] = row
        tokens[: len(row)] += 1
    inputs = torch.from_numpy(inputs)
    key_mask = inputs > 0
    return Split(inputs, None if key_mask.all() else key_mask, torch.tensor(labels))


def _drawn(split, cases):
    if cases is None or cases >= len(split):
        return split
    return split.take(torch.randperm(len(split), generator=torch.Generator().manual_seed(0))[:cases].sort().values)


def _ends(line):
    return line if len(line) <= 50 else line[:25] + b" ... " + line[-20:]
