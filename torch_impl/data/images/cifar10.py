"""CIFAR-10's binary version (Krizhevsky, 2009): records of one label and 32 x 32 pixels in three channels."""

from pathlib import Path

import numpy as np

from primal_dual.types import UInt8
from torch_impl.data.images.source import ImageSource, array_source

RECORD = 1 + 3 * 32 * 32  # bytes: a label, then the pixels, channel by channel


def cifar10_folder(root: Path) -> Path | None:
    """The folder of CIFAR-10's binary version, `root` or one inside it; None if it is not there.

    Raises
    ------
    ValueError
        If the Python version is there instead, since its pickles could run any code.
    """
    for folder in (root, root / "cifar-10-batches-py"):
        if (folder / "data_batch_1").exists():
            raise ValueError(
                f"{folder}: expected CIFAR-10's binary version, cifar-10-binary.tar.gz; got the Python version, whose "
                "pickles could run any code"
            )
    for folder in (root, root / "cifar-10-batches-bin"):
        if (folder / "data_batch_1.bin").exists():
            return folder
    return None


def cifar10_sources(folder: Path) -> tuple[ImageSource, ImageSource]:
    """The training split, from data_batch_1.bin to 5, and the test split, from test_batch.bin.

    Raises
    ------
    ValueError
        For a file that is missing or damaged.
    """
    train_files = [folder / f"data_batch_{i}.bin" for i in range(1, 6)]
    test_file, class_file = folder / "test_batch.bin", folder / "batches.meta.txt"
    for file in (*train_files, test_file, class_file):
        if not file.is_file():
            raise ValueError(f"{file}: no such file; expected all of CIFAR-10's binary version")
    classes = class_file.read_text().split()
    train = np.concatenate([_records(file, len(classes)) for file in train_files])
    return _source("train", train, classes), _source("test", _records(test_file, len(classes)), classes)


def _source(split: str, records: UInt8[np.ndarray, "n 3073"], classes: list[str]) -> ImageSource:
    images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return array_source(split, images, [classes[i] for i in records[:, 0]])


def _records(file: Path, classes: int) -> UInt8[np.ndarray, "n 3073"]:
    content = np.fromfile(file, np.uint8)
    largest = content[::RECORD].max(initial=0)
    if len(content) % RECORD or largest >= classes:
        raise ValueError(
            f"{file}: expected records of {RECORD} bytes with labels below {classes}; got {len(content)} bytes "
            f"and labels up to {largest}. Try to download it again"
        )
    return content.reshape(-1, RECORD)
