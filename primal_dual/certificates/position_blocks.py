"""The duality gaps of all queries of a sparse head, a block of queries at a time.

Each query has an SVR of its own, on the keys that it sees. The SVRs of a block lie side by side. Each is filled up to
the size of the largest with copies of its first training point, which no sum counts.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from primal_dual.certificates.gap import Expansion, judge
from primal_dual.expansion import attention
from primal_dual.kernel_matrix import kernel_rows, normalizer
from primal_dual.primal import Primal
from primal_dual.sequence import convolve_sequence, pool
from primal_dual.supports import check_size, positions, visibility_table
from primal_dual.svr.training_sets import log_lengths, pooled_rows, training_set, without_positions
from primal_dual.transforms import fit, split_convolutions
from primal_dual.types import Array, Bool, Float, Int

QUERIES_AT_A_TIME = 64  # at most
ENTRIES_AT_A_TIME = 2**16  # of kernel matrices, which then stay in a cache


def gaps_by_blocks(
    primal: Primal,
    keys: Float[Array, "N D"],
    values: Float[Array, "N Dv"],
    targets: Float[Array, "rows Dv"] | None,
    C: float | None,
    epsilon: float,
) -> Float[np.ndarray, " M"]:
    """The relative gap of each query, as `certify` judges it; NaN where |W|^2 is too large for a float.

    Parameters
    ----------
    primal : Primal
        With a support other than Everything.
    keys, values, targets, C, epsilon
        As in `certify`.

    Raises
    ------
    ValueError
        For a query that sees no key, targets that do not fit, and an h near zero.
    """
    count = positions(primal.support, len(keys))
    check_size(primal.support, count, len(keys))
    gaps: list[float] = []
    while len(gaps) < count:
        block = _block(primal, keys, range(len(gaps), min(len(gaps) + QUERIES_AT_A_TIME, count)))
        rows = None if targets is None else _targets(primal, keys, targets, block)
        for b, svr in enumerate(_expansions(primal, keys, values, block)):
            y = None if rows is None else rows[b][: len(svr.f)]
            gap = judge(svr, y, C, epsilon, primal.bias).relative_gap if np.isfinite(svr.square) else np.nan
            gaps.append(gap)
    return np.array(gaps)


class _Block(NamedTuple):
    """The training sets of some queries: n points at most, of g pools.

    Attributes
    ----------
    queries : range
        Their positions.
    members : array of booleans, (b, N)
        Which keys each sees.
    order : array of integers, (b, n)
        Which pools are its training points.
    valid : array of booleans, (b, n)
        False where it has no more points.
    """

    queries: range
    members: Bool[np.ndarray, "b N"]
    order: Int[np.ndarray, "b n"]
    valid: Bool[np.ndarray, "b n"]

    def points(self, x: Float[Array, "N F"], scale: int) -> Float[np.ndarray, "b n F"]:
        """From one row a key to one a training point."""
        pooled, _ = pool(x, self.members, scale)
        pooled = np.broadcast_to(pooled, (len(self.members), *pooled.shape[-2:]))
        points = np.take_along_axis(pooled, self.order[..., None], axis=1)
        return np.where(self.valid[..., None], points, points[:, :1])


def _block(primal: Primal, keys: Float[Array, "N D"], queries: range) -> _Block:
    """The first of some queries: as many as have few enough entries in their kernel matrices."""
    members = visibility_table(primal.support, np.array(queries), len(keys))
    _, some = pool(np.zeros((len(keys), 1)), members, primal.scale)
    counts = some.sum(axis=1)
    if (counts == 0).any():
        training_set(primal, keys, queries[int(np.argmin(counts))])  # raises: that query sees no key
    entries = np.arange(1, len(counts) + 1) * np.maximum.accumulate(counts) ** 2
    b = max(1, int((entries <= ENTRIES_AT_A_TIME).sum()))
    order = np.argsort(~some[:b], axis=1, kind="stable")[:, : counts[:b].max()]
    return _Block(queries[:b], members[:b], order, np.take_along_axis(some[:b], order, axis=1))


def _expansions(
    primal: Primal, keys: Float[Array, "N D"], values: Float[Array, "N Dv"], block: _Block
) -> Iterator[Expansion]:
    """The values as the SVR of each query of a block. f is from `attention`, |W|^2 and h are from the kernel."""
    left, convolved = without_positions(primal), convolve_sequence(primal, keys, np.ones(len(keys), bool))
    points, v = block.points(convolved, primal.scale), block.points(values, primal.scale)
    f = attention(left, points, points, v, block.valid)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        _, points = fit(split_convolutions(left.transform)[1], points, block.valid)
        w, top = kernel_rows(left, points, points, block.valid[:, None, :])
        h = normalizer(left, w)
        sums, log_h, lengths = w @ v, top + np.log(abs(h)), log_lengths(primal.kernel, points)
        for b, n in enumerate(block.valid.sum(axis=1)):
            log_scale = log_h[b, :n].max()
            square = (v[b, :n] * sums[b, :n] * np.exp(top[b, :n] - log_scale)).sum()
            delta = np.sign(h[b, :n]) * np.exp(log_h[b, :n] - log_scale) * v[b, :n]
            yield Expansion(delta, f[b, :n], square, log_h[b, :n], log_scale, lengths[b, :n])


def _targets(
    primal: Primal, keys: Float[Array, "N D"], targets: Float[Array, "rows Dv"], block: _Block
) -> Float[np.ndarray, "b n Dv"] | list[Float[np.ndarray, "n Dv"]]:
    """The targets of each query: those of its training points, from one row a key; else what `pooled_rows` takes."""
    if len(targets) == len(keys):
        return block.points(targets, primal.scale)
    return [pooled_rows("targets", targets, training_set(primal, keys, query)) for query in block.queries]
