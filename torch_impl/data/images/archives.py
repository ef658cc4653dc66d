"""Images inside .tar and .tar.gz archives, read without unpacking them to disk."""

import io
import tarfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePath, PurePosixPath
from typing import NamedTuple

import numpy as np
from PIL import Image

from primal_dual.types import Int
from torch_impl.data.images.gzip_files import unpacked
from torch_impl.data.images.source import ImageSource

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"}


def is_image(path: PurePath | str) -> bool:
    """Whether a file is an image by its suffix. Hidden files are not.

    Examples
    --------
    >>> is_image("cat/1.JPEG"), is_image("notes.txt"), is_image("._1.png")
    (True, False, False)
    """
    file = PurePosixPath(path)
    return file.suffix.lower() in SUFFIXES and not file.name.startswith(".")


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
        For a file that is no such archive or is damaged, images at another place, images that are links, and a .tar.gz
        that is too large for the memory.
    """
    archive = path if path.suffix == ".tar" else unpacked(path, "a .tar.gz archive")
    try:
        members = sorted(_members(split, path, archive))
    except tarfile.TarError as error:
        raise ValueError(f"{path}: expected a tar archive; got {error}") from error
    labels = [member.label for member in members]
    names = [f"{path}: {member.label}/{member.file}" for member in members]
    spans = np.array([(member.start, member.length) for member in members], np.int64)
    return ImageSource(split, labels, names, partial(_open_member, archive, spans))


class _Member(NamedTuple):
    """An image in an archive: its class and file, and where its bytes are."""

    label: str
    file: str
    start: int
    length: int


def _members(split: str, path: Path, archive: Path | bytes) -> Iterator[_Member]:
    with _open_archive(archive) as tar:
        while member := tar.next():
            tar.members.clear()  # type: ignore[attr-defined]  # tarfile keeps all members, which would take a gigabyte for ImageNet
            if not is_image(member.name):
                continue
            if member.isreg():
                parts = PurePosixPath(member.name).parts
                parts = parts[1:] if parts[0] == split else parts
                if len(parts) != 2:
                    raise ValueError(f"{path}: expected members {split}/CLASS/FILE; got {member.name}")
                yield _Member(parts[0], parts[1], member.offset_data, member.size)
            elif not member.isdir():
                expected = "expected images as files (tar --dereference --hard-dereference)"
                raise ValueError(f"{path}: {expected}; got the link or device {member.name}")
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
