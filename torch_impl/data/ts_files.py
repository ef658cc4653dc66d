"""Time series as the UEA archive writes them, in .ts files, and the two sets that come with aeon.

aeon parses the numbers. Its reader takes some malformed files for something else, so that header and labels are read
and checked here first.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np

from primal_dual.io.datasets import home_of_aeon
from primal_dual.types import Float, Num
from torch_impl.data.messages import first_names, one_line, quoted_ends

EMBEDDED = ("JapaneseVowels", "BasicMotions")
NUMBER_CHARACTERS = frozenset("0123456789+-.e,: \t?nan")  # ? and nan stand for a missing value
LARGEST_VALUE = 1e20  # squares and standardised values of larger ones might overflow in float32
NO_LABEL = "?"

Series = list[Float[np.ndarray, "_ _"]]  # one array (time steps, features) an example


def read_split(name: str, folder: Path | str | None, split: str) -> tuple[Series, list[str]]:
    """The examples of a split of a data set, and their labels.

    Parameters
    ----------
    name : str
        "JapaneseVowels" or "BasicMotions", which come with aeon, or the name of a folder inside `folder`.
    folder : path or None
        The folder of data sets. What it holds takes precedence over aeon's sets.
    split : str
        "train" or "test".

    Returns
    -------
    series : list of arrays, (time steps, features)
        In float64, NaN where a value is missing.
    labels : list of str
        One an example.

    Raises
    ------
    ValueError
        For a set that is not there, and for what `read_ts_file` refuses.

    Examples
    --------
    >>> series, labels = read_split("BasicMotions", None, "train")
    >>> len(series), series[0].shape, labels[0]
    (40, (100, 6), 'standing')
    """
    if folder is not None:
        files = {each: Path(folder) / name / f"{name}_{each.upper()}.ts" for each in ("train", "test")}
        if any(file.exists() for file in files.values()):
            return read_ts_file(files[split])
        if name not in EMBEDDED:
            raise ValueError(_no_data_set(name, Path(folder)))
    elif name not in EMBEDDED:
        raise ValueError(f"{name}: expected --data, the folder with its files, or one of {', '.join(EMBEDDED)}")
    datasets = _aeon_datasets()
    load = datasets.load_japanese_vowels if name == "JapaneseVowels" else datasets.load_basic_motions
    with home_of_aeon():
        series, labels = load(split=split)
    return checked_series(name, series), list(map(str, labels))


def _no_data_set(name: str, folder: Path) -> str:
    """What was expected in the folder of data sets, all of whose layouts begin with the name."""
    if not folder.is_dir():
        return f"{folder}: expected --data, the folder of data sets; got no such folder"
    if Path(name).suffix in (".npz", ".csv", ".ts"):
        return f"{name}: expected the name of a data set, without the suffix of its files"
    arrays = f"{name}.npz, {name}_TRAIN and {name}_TEST as .npz or .csv"
    folders = f"or a folder {name} with {name}_TRAIN.ts and {name}_TEST.ts, or with images in train and test or val"
    return f"{name}: expected {arrays}, {folders}; got none of them in {folder}"


def read_ts_file(path: Path) -> tuple[Series, list[str]]:
    """The examples of a .ts file, and their labels, as `read_split` returns them.

    Raises
    ------
    ValueError
        For a file that is missing, empty or malformed, and for values whose size exceeds 1e20.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file; expected NAME/NAME_TRAIN.ts and NAME/NAME_TEST.ts under --data")
    try:
        encoding = "utf-8-sig"
        labels = _labels(path, encoding)
    except UnicodeDecodeError:
        encoding = "latin-1"  # in which any bytes are text
        labels = _labels(path, encoding)
    load: Callable = _aeon_datasets().load_from_ts_file
    try:
        series, _ = load(str(path), encoding=encoding)
    except Exception as error:  # a malformed file may raise anything inside the reader
        differ = "channels or cases of different lengths; for those of cases, the header needs @equalLength false"
        got = differ if "number of observations" in str(error) else one_line(error)
        raise ValueError(f"{path}: expected a .ts file of the UEA archive; got {got}") from error
    return checked_series(path, series), labels


