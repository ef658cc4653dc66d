"""Real input for the command line: keys and targets of a one-step forecaster, and arrays from files."""

import json
import os
import tempfile
from pathlib import Path

import numpy as np


def japanese_vowels():
    """The longest training utterance of JapaneseVowels: (keys, targets), frame by frame and the next one, (25, 12).

    12 cepstrum coefficients a frame, standardised by the mean and deviation of all frames of the training split.
    """
    try:
        from aeon.datasets import load_japanese_vowels
    except ImportError as error:
        raise ValueError("JapaneseVowels comes with aeon: pip install 'primal-dual-attention[data]'") from error
    utterances, _ = load_japanese_vowels(split="train")
    frames = np.concatenate(utterances, axis=1)
    longest = max(utterances, key=lambda utterance: utterance.shape[1])
    series = ((longest - frames.mean(axis=1, keepdims=True)) / frames.std(axis=1, keepdims=True)).T
    return series[:-1], series[1:]


def digit_rows():
    """The first image of scikit-learn's digits: (keys, targets), row by row and the next one, (7, 8), in [0, 1]."""
    from sklearn.datasets import load_digits

    rows = load_digits().images[0] / 16
    return rows[:-1], rows[1:]


DATASETS = {"japanese-vowels": japanese_vowels, "digits": digit_rows}


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
