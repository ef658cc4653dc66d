"""Files that hold a data set, or new examples, as arrays: .npz, and .csv with one case a row."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from primal_dual.io.files import DAMAGED
from primal_dual.types import Float
from torch_impl.data.arrays import is_missing_label
from torch_impl.data.messages import one_line, quoted_ends

SUFFIXES = ".npz", ".csv"


class Splits(NamedTuple):
    """The two splits of a data set, as their files have them."""

    X_train: np.ndarray
    y_train: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray


def split_files(folder: Path | str | None, name: str) -> tuple[Path, ...]:
    """The files with the arrays of a data set.

    They are `name`.npz; or `name`_TRAIN and `name`_TEST, both .npz or both .csv. None if there are none.

    Raises
    ------
    ValueError
        If one of two is missing, and for several of these.
    """
    found = []
    for names in ((f"{name}.npz",), *((f"{name}_TRAIN{suffix}", f"{name}_TEST{suffix}") for suffix in SUFFIXES)):
        files = tuple(Path(folder or "", each) for each in names)
        missing = [file for file in files if folder is None or not file.exists()]
        if not missing:
            found.append(files)
        elif len(missing) < len(files):
            raise ValueError(f"{name}: expected both {names[0]} and {names[1]}; got no {missing[0]}")
    if len(found) > 1:
        raise ValueError(f"{name}: expected one data set of this name; got {' and '.join(str(x[0]) for x in found)}")
    return found[0] if found else ()


def read_splits(files: Sequence[Path]) -> Splits:
    """The arrays of `split_files`.

    One file has X_train, y_train, X_test and y_test. Two .npz have X and y each, two .csv the label in the last column.

    Raises
    ------
    ValueError
        For what is missing, damaged, or no array of numbers.
    """
    if len(files) == 1:
        return Splits(*read_npz(files[0], *Splits._fields))
    if files[0].suffix == ".csv":
        return Splits(*read_labelled_csv(files[0]), *read_labelled_csv(files[1]))
    return Splits(*read_npz(files[0], "X", "y"), *read_npz(files[1], "X", "y"))


def read_examples(path: Path) -> np.ndarray:
    """New examples: the array X of a .npz file, or the rows of a .csv file without labels.

    Raises
    ------
    ValueError
        As `read_splits`.
    """
    if path.suffix == ".npz":
        return read_npz(path, "X")[0]
    first, rows = _rows(path)
    if first == 1:
        _expect_a_case(path, rows[0])
    return _numbers(path, first, rows)


def read_npz(path: Path, *names: str) -> list[np.ndarray]:
    """The arrays of some names in a .npz file.

    Raises
    ------
    ValueError
        For another file, a name that is missing, and an array of objects.
    """
    expected = f"{path}: expected a .npz file with {', '.join(names)}"
    try:
        with open(path, "rb") as handle:
            file = np.load(handle)
            if isinstance(file, np.ndarray):
                raise ValueError("a single array")
            if any(name not in file for name in names):
                raise ValueError(", ".join(file) or "no array")
            return [_array(file, name) for name in names]
    except (*DAMAGED, ValueError) as error:
        raise ValueError(f"{expected}; got {one_line(error)}") from error


def _array(file: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    try:
        return file[name]
    except ValueError as error:
        if "Object arrays" not in str(error):
            raise
        labels, series = f"save {name}.astype(str)", "series whose lengths differ go into a .ts file"
        raise ValueError(f"objects in {name}: {labels if name[0] == 'y' else series}") from error


def read_labelled_csv(path: Path) -> tuple[Float[np.ndarray, "n time"], np.ndarray]:
    """The values and the labels of a .csv file: one case a row, its label in the last column.

    A first row of words is a header, whatever its last cell. An empty cell is a missing value.

    Raises
    ------
    ValueError
        For a file that is no text, rows of different lengths, cells that are no numbers, a missing label, and a first
        row that must be a header of numbers: evenly spaced, with a last cell that continues it or occurs once.
    """
    first, rows = _rows(path)
    if len(rows[0]) < 2:
        expected = "expected values and a label in each row, separated by commas"
        raise ValueError(f"{path}: {expected}; got {quoted_ends(rows[0][0])}")
    labels = [row[-1].strip() for row in rows]
    if first == 1:
        _expect_a_case(path, rows[0][: -1 if labels.count(labels[0]) == 1 else None])
    for number, label in enumerate(labels, first):
        if is_missing_label(label):
            raise ValueError(f"{path}: expected a label in the last column; got {label or 'none'} in row {number}")
    return _numbers(path, first, [row[:-1] for row in rows]), np.array(labels)


def _rows(path: Path) -> tuple[int, list[list[str]]]:
    """The cells of a .csv file below its header, if it has one, and the number of the first of these rows."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file, strict=True) if row]
    except (csv.Error, UnicodeDecodeError) as error:
        cure = ": save it as UTF-8" if isinstance(error, UnicodeDecodeError) else ""
        raise ValueError(f"{path}: expected a .csv file; got {one_line(error)}{cure}") from error
    has_header = bool(rows) and all(cell.strip() and not _is_number(cell) for cell in rows[0][:-1] or rows[0])
    rows = rows[has_header:]
    if not rows:
        raise ValueError(f"{path}: expected one case a row; got none")
    for number, row in enumerate(rows, 1 + has_header):
        if len(row) != len(rows[0]):
            raise ValueError(f"{path}: expected {len(rows[0])} cells in each row; got {len(row)} in row {number}")
    return 1 + has_header, rows


def _expect_a_case(path: Path, cells: list[str]) -> None:
    """ValueError for evenly spaced numbers, such as times and pandas' 0, 1, 2, ...; three may be measured."""
    cells = cells[not cells[0].strip() :]  # the name of pandas' index
    if len(cells) < 4 or not all(map(_is_number, cells)):
        return
    with np.errstate(all="ignore"):  # of infinite numbers, which are refused later
        steps = np.diff(np.array(cells, float))
    if steps[0] > 0 and np.allclose(steps, steps[0], rtol=0.01, atol=0):
        raise ValueError(
            f"{path}: expected a header of words, or none; got a first row {', '.join(cells[:3])}, ..., of the numbers "
            "or times of columns: name them by words, or use to_csv(..., index=False, header=False)"
        )


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _numbers(path: Path, first: int, rows: list[list[str]]) -> Float[np.ndarray, "n time"]:
    """Cells as numbers, NaN for empty ones; `first` is the number of the first row in the file."""
    for number, row in enumerate(rows, first):
        for cell in row:
            if cell.strip() and not _is_number(cell):
                raise ValueError(f"{path}: expected numbers; got {quoted_ends(cell)} in row {number}")
    return np.array([[float(cell) if cell.strip() else np.nan for cell in row] for row in rows])
