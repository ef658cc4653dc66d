"""Real input for the command line: keys and targets of a one-step forecaster, and arrays from files."""

import json
import os
import tempfile
from pathlib import Path

import numpy as np


def load_array(path):
    """The array in a .npy file. ValueError for a file that is missing, no .npy, or pickled."""
    try:
        with open(path, "rb") as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    except OSError as error:
        raise ValueError(f"{path}: expected a .npy file of numbers; {error.strerror}") from error
    except (ValueError, EOFError) as error:
        kind = "a pickle" if "pickle" in str(error) else "another format"
        raise ValueError(f"{path}: expected a .npy file of numbers; got {kind}") from error


def write_file(path, write):
    """Have `write(temporary path)` write a file, then give it its name: never half of it. ValueError where it can't."""
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


def check_writable(path):
    """The file that a path names. ValueError, before long work, where it could not be written after it."""
    file = Path(path).resolve()  # the file behind a link, not the link, is replaced
    if not os.access(file.parent, os.W_OK):
        raise ValueError(f"{path}: cannot be written: its folder is missing or not writable")
    if file.exists() and not file.is_file():
        raise ValueError(f"{path}: cannot be written: it is not a regular file")
    return file


def write_json(path, content):
    """Write `content` as JSON."""
    write_file(path, lambda temporary: Path(temporary).write_text(json.dumps(content, indent=1) + "\n"))
