"""Where images lie: scikit-learn's digits, CIFAR-10's binary version, folders and archives laid out as ImageNet is."""

import gzip
import io
import os
import tarfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from PIL import Image

MEMORY = 4 * 2**30  # bytes: what is larger stays on disk
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"}
CIFAR_RECORD = 1 + 3 * 32 * 32  # bytes: a label, then the pixels, channel by channel


class Source(NamedTuple):
    """A split as it lies: the label and the name of each image, and `open`, which opens the i-th one in PIL."""

    split: str
    labels: list
    names: list
    open: Callable

    def subset(self, index):
        """The source of some of its images."""
        labels, names = ([each[i] for i in index] for each in (self.labels, self.names))
        return Source(self.split, labels, names, partial(_open_some, self.open, index))


def digits():
    """Scikit-learn's digits, 8 x 8: the third, sixth, ... image of each class for the test, the others for training."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = np.round(data.images * 255 / 16).astype(np.uint8)
    of_class = data.target[:, None] == np.arange(10)
    rank = of_class.cumsum(0)[of_class]
    parts = {"train": np.flatnonzero(rank % 3), "test": np.flatnonzero(rank % 3 == 0)}
    return [_arrays(split, images[i], [str(label) for label in data.target[i]]) for split, i in parts.items()]


def in_folder(root):
    """The training and the test source in a folder, whichever its format.

    Raises ValueError for a folder, split or image that is not there and for files that are malformed.
    """
    root = Path(root)
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder; expected one of images, or of CIFAR-10's .bin files")
    for folder in (root, root / "cifar-10-batches-py"):
        if (folder / "data_batch_1").exists():
            raise ValueError(
                f"{folder}: expected CIFAR-10's binary version, cifar-10-binary.tar.gz; got the Python version, whose "
                "pickles could run any code"
            )
    for folder in (root, root / "cifar-10-batches-bin"):
        if (folder / "data_batch_1.bin").exists():
            return _cifar(folder)
    return [_layout(root, "train"), _layout(root, "test", "val")]


def _cifar(folder):
    files = [*(folder / f"data_batch_{i}.bin" for i in range(1, 6)), folder / "test_batch.bin"]
    meta = folder / "batches.meta.txt"
    for file in (*files, meta):
        if not file.is_file():
            raise ValueError(f"{file}: no such file; expected all of CIFAR-10's binary version")
    classes = meta.read_text().split()
    *train, test = (_records(file, len(classes)) for file in files)
    return [
        _arrays(split, records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), [classes[i] for i in records[:, 0]])
        for split, records in (("train", np.concatenate(train)), ("test", test))
    ]


def _records(file, classes):
    content = np.fromfile(file, np.uint8)
    largest = content[::CIFAR_RECORD].max(initial=0)
    if len(content) % CIFAR_RECORD or largest >= classes:
        raise ValueError(
            f"{file}: expected records of {CIFAR_RECORD} bytes with labels below {classes}; got {len(content)} bytes "
            f"and labels up to {largest}. Try to download it again"
        )
    return content.reshape(-1, CIFAR_RECORD)


def _layout(root, *splits):
    """The first of the splits that is there and has images, as a folder or an archive."""
    empty = []
    for split in splits:
        for path in (root / split, root / f"{split}.tar", root / f"{split}.tar.gz"):
            if path.exists():
                source = _folder(split, path) if path.is_dir() else _archive(split, path)
                if source.labels:
                    return source
                empty.append(path)
    if empty:
        raise ValueError(f"{empty[0]}: expected images as CLASS/FILE; got none")
    raise ValueError(f"{root}: expected {' or '.join(splits)} as a folder, .tar or .tar.gz; got none")


def _folder(split, path):
    found = sorted(
        (label.name, file.path)
        for label in os.scandir(path)
        if label.is_dir()
        for file in os.scandir(label)
        if is_image(file.name)
    )
    names = [name for _, name in found]
    return Source(split, [label for label, _ in found], names, partial(_open_file, names))


def _archive(split, path):
    """An archive is read once, for where its members are; a .gz, which has no such places, is unpacked to memory."""
    content = path if path.suffix == ".tar" else _unpacked(path)
    found = []
    try:
        with tarfile.open(path, "r:") if content is path else tarfile.open(fileobj=io.BytesIO(content)) as tar:
            while member := tar.next():
                tar.members.clear()  # those of ImageNet would take a gigabyte
                if member.isfile() and is_image(member.name):
                    parts = PurePosixPath(member.name).parts
                    parts = parts[1:] if parts[0] == split else parts
                    if len(parts) != 2:
                        raise ValueError(f"{path}: expected members {split}/CLASS/FILE; got {member.name}")
                    found.append((*parts, member.offset_data, member.size))
    except tarfile.TarError as error:
        raise ValueError(f"{path}: expected a tar archive; got {error}") from error
    found.sort()
    names = [f"{path}: {label}/{file}" for label, file, _, _ in found]
    spans = np.array([span for _, _, *span in found], np.int64)
    return Source(split, [label for label, *_ in found], names, partial(_open_member, content, spans))


def _unpacked(path):
    content = io.BytesIO()
    try:
        with gzip.open(path) as file:
            while piece := file.read(2**24):
                content.write(piece)
                if content.tell() > MEMORY:
                    raise ValueError(f"{path}: expected at most {MEMORY} bytes unpacked; got more. Try gunzip {path}")
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: expected a .tar.gz archive; got {error}") from error
    return content.getvalue()


def is_image(path):
    """Whether a file's suffix says so."""
    path = PurePosixPath(path)
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def _arrays(split, images, labels):
    return Source(split, labels, [f"{split} image {i}" for i in range(len(labels))], partial(_open_array, images))


def _open_some(open_, index, i):
    return open_(index[i])


def _open_array(images, i):
    return Image.fromarray(images[i])


def _open_file(paths, i):
    return Image.open(paths[i])


def _open_member(archive, spans, i):
    start, length = spans[i]
    if isinstance(archive, bytes):
        return Image.open(io.BytesIO(archive[start : start + length]))
    with open(archive, "rb") as file:  # opened each time: workers must not share a position
        file.seek(start)
        return Image.open(io.BytesIO(file.read(length)))
