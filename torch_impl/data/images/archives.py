"""Images inside .tar and .tar.gz archives, read without unpacking them to disk."""

import io
import tarfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, NamedTuple, TypeVar

import numpy as np
from PIL import Image

from primal_dual.types import Int
from torch_impl.data.images.gzip_files import unpacked
from torch_impl.data.images.source import ImageSource

JPEG = {".jpg", ".jpeg", ".jpe", ".jfif"}
SUFFIXES = JPEG | {".png", ".bmp", ".gif", ".webp", ".avif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"}

File = TypeVar("File", bound=tuple[Any, ...])


def is_image(path: PurePath | str) -> bool:
    """Whether a file is an image by its suffix. Hidden files and those in hidden folders are not.

    Examples
    --------
    >>> is_image("cat/1.JPEG"), is_image("notes.txt"), is_image("._1.png"), is_image(".ipynb_checkpoints/1.png")
    (True, False, False, False)
    """
    return PurePosixPath(path).suffix.lower() in SUFFIXES and not is_hidden(path)


def is_hidden(path: PurePath | str) -> bool:
    """Whether a file or a folder on the way to it is hidden, as those are whose names begin with a dot."""
    return any(part.startswith(".") and part != ".." for part in PurePosixPath(path).parts)


def images_of_classes(where: Path, files: Sequence[File]) -> list[File]:
    """Those of some files, (CLASS, FILE, ...), that are images. ValueError for a class that has files, but no image."""
    images = [file for file in files if is_image(file[1])]
    labels = {file[0] for file in images}
    for label, name, *_ in files:
        if label not in labels:
            raise ValueError(f"{where}: expected images as CLASS/FILE; got {label}/{name}, and no image of {label}")
    return images


def archive_source(split: str, path: Path) -> ImageSource:
    """The images of an archive whose members are [SPLIT/]CLASS/FILE, sorted by class and file.

    The archive is read once, for the positions of its members, and each image is then read from its position. A .tar.gz
    has no such positions, and is unpacked to memory.

    Parameters
    ----------
    split : str
        The name of the split, which members may begin with.
    path : path
        The .tar or .tar.gz.

    Raises
    ------
    ValueError
        For a file that is no such archive or is damaged, images at another place, images that are links, a class
        without an image, and a .tar.gz that is too large for the memory.
    """
    archive = path if path.suffix == ".tar" else unpacked(path, "a .tar.gz archive")
    try:
        members = images_of_classes(path, sorted(_members(split, path, archive)))
    except tarfile.TarError as error:
        raise ValueError(f"{path}: expected a tar archive; got {error}") from error
    labels = [member.label for member in members]
    names = [f"{path}: {member.label}/{member.file}" for member in members]
    spans = np.array([(member.start, member.length) for member in members], np.int64)
    return ImageSource(split, labels, names, partial(_open_member, archive, spans))


class _Member(NamedTuple):
    """A file in an archive: its class and name, and where its bytes are."""

    label: str
    file: str
    start: int
    length: int


def _members(split: str, path: Path, archive: Path | bytes) -> Iterator[_Member]:
    with _open_archive(archive) as tar:
        while member := tar.next():
            tar.members.clear()  # type: ignore[attr-defined]  # tarfile keeps all members, which would take a gigabyte for ImageNet
            if member.isdir() or is_hidden(member.name):
                continue
            if is_image(member.name) and not member.isreg():
                expected = "expected images as files (tar --dereference --hard-dereference)"
                raise ValueError(f"{path}: {expected}; got the link or device {member.name}")
            parts = PurePosixPath(member.name).parts
            parts = parts[1:] if parts[:1] == (split,) else parts
            if len(parts) == 2:
                yield _Member(parts[0], parts[1], member.offset_data, member.size)
            elif is_image(member.name):
                raise ValueError(f"{path}: expected members {split}/CLASS/FILE; got {member.name}")
        _expect_end(path, tar)


def _expect_end(path: Path, tar: tarfile.TarFile) -> None:
    """ValueError unless zeros follow the last member: tarfile takes a damaged header for the end."""
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    block = tar.fileobj.read(tarfile.BLOCKSIZE)
    if block != bytes(tarfile.BLOCKSIZE):
        raise ValueError(
            f"{path}: expected an archive that ends in zeros; got one that is cut or damaged at byte {tar.offset}"
        )


def _open_archive(archive: Path | bytes) -> tarfile.TarFile:
    if isinstance(archive, bytes):
        return tarfile.open(fileobj=io.BytesIO(archive))
    return tarfile.open(archive, "r:")


def _open_member(archive: Path | bytes, spans: Int[np.ndarray, "n 2"], i: int) -> Image.Image:
    start, length = spans[i]
    if isinstance(archive, bytes):
        return Image.open(io.BytesIO(archive[start : start + length]))
    with open(archive, "rb") as file:  # opened each time: workers must not share one position in the file
        file.seek(start)
        return Image.open(io.BytesIO(file.read(length)))
