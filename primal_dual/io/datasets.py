"""Keys and targets of a one-step forecaster, from real data that needs no download."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from primal_dual.types import Float

Forecast = tuple[Float[np.ndarray, "N D"], Float[np.ndarray, "N D"]]


def japanese_vowels() -> Forecast:
    """Keys and targets of the longest training utterance of JapaneseVowels: its frames and the next ones, (25, 12).

    A frame has 12 cepstrum coefficients, standardised by the mean and standard deviation of all frames of the training
    split. ValueError without aeon.
    """
    try:
        from aeon.datasets import load_japanese_vowels
    except ImportError as error:
        raise ValueError('JapaneseVowels comes with aeon: pip install ".[data]" in the checkout') from error
    with home_of_aeon():
        utterances, _ = load_japanese_vowels(split="train")
    frames = np.concatenate(utterances, axis=1)
    longest = max(utterances, key=lambda utterance: utterance.shape[1])
    series = ((longest - frames.mean(axis=1, keepdims=True)) / frames.std(axis=1, keepdims=True)).T
    return series[:-1], series[1:]


@contextmanager
def home_of_aeon() -> Iterator[None]:
    """Let aeon, which makes a folder at home even for the data sets that come with it, make a temporary one."""
    with TemporaryDirectory() as folder:
        given = os.environ.setdefault("AEON_DATA", folder)
        try:
            yield
        finally:
            if given == folder:
                del os.environ["AEON_DATA"]


def digit_rows() -> Forecast:
    """Keys and targets of the first image of scikit-learn's digits: its rows and the next ones, (7, 8), in [0, 1]."""
    from sklearn.datasets import load_digits

    rows = load_digits().images[0] / 16
    return rows[:-1], rows[1:]


DATASETS: dict[str, Any] = {"japanese-vowels": japanese_vowels, "digits": digit_rows}
