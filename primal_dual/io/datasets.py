"""Keys and targets of a one-step forecaster, from real data that needs no download."""

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
