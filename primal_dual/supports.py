"""Supports: which keys train the SVR of which query, by position.

`support.sees(i, j)` is true where key j trains the SVR of query i, for integer arrays that broadcast. A support of
your own is a frozen dataclass with `sees`. Queries and keys may differ in number.
"""

from dataclasses import dataclass

import numpy

from primal_dual import checks


@dataclass(frozen=True)
class Everything:
    """All keys: one SVR, shared by all queries."""

    def sees(self, i, j):
        return (i >= 0) & (j >= 0)


@dataclass(frozen=True)
class Window:
    """|i - j| <= radius."""

    radius: int

    def __post_init__(self):
        checks.integer("Window: radius", self.radius, 0)

    def sees(self, i, j):
        return abs(i - j) <= self.radius


@dataclass(frozen=True)
class Strided:
    """(i - j) % stride == 0."""

    stride: int

    def __post_init__(self):
        checks.integer("Strided: stride", self.stride, 1)

    def sees(self, i, j):
        return (i - j) % self.stride == 0


@dataclass(frozen=True)
class Causal:
    """j <= i."""

    def sees(self, i, j):
        return j <= i


@dataclass(frozen=True, eq=False, repr=False)
class Mask:
    """table[i, j], an (M, N) array of booleans, shared by batch and heads; compared by identity."""

    table: numpy.ndarray

    def __post_init__(self):
        table = checks.booleans("Mask: table", self.table)
        if table.ndim != 2 or 0 in table.shape:
            raise ValueError(f"Mask: expected an (M, N) table of booleans; got {table.dtype} {table.shape}")
        table.setflags(write=False)
        object.__setattr__(self, "table", table)

    def __repr__(self):
        return f"Mask(table of {self.table.shape[0]} x {self.table.shape[1]})"

    def sees(self, i, j):
        return self.table[i, j]


def check_size(support, queries, keys):
    """A mask's table must have a row a query and a column a key; the other supports fit any number of either."""
    if isinstance(support, Mask) and support.table.shape != (queries, keys):
        raise ValueError(f"Mask: expected a table ({queries}, {keys}), queries by keys; got {support.table.shape}")


def sees(support, queries, keys):
    """support.sees of positions `queries` (M,) and all of `keys` keys, (M, keys) booleans."""
    seen = support.sees(queries[:, None], numpy.arange(keys))
    if not isinstance(seen, numpy.ndarray) or seen.dtype != bool or seen.shape != (len(queries), keys):
        got = f"{getattr(seen, 'dtype', type(seen).__name__)} {getattr(seen, 'shape', '')}"
        raise ValueError(f"{support}: sees: expected booleans ({len(queries)}, {keys}); got {got}")
    return seen


def svr_queries(support, keys):
    """The queries that have an SVR of their own where a head attends to itself; [None] where all share one."""
    return [None] if isinstance(support, Everything) else range(positions(support, keys))


def positions(support, keys):
    """How many queries there are where a head attends to itself: a mask's rows, else as many as keys."""
    return len(support.table) if isinstance(support, Mask) else keys