def check_feature_count(source: Path | str, example: Float[np.ndarray, "time features_here"], features: int) -> None:
    """Raise ValueError unless an example has as many features as expected."""
    if example.shape[1] != features:
        raise ValueError(f"{source}: expected {features} features in each case; got {example.shape[1]}")


def _labels(path: Path, encoding: str) -> list[str]:
    """The label of each example of a .ts file, in lower case, or "?" if its header says that there are none."""
    with open(path, encoding=encoding) as file:
        lines = enumerate((line.strip() for line in file), 1)
        classes = _classes(path, lines)
        return [_label(path, number, line.lower(), classes) for number, line in lines]


def _classes(path: Path, lines: Iterator[tuple[int, str]]) -> list[str] | None:
    """Read the header of a .ts file, up to its @data: the names of the classes, or None if examples have no label.

    Raises ValueError for what aeon's reader would misunderstand: examples before @data, no @classLabel (it would take
    the last feature for labels), time stamps (it drops their signs), the targets of a regression, and classes that
    differ by upper case alone (it makes one of them).
    """
    header: dict[str, list[str]] = {}
    for number, line in lines:
        if line.lower() == "@data":
            break
        tag, *words = line.split() or ["#"]
        if tag[0] == "@":
            header[tag.lower()] = words
        elif header and tag[0] != "#":  # above the first tag, a description is allowed
            raise ValueError(f"{path}: expected tags up to @data; got {quoted_ends(line)} in line {number}")
    if "true" in map(str.lower, header.get("@timestamps", []) + header.get("@targetlabel", [])):
        raise ValueError(f"{path}: expected @timeStamps false and no @targetLabel; got true")
    if not header.get("@classlabel"):
        raise ValueError(f"{path}: expected @classLabel true and the classes, or @classLabel false; got none")
    labelled, *names = header["@classlabel"]
    classes = [name.lower() for name in names]
    if len(set(classes)) < len(set(names)):
        raise ValueError(f"{path}: expected classes that differ in lower case, too; got {first_names(names)}")
    return classes if labelled.lower() == "true" else None


def _label(path: Path, number: int, line: str, classes: list[str] | None) -> str:
    """The label at the end of an example's line.

    Raises ValueError for numbers that only Python understands, such as 1_0 or inf, and for a label that the header
    does not name.
    """
    if classes is None:
        values, label = line, NO_LABEL
    else:
        values, _, label = line.rpartition(":")
        label = label.strip()
    if not set(values) <= NUMBER_CHARACTERS or (classes is not None and label not in classes):
        expected = "expected a .ts file of numbers, and a label that its header names"
        raise ValueError(f"{path}: {expected}; got {quoted_ends(line)} in line {number}")
    return label


def checked_series(source: Path | str, arrays: Iterable[Num[np.ndarray, "features time"]]) -> Series:
    """Arrays (features, time steps), as aeon has them, as arrays (time steps, features).

    Raises ValueError for none, for an empty one, and for values whose size exceeds 1e20.
    """
    series = [np.asarray(x, float).T for x in arrays]
    if not series or min(x.size for x in series) == 0:
        raise ValueError(f"{source}: expected cases with one time step or more; got none or an empty one")
    largest = max(np.abs(x).max(initial=0, where=~np.isnan(x)) for x in series)
    if largest > LARGEST_VALUE:
        raise ValueError(f"{source}: expected numbers of at most {LARGEST_VALUE:g} in size; got {largest:g}")
    return series


def _aeon_datasets() -> ModuleType:
    try:
        from aeon import datasets
    except ImportError as error:
        raise ValueError('time series need aeon: pip install ".[data]" in the checkout') from error
    return datasets
