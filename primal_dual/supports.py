"""Supports: which keys train the SVR of which query, by position. Sparse attention has one that is not `Everything`.

What a support must offer stands in `protocols.py`. Queries and keys may differ in number.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy

from primal_dual import checks
from primal_dual.protocols import Support
from primal_dual.types import Array, Bool, Int


@dataclass(frozen=True)
class Everything:
    """All keys train one SVR, which all queries share: dense attention."""

    def sees(self, i: Int[Array, "..."], j: Int[Array, "..."]) -> Bool[Array, "..."]:
        """True."""
        return (i >= 0) & (j >= 0)


@dataclass(frozen=True)
class Window:
    """Query i sees the keys at most `radius` positions away, |i - j| <= radius.

    Examples
    --------
    >>> visibility_table(Window(1), numpy.arange(3), 3).astype(int).tolist()
    [[1, 1, 0], [1, 1, 1], [0, 1, 1]]
    """

    radius: int

    def __post_init__(self) -> None:
        checks.integer("Window: radius", self.radius, 0)

    def sees(self, i: Int[Array, "..."], j: Int[Array, "..."]) -> Bool[Array, "..."]:
        """|i - j| <= radius."""
        return abs(i - j) <= self.radius


@dataclass(frozen=True)
class Strided:
    """Query i sees every `stride`-th key, counted from itself: (i - j) % stride == 0.

    Examples
    --------
    >>> visibility_table(Strided(2), numpy.arange(3), 3).astype(int).tolist()
    [[1, 0, 1], [0, 1, 0], [1, 0, 1]]
    """

    stride: int

    def __post_init__(self) -> None:
        checks.integer("Strided: stride", self.stride, 1)

    def sees(self, i: Int[Array, "..."], j: Int[Array, "..."]) -> Bool[Array, "..."]:
        """(i - j) % stride == 0."""
        return (i - j) % self.stride == 0


@dataclass(frozen=True)
class Causal:
    """Query i sees the keys up to its own position, j <= i.

    Examples
    --------
    >>> visibility_table(Causal(), numpy.arange(3), 3).astype(int).tolist()
    [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    """

    def sees(self, i: Int[Array, "..."], j: Int[Array, "..."]) -> Bool[Array, "..."]:
        """j <= i."""
        return j <= i


@dataclass(frozen=True, eq=False, repr=False)
class Mask:
    """Any pattern, as a table: query i sees key j where table[i, j] is True.

    The table is shared by batch and heads. Two masks are equal if they are the same object.

    Parameters
    ----------
    table : array of booleans, (M, N)
        A row a query and a column a key. It is copied, and cannot be written to.

    Examples
    --------
    >>> visibility_table(Mask([[True, False]]), numpy.arange(1), 2).tolist()
    [[True, False]]
    """

    table: numpy.ndarray

    def __post_init__(self) -> None:
        table = checks.booleans("Mask: table", self.table)
        if table.ndim != 2 or 0 in table.shape:
            raise ValueError(f"Mask: expected an (M, N) table of booleans; got {table.dtype} {table.shape}")
        table.setflags(write=False)
        object.__setattr__(self, "table", table)

    def __deepcopy__(self, memo: object) -> "Mask":
        return self  # a copy of the table could be written to, and would not be equal

    def __reduce__(self) -> tuple[type, tuple[numpy.ndarray]]:
        return Mask, (self.table,)

    def __repr__(self) -> str:
        return f"Mask(table of {self.table.shape[0]} x {self.table.shape[1]})"

    def sees(self, i: Int[Array, "..."], j: Int[Array, "..."]) -> Bool[Array, "..."]:
        """table[i, j]."""
        return self.table[i, j]


def check_size(support: Support, queries: int, keys: int) -> None:
    """A mask's table must have a row a query and a column a key; the other supports fit any number of either."""
    if isinstance(support, Mask) and support.table.shape != (queries, keys):
        raise ValueError(f"Mask: expected a table ({queries}, {keys}), queries by keys; got {support.table.shape}")


def visibility_table(support: Support, queries: Int[Array, " M"], keys: int) -> Bool[Array, "M N"]:
    """Which of `keys` keys the queries at the positions `queries` see. ValueError if a support gives no booleans."""
    seen = support.sees(queries[:, None], numpy.arange(keys))
    if not isinstance(seen, numpy.ndarray) or seen.dtype != bool or seen.shape != (len(queries), keys):
        got = f"{getattr(seen, 'dtype', type(seen).__name__)} {getattr(seen, 'shape', '')}"
        raise ValueError(f"{support}: sees: expected booleans ({len(queries)}, {keys}); got {got}")
    if type(support).__module__ != __name__:
        again = support.sees(queries[:1, None], numpy.arange(0, keys, 2))
        if not numpy.array_equal(again, seen[:1, ::2]):
            raise ValueError(f"{support}: sees: expected the same of i and j in every call; got what varies")
    return seen


def svr_queries(support: Support, keys: int) -> Sequence[int | None]:
    """The queries that have an SVR of their own where a head attends to itself; [None] where all share one."""
    return [None] if isinstance(support, Everything) else range(positions(support, keys))


def positions(support: Support, keys: int) -> int:
    """How many queries there are where a head attends to itself: a mask's rows, else as many as keys."""
    return len(support.table) if isinstance(support, Mask) else keys
