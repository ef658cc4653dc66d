"""ListOps."""

import numpy as np

MAX_DEPTH, MAX_ARGUMENTS, OPERATOR_RATE = 10, 10, 0.25
OPERATORS, END = 4, 14
TREES = 4096  # grown side by side


def expressions(count, length=2000, seed=0, say=lambda line: None):
    """Different random expressions of ListOps -> their tokens, a list of bytes, and their values, a list of 0 to 9.

    Tokens: 0 to 9 the digits, 10 to 13 the operators MIN, MAX, MED and SM, 14 the closing bracket. With the published
    settings: an expression is an operator with probability 1/4, else a digit, and always a digit at depth 10; an
    operator has 2 to 10 arguments, each an expression; MED is the median without its fraction. Kept are those of more
    than length / 4 tokens and fewer than length, 501 to 1,999 as published. Operators, digits and closing brackets
    count; the parentheses of the benchmark's files do not. Fewer of a seed are the first of more. 100,000 take 10 s.

    Raises ValueError for a length that is not in 32 to 8,000, where expressions are too few or too rare.
    """
    if not 32 <= length <= 8000:
        raise ValueError(f"length: expected 32 to 8000 for ListOps; got {length}")
    rng, found = np.random.default_rng(seed), {}
    while len(found) < count:
        known = len(found)
        for tokens, value in _grown(rng, length):
            found.setdefault(tokens, value)
        if len(found) * 10 // count > known * 10 // count:
            say(f"ListOps: {min(len(found), count):,} of {count:,} expressions")
    return list(found)[:count], list(found.values())[:count]


def _grown(rng, length):
    """Many random trees, level by level, all at once -> the tokens and values of those that fit."""
    tree, levels, tokens = np.arange(TREES), [], np.zeros(TREES, int)
    for depth in range(1, MAX_DEPTH + 1):
        operates = (rng.random(len(tree)) <= OPERATOR_RATE) & (depth < MAX_DEPTH)
        counts = operates * rng.integers(2, MAX_ARGUMENTS, len(tree), endpoint=True)
        levels.append((tree, counts))
        tokens += np.bincount(tree, 1 + operates, TREES).astype(int)
        tree = np.repeat(tree, counts)  # whose arguments are the next level
    fits = (length / 4 < tokens) & (tokens < length)
    levels = [(tree[fits[tree]], counts[fits[tree]]) for tree, counts in levels]

    nodes, size, value = [], np.zeros(0, int), np.zeros(0, int)  # size: tokens below and at each node of a level
    for tree, counts in reversed(levels):
        operates = counts > 0
        counts = counts[operates]
        starts = counts.cumsum() - counts
        before = size.cumsum() - size
        before -= np.repeat(before[starts], counts)  # tokens of the same operator's arguments before each
        operator = rng.integers(OPERATORS, size=len(counts))
        value_above = rng.integers(10, size=len(tree))
        word, size_above = value_above.copy(), np.ones(len(tree), int)
        if len(counts):
            word[operates] = 10 + operator
            size_above[operates] = 2 + np.add.reduceat(size, starts)
            value_above[operates] = _values(operator, value, starts, counts)
        size, value = size_above, value_above
        nodes.append((tree, operates, counts, word, before))

    page = np.full((TREES, length), END, np.uint8)  # where no other word comes, a bracket closes
    place = np.zeros(fits.sum(), int)
    for tree, operates, counts, word, before in reversed(nodes):
        page[tree, place] = word
        place = np.repeat(place[operates], counts) + 1 + before
    return [(page[i, : tokens[i]].tobytes(), int(each)) for i, each in zip(np.flatnonzero(fits), value, strict=True)]


def _values(operator, arguments, starts, counts):
    """What operators make of their arguments, which stand one operator's after another's."""
    ranked = arguments[np.lexsort((arguments, np.repeat(np.arange(len(counts)), counts)))]
    smallest, largest = ranked[starts], ranked[starts + counts - 1]
    median = (ranked[starts + (counts - 1) // 2] + ranked[starts + counts // 2]) // 2
    return np.choose(operator, (smallest, largest, median, np.add.reduceat(arguments, starts) % 10))
