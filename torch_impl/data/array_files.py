"""Files that hold a data set, or new examples, as arrays: .npz, and .csv with one case a row."""

import csv
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from primal_dual.types import Float
from torch_impl.data.messages import one_line, quoted_ends

SUFFIXES = ".npz", ".csv"
DAMAGED = (  # what NumPy raises of damaged files
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
        If one of two is missing.
    """
    for names in ((f"{name}.npz",), *((f"{name}_TRAIN{suffix}", f"{name}_TEST{suffix}") for suffix in SUFFIXES)):
        files = tuple(Path(folder or "", each) for each in names)
        missing = [file for file in files if folder is None or not file.exists()]
        if not missing:
            return files
        if len(missing) < len(files):
            raise ValueError(f"{name}: expected both {names[0]} and {names[1]}; got no {missing[0]}")
    return ()


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
    return read_npz(path, "X")[0] if path.suffix == ".npz" else _numbers(path, *_rows(path))


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
            return [file[name] for name in names]
    except (*DAMAGED, ValueError) as error:
        of_objects = "Object arrays" in str(error) or "pickle" in str(error)
        got = "objects: series whose lengths differ go into a .ts file" if of_objects else one_line(error)
        raise ValueError(f"{expected}; got {got}") from error


def read_labelled_csv(path: Path) -> tuple[Float[np.ndarray, "n time"], np.ndarray]:
    """The values and the labels of a .csv file: one case a row, its label in the last column.

    A first row of words is a header, whatever its last cell. An empty cell is a missing value.

    Raises
    ------
    ValueError
        For a file that is no text, rows of different lengths, cells that are no numbers, a missing label, and a first
        row that counts 0, 1, 2, ..., as pandas writes the names of columns that have none.
    """
    first, rows = _rows(path)
    if len(rows[0]) < 2:
        raise ValueError(f"{path}: expected values and a label in each row, separated by commas; got {rows[0]}")
    labels = [row[-1].strip() for row in rows]
    if "" in labels:
        raise ValueError(f"{path}: expected a label in the last column; got none in row {first + labels.index('')}")
    return _numbers(path, first, [row[:-1] for row in rows]), np.array(labels)


def _rows(path: Path) -> tuple[int, list[list[str]]]:
    """The cells of a .csv file below its header, if it has one, and the number of the first of these rows."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file, strict=True) if row]
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected a .csv file; got {one_line(error)}") from error
    has_header = bool(rows) and all(cell.strip() and not _is_number(cell) for cell in rows[0][:-1] or rows[0])
    if rows and _counts(rows[0]):
        raise ValueError(
            f"{path}: expected a header of words, or none; got the row 0, 1, 2, ... first, as pandas writes for "
            "columns without names: name them, or use to_csv(..., index=False, header=False)"
        )
    rows = rows[has_header:]
    if not rows:
        raise ValueError(f"{path}: expected one case a row; got none")
    for number, row in enumerate(rows, 1 + has_header):
        if len(row) != len(rows[0]):
            raise ValueError(f"{path}: expected {len(rows[0])} cells in each row; got {len(row)} in row {number}")
    return 1 + has_header, rows


def _counts(row: list[str]) -> bool:
    """Whether the cells are 0, 1, 2, ..., whatever comes before and after; fewer than four could be measured."""
    cells = row[1:] if row[0].strip() == "" else row
    counted = sum(cell.strip() == str(i) for i, cell in enumerate(cells))
    return counted >= 4 and counted >= len(cells) - 1


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
