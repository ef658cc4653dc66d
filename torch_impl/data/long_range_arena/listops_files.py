"""The Long Range Arena's files of ListOps, basic_train.tsv and basic_test.tsv."""

from pathlib import Path

import numpy as np

from torch_impl.data.messages import quoted_ends

WORDS = (*"0123456789", "[MIN", "[MAX", "[MED", "[SM", "]")  # in the order of the tokens of `listops.expressions`
TOKENS = {word.encode(): token for token, word in enumerate(WORDS)}
NO_TOKEN = -1
DEPTH_CHANGES = np.array([0] * 10 + [1] * 4 + [-1])  # of each token: an operator opens a bracket, "]" closes it


def read_expressions(path: Path, length: int) -> tuple[list[bytes], list[int]]:
    """The expressions of a file and their values, as `listops.expressions` returns them.

    Parameters
    ----------
    path : path
        A line for each expression, then a tab and its value. The parentheses in an expression are not tokens.
    length : int
        All expressions have fewer tokens.

    Raises
    ------
    ValueError
        For a file that is missing or empty, and for a line that is malformed or too long.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file; expected basic_train.tsv and basic_test.tsv")
    rows, values = [], []
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            expression, _, value = line.rstrip().partition(b"\t")
            if number == 1 and (expression, value) == (b"Source", b"Target"):
                continue
            row = [TOKENS.get(word, NO_TOKEN) for word in expression.translate(None, b"()").split()]
            digit = TOKENS.get(value, NO_TOKEN)
            if not _is_expression(row) or not 0 <= digit <= 9:
                expected = "expected a whole expression, a tab and a digit"
                raise ValueError(f"{path}, line {number}: {expected}; got {quoted_ends(line)}")
            if len(row) >= length:
                expected = f"expected fewer than {length} tokens, as published"
                raise ValueError(f"{path}, line {number}: {expected}; got {len(row)}")
            rows.append(bytes(row))
            values.append(digit)
    if not rows:
        raise ValueError(f"{path}: expected expressions; got none")
    return rows, values


def _is_expression(row: list[int]) -> bool:
    """Whether tokens are known and their brackets match: the depth is zero at the end, and only there.

    A single digit, whose depth is never above zero, is an expression.
    """
    if not row or NO_TOKEN in row:
        return False
    depth = DEPTH_CHANGES[row].cumsum()
    return bool(depth[-1] == 0 and (depth[:-1] > 0).all())
