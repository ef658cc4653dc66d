"""Files: arrays that are read, and whatever is written, whole or not at all."""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def load_array(path: str | Path) -> np.ndarray:
    """The array in a .npy file. ValueError for a file that is missing, no .npy, or pickled."""
    try:
        with open(path, "rb") as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    except OSError as error:
        raise ValueError(f"{path}: expected a .npy file of numbers; {error.strerror}") from error
    except (ValueError, EOFError) as error:
        kind = "a pickle" if "pickle" in str(error) else "another format"
        raise ValueError(f"{path}: expected a .npy file of numbers; got {kind}") from error


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
        handle, temporary = tempfile.mkstemp(suffix=path.suffix, prefix=f".{path.stem}-", dir=path.parent)
    except OSError as error:
        raise ValueError(f"{path}: cannot be written: {error.strerror}") from error
    os.close(handle)
    try:
        write(temporary)
        os.chmod(temporary, 0o644)
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


def write_text(path: str | Path, text: str) -> None:
    """Write a file in UTF-8."""
    write_file(path, lambda temporary: Path(temporary).write_text(text, encoding="utf-8"))


def write_json(path: str | Path, content: Any) -> None:
    """Write `content` as JSON."""
    write_text(path, json.dumps(content, indent=1) + "\n")
