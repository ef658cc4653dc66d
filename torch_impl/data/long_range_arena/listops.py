"""ListOps (Nangia and Bowman, 2018): random nested expressions over lists of digits, and their values.

An expression such as [MAX 4 3 [SM 9 9 ] ] is a tree, whose inner nodes are operators and whose leaves are digits. Many
trees are generated side by side, level by level, as arrays: first their shapes, from the root down; then their words
and values, from the leaves up; then the words are written in order, from the root down again.
"""

from typing import NamedTuple

import numpy as np

from primal_dual.types import Bool, Int, Integer
from torch_impl.data.messages import Say, say_nothing

MAX_DEPTH, MAX_ARGUMENTS, OPERATOR_PROBABILITY = 10, 10, 0.25
DIGITS, OPERATORS = 10, 4  # tokens 0 to 9 are digits, 10 to 13 are operators
CLOSING_BRACKET = 14
TREES = 4096  # generated side by side


def expressions(count: int, length: int = 2000, seed: int = 0, say: Say = say_nothing) -> tuple[list[bytes], list[int]]:
    """Different random expressions with the settings of the Long Range Arena.

    An expression is an operator with probability 1/4, else a digit, and always a digit at depth 10. An operator has 2
    to 10 arguments, each of them an expression. The operators are MIN, MAX, MED (the median, rounded down) and SM (the
    sum modulo 10). Only expressions of more than length / 4 tokens and fewer than length tokens are kept. Operators,
    digits and closing brackets are tokens; the parentheses in the files of the benchmark are not.

    Parameters
    ----------
    count : int
        How many. The first of them are the same for every count.
    length : int
        From 32 to 8,000: outside, such expressions are too few or too rare. The benchmark's is 2,000.
    seed : int
        Of the random numbers.
    say : callable
        Is called with messages about the progress; 100,000 expressions take 10 s.

    Returns
    -------
    tokens : list of bytes
        0 to 9 for the digits, 10 to 13 for MIN, MAX, MED and SM, 14 for the closing bracket.
    values : list of int
        0 to 9.

    Raises
    ------
    ValueError
        For a length outside 32 to 8,000.

    Examples
    --------
    >>> tokens, values = expressions(2, length=32)
    >>> list(tokens[1]), values[1]  # [SM 8 4 [SM 5 9 3 0 7 9 ] 0 ]
    ([13, 8, 4, 13, 5, 9, 3, 0, 7, 9, 14, 0, 14], 5)
    """
    if not 32 <= length <= 8000:
        raise ValueError(f"length: expected 32 to 8000 for ListOps; got {length}")
    rng = np.random.default_rng(seed)
    found: dict[bytes, int] = {}
    while len(found) < count:
        known = len(found)
        for tokens, value in _random_expressions(rng, length):
            found.setdefault(tokens, value)
        if len(found) * 10 // count > known * 10 // count:
            say(f"ListOps: {min(len(found), count):,} of {count:,} expressions")
    return list(found)[:count], list(found.values())[:count]


class _Level(NamedTuple):
    """The nodes of one depth: which tree each belongs to, and how many arguments it has, 0 for a digit."""

    tree: Int[np.ndarray, " nodes"]
    arguments: Int[np.ndarray, " nodes"]


class _Words(NamedTuple):
    """The nodes of one depth with their words.

    `tokens_before` belongs to the arguments of this depth's operators, one after the other: the tokens of the same
    operator's earlier arguments.
    """

    tree: Int[np.ndarray, " nodes"]
    is_operator: Bool[np.ndarray, " nodes"]
    arguments: Int[np.ndarray, " operators"]
    word: Int[np.ndarray, " nodes"]
    tokens_before: Int[np.ndarray, " nodes_below"]


