"""Files: arrays that are read, and whatever is written, whole or not at all."""

import json
import os
import stat
import tempfile
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

DAMAGED = (  # what NumPy raises of damaged files, beside OSError and ValueError
    EOFError,
    MemoryError,
    OverflowError,
    RuntimeError,
    SyntaxError,
    TypeError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


def load_array(path: str | Path) -> np.ndarray:
    """The array in a .npy file.

    It is mapped before it is read, so that a header which promises more numbers than the file has takes no memory.

    Raises
    ------
    ValueError
        For a file that is missing, no regular file, no .npy, shorter than its header says, or pickled.
    """
    expected = f"{path}: expected a .npy file of numbers"
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ValueError(f"{expected}; got no regular file")
        with open(path, "rb") as file:
            if file.read(6) != np.lib.format.MAGIC_PREFIX:
                raise ValueError(f"{expected}; got another format")
        return np.array(np.lib.format.open_memmap(path, mode="r"))
    except OSError as error:
        raise ValueError(f"{expected}; {error.strerror}") from error
    except (EOFError, OverflowError, TypeError, SyntaxError, tokenize.TokenError) as error:
        raise ValueError(f"{expected}; got a damaged header") from error
    except ValueError as error:
        if str(error).startswith(expected):
            raise
        kind = "a pickle" if "object" in str(error) or "pickle" in str(error) else "a damaged one"
        raise ValueError(f"{expected}; got {kind}") from error


def write_file(path: str | Path, write: Callable[[str], object]) -> None:
    """Write a file, or nothing: never half of it.

    Parameters
    ----------
    path : str or Path
        The file. If it is a link, the file behind it is replaced.
    write : function
        write(temporary path) writes the content, which then gets the file's name.

    Raises
    ------
    ValueError
        Where the file cannot be written.
    """
    path = check_writable(path)
    try:
        handle, temporary = tempfile.mkstemp(suffix=path.suffix, prefix=f".{path.stem[:50]}-", dir=path.parent)
    except OSError as error:
        raise ValueError(f"{path}: cannot be written: {error.strerror}") from error
    os.close(handle)
    try:
        write(temporary)
        os.chmod(temporary, stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise ValueError(f"{path}: cannot be written: {error.strerror}") from error
    finally:
        Path(temporary).unlink(missing_ok=True)


def check_writable(path: str | Path) -> Path:
    """The file that a path names. ValueError, before long work, where it could not be written after it."""
    file = Path(path).resolve()  # the file behind a link, not the link, is replaced
    if not os.access(file.parent, os.W_OK):
        raise ValueError(f"{path}: cannot be written: its folder is missing or not writable")
    if file.exists() and not file.is_file():
        raise ValueError(f"{path}: cannot be written: it is not a regular file")
    return file


def ensure_folder(folder: str | Path) -> Path:
    """The path of a folder, made if it is not there. ValueError where it cannot be."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{folder}: expected a folder that can be written; {error.strerror}") from error
    return Path(folder)


def files_below(folder: str | Path) -> Iterator[Path]:
    """The files in a folder and in those inside it, also behind links. ValueError for one that cannot be read."""

    def refuse(error: OSError) -> None:
        raise ValueError(f"{error.filename}: expected a folder that can be read; {error.strerror}") from error

    seen = set()
    for place, folders, names in os.walk(folder, followlinks=True, onerror=refuse):
        real = os.path.realpath(place)
        if real in seen:  # under another name
            folders.clear()
            continue
        seen.add(real)
        folders.sort(key=lambda name: (Path(place, name).is_symlink(), name))  # a folder before links to it
        yield from (Path(place, name) for name in names)


def write_text(path: str | Path, text: str) -> None:
    """Write a file in UTF-8."""
    write_file(path, lambda temporary: Path(temporary).write_text(text, encoding="utf-8", newline="\n"))


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a file of bytes."""
    write_file(path, lambda temporary: Path(temporary).write_bytes(content))


def write_json(path: str | Path, content: Any) -> None:
    """Write `content` as JSON. Arrays become lists; infinity and NaN, which it does not have, None."""
    write_text(path, json.dumps(_plain(content), indent=1) + "\n")


def _plain(x: Any) -> Any:
    if isinstance(x, dict):
        return {key: _plain(value) for key, value in x.items()}
    if isinstance(x, list | tuple):
        return [_plain(value) for value in x]
    if isinstance(x, np.ndarray | np.generic):
        return _plain(x.tolist())
    return None if isinstance(x, float) and not np.isfinite(x) else x
