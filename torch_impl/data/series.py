"""Data sets of time series: standardised by the training split, padded to one length.

JapaneseVowels and BasicMotions come with aeon; any other set is a folder NAME of NAME_TRAIN.ts and NAME_TEST.ts.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from primal_dual.types import Bool, Float
from torch_impl.data.dataset import DataSet, Split, label_indices
from torch_impl.data.ts_files import Series, check_feature_count, read_split, read_ts_file


def load_series(name: str, folder: Path | str | None = None) -> DataSet:
    """A data set of the UEA archive, or your own in its format.

    Parameters
    ----------
    name : str
        "JapaneseVowels" or "BasicMotions", which need no download, or the name of a folder inside `folder`.
    folder : path, optional
        The folder of data sets.

    Returns
    -------
    DataSet
        Its inputs, (n, length, features) in float32, are standardised by the training split alone. A missing value is
        zero, the mean, and so is all of a feature that is constant in training. Shorter series are padded with zeros at
        their end, to the longest of both splits.

    Raises
    ------
    ValueError
        For what is missing, empty or malformed, and for test labels that do not occur in the training split.

    Examples
    --------
    >>> data = load_series("JapaneseVowels")
    >>> data.train.inputs.shape, data.train.key_mask.sum(1).min().item(), data.sizes["features"]
    (torch.Size([270, 29, 12]), 7, 12)
    """
    return series_data_set(name, *read_split(name, folder, "train"), *read_split(name, folder, "test"))


def series_data_set(name: str, train: Series, labels: Sequence, test: Series, test_labels: Sequence) -> DataSet:
    """The data set of two splits, as `load_series` returns it.

    Parameters
    ----------
    name : str
        Its name.
    train, test : list of arrays, (time steps, features)
        The series.
    labels, test_labels : sequence
        The label of each, which can be sorted.

    Examples
    --------
    >>> data = series_data_set("mine", [np.zeros((4, 3)), np.ones((2, 3))], ["a", "b"], [np.ones((5, 3))], ["b"])
    >>> data.train.inputs.shape, data.test.labels
    (torch.Size([2, 5, 3]), tensor([1]))
    """
    classes, train_index, test_index = label_indices(name, labels, test_labels)
    features = train[0].shape[1]
    length = max(len(example) for example in train + test)
    for example in train + test:
        check_feature_count(name, example, features)
    mean, deviation = _statistics(name, train)
    train_split = Split(*standardise_and_pad(train, length, mean, deviation), train_index)
    test_split = Split(*standardise_and_pad(test, length, mean, deviation), test_index)
    sizes = dict(features=features, length=length, classes=len(classes))
    return DataSet(name, train_split, test_split, classes, sizes, mean, deviation)


def load_new_series(
    path: Path | str, description: dict[str, Any]
) -> tuple[Float[torch.Tensor, "n length features"], Bool[torch.Tensor, "n length"] | None]:
    """New examples from a .ts file, standardised and padded as those of a data set.

    Parameters
    ----------
    path : path
        The .ts file. Its labels are not used.
    description : dict
        `DataSet.described()` of the data set that a model was trained on.

    Returns
    -------
    inputs : tensor, (n, length, features)
        Standardised by that data set.
    key_mask : tensor of booleans, (n, length), or None
        The padding mask.

    Raises
    ------
    ValueError
        For another number of features, series that are longer than those of the data set, and malformed files.
    """
    path = Path(path)
    if path.suffix != ".ts" or not path.is_file():
        got = "a folder" if path.is_dir() else path.suffix or "no suffix" if path.exists() else "no such file"
        raise ValueError(f"{path}: expected series in a .ts file, a .npz file with X, or a .csv file; got {got}")
    series, _ = read_ts_file(path)
    return new_series(path, series, description)


def new_series(
    source: Path | str, series: Series, description: dict[str, Any]
) -> tuple[Float[torch.Tensor, "n length features"], Bool[torch.Tensor, "n length"] | None]:
    """New examples, standardised and padded as those of a data set; see `load_new_series`."""
    for example in series:
        check_feature_count(source, example, description["sizes"]["features"])
    longest, length = max(map(len, series)), description["sizes"]["length"]
    if longest > length:
        raise ValueError(f"{source}: expected at most {length} time steps, as in training; got {longest}")
    return standardise_and_pad(series, length, description["mean"], description["deviation"])


def standardise_and_pad(
    series: Series, length: int, mean: Sequence[float], deviation: Sequence[float]
) -> tuple[Float[torch.Tensor, "n length features"], Bool[torch.Tensor, "n length"] | None]:
    """(x - mean) / deviation of series of different lengths, padded with zeros at their end.

    Parameters
    ----------
    series : list of arrays, (time steps, features)
        A missing value, NaN, becomes the mean.
    length : int
        The length after padding, at least that of the longest series.
    mean, deviation : sequence of float
        One number a feature. A feature whose deviation is zero tells nothing, and becomes zero.

    Returns
    -------
    inputs : tensor, (n, length, features)
        In float32.
    key_mask : tensor of booleans, (n, length), or None
        The padding mask: True for a time step, False for padding. None if no series is shorter than `length`.

    Examples
    --------
    >>> inputs, key_mask = standardise_and_pad([np.array([[3.0], [5.0]]), np.array([[np.nan]])], 2, [1.0], [2.0])
    >>> inputs[..., 0].tolist(), key_mask.tolist()
    ([[1.0, 2.0], [0.0, 0.0]], [[True, True], [True, False]])
    """
    inputs = np.zeros((len(series), length, len(mean)), np.float32)
    key_mask = np.arange(length) < np.array([len(example) for example in series])[:, None]
    divisor = np.where(np.array(deviation) > 0, deviation, np.inf)
    for row, example in zip(inputs, series, strict=True):
        row[: len(example)] = np.nan_to_num((example - mean) / divisor)
    return torch.tensor(inputs), None if key_mask.all() else torch.tensor(key_mask)


def _statistics(name: str, train: Series) -> tuple[list[float], list[float]]:
    """The mean and the standard deviation of each feature, over all time steps of all examples that have a value."""
    steps = np.concatenate(train)
    has_value = (~np.isnan(steps)).any(axis=0)
    if not has_value.all():
        missing = np.argmin(has_value)
        raise ValueError(f"{name}: expected some value of each feature in training; got none of {missing}")
    mean = np.nanmean(steps, axis=0).tolist()
    constant = np.nanmin(steps, axis=0) == np.nanmax(steps, axis=0)  # rounding may give it a tiny deviation
    deviation = np.where(constant, 0.0, np.nanstd(steps, axis=0)).tolist()
    return mean, deviation