def _random_expressions(rng: np.random.Generator, length: int) -> list[tuple[bytes, int]]:
    """The tokens and values of those of TREES random expressions whose number of tokens is allowed."""
    levels, token_count = _draw_shapes(rng)
    fits = (length / 4 < token_count) & (token_count < length)
    levels = [_Level(tree[fits[tree]], arguments[fits[tree]]) for tree, arguments in levels]
    words, values = _draw_words(rng, levels)
    rows = _write(words, fits, length)
    counts = token_count[fits]
    return [(row[:n].tobytes(), int(value)) for row, n, value in zip(rows, counts, values, strict=True)]


def _draw_shapes(rng: np.random.Generator) -> tuple[list[_Level], Int[np.ndarray, " trees"]]:
    """The levels of random trees, from the root down, and the number of tokens of each tree."""
    tree = np.arange(TREES)
    levels = []
    token_count = np.zeros(TREES, int)
    for depth in range(1, MAX_DEPTH + 1):
        is_operator = (rng.random(len(tree)) <= OPERATOR_PROBABILITY) & (depth < MAX_DEPTH)
        arguments = is_operator * rng.integers(2, MAX_ARGUMENTS, len(tree), endpoint=True)
        levels.append(_Level(tree, arguments))
        token_count += np.bincount(tree, 1 + is_operator, TREES).astype(int)
        tree = np.repeat(tree, arguments)  # the nodes of the next level
    return levels, token_count


def _draw_words(rng: np.random.Generator, levels: list[_Level]) -> tuple[list[_Words], Int[np.ndarray, " trees"]]:
    """Random operators and digits for the nodes, from the leaves up, and the values of the trees.

    The words are returned from the root down.
    """
    words: list[_Words] = []
    tokens_below, value_below = np.zeros(0, int), np.zeros(0, int)  # of the subtree of each node one level deeper
    for tree, arguments_or_zero in reversed(levels):
        is_operator = arguments_or_zero > 0
        arguments = arguments_or_zero[is_operator]
        first = arguments.cumsum() - arguments  # where the arguments of each operator begin on the level below
        tokens_before = tokens_below.cumsum() - tokens_below
        tokens_before -= np.repeat(tokens_before[first], arguments)
        operator = rng.integers(OPERATORS, size=len(arguments))
        value = rng.integers(DIGITS, size=len(tree))
        word = value.copy()
        tokens = np.ones(len(tree), int)
        if len(arguments):
            word[is_operator] = DIGITS + operator
            tokens[is_operator] = 2 + np.add.reduceat(tokens_below, first)  # and two for operator and bracket
            value[is_operator] = _evaluate(operator, value_below, first, arguments)
        words.append(_Words(tree, is_operator, arguments, word, tokens_before))
        tokens_below, value_below = tokens, value
    return words[::-1], value_below


def _evaluate(
    operator: Int[np.ndarray, " operators"],
    values: Int[np.ndarray, " nodes_below"],
    first: Int[np.ndarray, " operators"],
    arguments: Int[np.ndarray, " operators"],
) -> Int[np.ndarray, " operators"]:
    """The values of operators, whose arguments' values stand next to each other from `first` on."""
    owner = np.repeat(np.arange(len(arguments)), arguments)
    ranked = values[np.lexsort((values, owner))]  # sorted inside each operator
    smallest, largest = ranked[first], ranked[first + arguments - 1]
    median = (ranked[first + (arguments - 1) // 2] + ranked[first + arguments // 2]) // 2
    return np.choose(operator, (smallest, largest, median, np.add.reduceat(values, first) % 10))


def _write(words: list[_Words], fits: Bool[np.ndarray, " trees"], length: int) -> Integer[np.ndarray, "kept length"]:
    """The tokens of each expression that fits, a row each, filled up with closing brackets."""
    page = np.full((TREES, length), CLOSING_BRACKET, np.uint8)  # wherever no word is written, a bracket closes
    place = np.zeros(fits.sum(), int)  # of each node of a level in the row of its tree
    for tree, is_operator, arguments, word, tokens_before in words:
        page[tree, place] = word
        place = np.repeat(place[is_operator], arguments) + 1 + tokens_before
    return page[fits]
