"""Where the images of a data set are: folders or archives as ImageNet has them, files as MNIST or CIFAR-10 has."""

import os
from functools import partial
from pathlib import Path

from PIL import Image

from primal_dual.io.files import files_below
from torch_impl.data.images.archives import archive_source, images_of_classes, is_hidden, is_image
from torch_impl.data.images.cifar10 import cifar10_folder, cifar10_sources
from torch_impl.data.images.idx import has_idx_files, idx_sources
from torch_impl.data.images.source import ImageSource


def folder_sources(root: Path) -> tuple[ImageSource, ImageSource]:
    """The training and the test split in the folder of a data set, whichever its format.

    Parameters
    ----------
    root : path
        Holds CIFAR-10's binary version; MNIST's idx files, gzipped or not; or train/CLASS/FILE and test/CLASS/FILE, or
        val for test; or these as .tar or .tar.gz.

    Raises
    ------
    ValueError
        For a folder, a split or images that are missing, if only of one class, and for malformed files.
    """
    if not root.is_dir():
        expected = "expected one of images, of MNIST's idx files, or of CIFAR-10's .bin files"
        raise ValueError(f"{root}: no such folder; {expected}")
    if has_idx_files(root):
        return idx_sources(root)
    cifar10 = cifar10_folder(root)
    if cifar10 is not None:
        return cifar10_sources(cifar10)
    return _first_split(root, "train"), _first_split(root, "test", "val")


def list_images(path: Path) -> list[str]:
    """The image files in a folder and in the folders inside it, sorted; or a file itself.

    Raises
    ------
    ValueError
        If there is none.
    """
    names = [str(path)] if path.is_file() else []
    if path.is_dir():
        names = sorted(str(file) for file in files_below(path) if is_image(file.relative_to(path)))
    if not names:
        raise ValueError(f"{path}: expected an image, or a folder of images; got none")
    return names


def file_source(split: str, labels: list[str], names: list[str]) -> ImageSource:
    """The source of images in files of their own."""
    return ImageSource(split, labels, names, partial(_open_file, names))


def _first_split(root: Path, *splits: str) -> ImageSource:
    """The first of some splits that is there and has images, as a folder or as an archive."""
    empty = []
    for split in splits:
        for path in (root / split, root / f"{split}.tar", root / f"{split}.tar.gz"):
            if path.exists():
                source = _class_folders(split, path) if path.is_dir() else archive_source(split, path)
                if source.labels:
                    return source
                empty.append(path)
    if empty:
        raise ValueError(f"{empty[0]}: expected images as CLASS/FILE; got none")
    raise ValueError(f"{root}: expected {' or '.join(splits)} as a folder, .tar or .tar.gz; got none")


def _class_folders(split: str, path: Path) -> ImageSource:
    """The images in a folder that has a folder for each class. What is hidden is none."""
    files = sorted(
        (folder.name, file.name)
        for folder in os.scandir(path)
        if folder.is_dir() and not is_hidden(folder.name)
        for file in os.scandir(folder)
        if not is_hidden(file.name)
    )
    images = images_of_classes(path, files)
    return file_source(split, [label for label, _ in images], [os.path.join(path, *image) for image in images])


def _open_file(names: list[str], i: int) -> Image.Image:
    return Image.open(names[i])
