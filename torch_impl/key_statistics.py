"""Mean and variance of the training keys of each query, for Attention-BN; in float32 or better, whatever the keys are.

`shared` is for keys that all queries see. Otherwise every query has statistics of its own, and these are running sums
of moments: the count n of a set of keys, their mean, and S, the sum of their squared deviations from it. The variance
is S / n. It is never a difference of two squares, which would lose all digits where the mean is large beside the
standard deviation. See tutorial 4.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F

from primal_dual.types import Bool, Float
from torch_impl.blocks import join_blocks, split_into_blocks, split_row_into_blocks


class KeyStatistics(NamedTuple):
    """The mean mu and the biased variance sigma^2 of a query's keys, and the keys less a constant vector.

    mu and variance: (..., M, D), or (..., 1, D) if all queries share them. centred: (..., N, D); the constant is near
    the keys, so that centred keys keep their digits when they are rounded to a lower precision.
    """

    mu: torch.Tensor
    variance: torch.Tensor
    centred: torch.Tensor


class Moments(NamedTuple):
    """The moments of sets of keys: their number n, their mean, and S, the sum of squared deviations from it.

    n: (..., 1); mean and S: (..., D).
    """

    n: torch.Tensor
    mean: torch.Tensor
    S: torch.Tensor


def shared(keys: Float[torch.Tensor, "... N D"], valid: Bool[torch.Tensor, "... N"] | None) -> KeyStatistics:
    """The statistics of all valid keys; None instead of booleans means that all are valid.

    Examples
    --------
    >>> mu, variance, _ = shared(torch.tensor([[1.0], [3.0], [7.0]]), torch.tensor([True, True, False]))
    >>> mu.item(), variance.item()
    (2.0, 1.0)
    """
    keys = precise(keys)
    if valid is None:
        mu = keys.mean(-2, keepdim=True)
        centred = keys - mu
        return KeyStatistics(mu, centred.square().mean(-2, keepdim=True), centred)
    weight = (valid.to(keys.dtype) / valid.sum(-1, keepdim=True).clamp_min(1))[..., None]
    mu = (keys * weight).sum(-2, keepdim=True)
    centred = keys - mu
    return KeyStatistics(mu, (centred.square() * weight).sum(-2, keepdim=True), centred)


def causal(
    keys: Float[torch.Tensor, "... N D"], valid: Bool[torch.Tensor, "... N"] | None, queries: int, scale: int = 1
) -> KeyStatistics:
    """Query i's statistics of keys 0..i, averaged `scale` at a time, for the queries i = 0..queries - 1.

    Examples
    --------
    >>> mu, variance, _ = causal(torch.tensor([[1.0], [3.0]]), None, queries=2)
    >>> mu[:, 0].tolist(), variance[:, 0].tolist()
    ([1.0, 2.0], [0.0, 1.0])
    """
    first, centred = _subtract_first(keys, valid)
    if scale == 1:
        moments = _of_prefixes(*_in_blocks(centred, valid, size=queries, count=1))
    else:
        moments = _of_causal_pools(centred, valid, queries, scale)
    mu, variance = _mean_and_variance(moments, queries)
    return KeyStatistics(first + mu, variance, centred)


def window(
    keys: Float[torch.Tensor, "... N D"],
    valid: Bool[torch.Tensor, "... N"] | None,
    queries: int,
    before: int,
    after: int,
) -> KeyStatistics:
    """Query i's statistics of keys i - before..i + after, for the queries i = 0..queries - 1.

    In blocks as long as the window, every window is the end of one block and the start of the next: the union of a
    suffix and a prefix, so that running sums in both directions give all of them.

    Examples
    --------
    >>> window(torch.tensor([[1.0], [3.0], [5.0]]), None, queries=3, before=1, after=0).mu[:, 0].tolist()
    [1.0, 2.0, 4.0]
    """
    first, centred = _subtract_first(keys, valid)
    valid = torch.ones_like(centred[..., 0], dtype=torch.bool) if valid is None else valid
    size = before + after + 1
    count = (queries + size - 1) // size + 1
    shifted, valid = F.pad(centred, (0, 0, before, 0)), F.pad(valid, (before, 0))  # query i's window is i..i + size - 1
    blocks = split_into_blocks(shifted, size, count)
    valid_in_blocks = split_row_into_blocks(valid, size, count)
    suffixes = [x.flip(-2)[..., :-1, :, :] for x in _of_prefixes(blocks.flip(-2), valid_in_blocks.flip(-1))]
    prefixes = [F.pad(x, (0, 0, 1, 0))[..., 1:, :-1, :] for x in _of_prefixes(blocks, valid_in_blocks)]
    mu, variance = _mean_and_variance(_of_union(Moments(*suffixes), Moments(*prefixes)), queries)
    return KeyStatistics(first + mu, variance, centred)


def has_finer_type(dtype: torch.dtype, device: str) -> bool:
    """Whether the device has float64, and the dtype is coarser, so that float64 holds the squares of its numbers.

    Examples
    --------
    >>> has_finer_type(torch.float32, "cpu"), has_finer_type(torch.float64, "cpu"), has_finer_type(torch.float32, "mps")
    (True, False, False)
    """
    return dtype != torch.float64 and device != "mps"


def of_table(keys: Float[torch.Tensor, "... N D"], visible: Bool[torch.Tensor, "... M N"]) -> KeyStatistics:
    """Query i's statistics of the keys j where visible[i, j], for keys in float32 or less precision.

    Sums over the keys are products with the table. With a constant c near the keys, d_i = mu_i - c is the mean of
    k - c, and sigma_i^2 that of (k - c)^2 less d_i^2. In float64 this difference keeps the digits of float32, unless
    d_i is 10,000 sigma_i or more.

    Examples
    --------
    >>> table = torch.tensor([[True, False, True], [True, True, False]])
    >>> mu, variance, _ = of_table(torch.tensor([[1.0], [3.0], [7.0]]), table)
    >>> mu[:, 0].tolist(), variance[:, 0].tolist()
    ([4.0, 2.0], [9.0, 1.0])
    """
    seen = visible.any(-2)
    first, centred = _subtract_first(keys, seen)
    wide = centred.masked_fill(~seen[..., None], 0).double()
    moments = _table_times(visible.double(), torch.cat([wide, wide.square()], -1))
    d, square = (moments / visible.sum(-1, keepdim=True).clamp_min(1)).chunk(2, -1)
    variance = (square - d.square()).clamp_min(0)
    return KeyStatistics(first + d.to(centred.dtype), variance.to(centred.dtype), centred)


def first_key(
    keys: Float[torch.Tensor, "... N D"], valid: Bool[torch.Tensor, "... N"] | None
) -> Float[torch.Tensor, "... 1 D"]:
    """The first valid key, or zero where there is none.

    Examples
    --------
    >>> first_key(torch.tensor([[1.0], [3.0]]), torch.tensor([False, True])).tolist()
    [[3.0]]
    """
    if valid is None:
        return keys[..., :1, :]
    return (keys * (valid & (valid.cumsum(-1) == 1))[..., None]).sum(-2, keepdim=True)


def precise(x: Float[torch.Tensor, "..."]) -> Float[torch.Tensor, "..."]:
    """x in float32, or in its own dtype if that is finer."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _of_prefixes(keys: Float[torch.Tensor, "... N D"], valid: Bool[torch.Tensor, "... N"] | None) -> Moments:
    """The moments of the valid keys among 0..t, for each t.

    Let n of them be valid, k_t the last, mu' the mean without it and mu the mean with it. Then
    S = S' + (k_t - mu') (k_t - mu), by Welford, and n mu = (n - 1) mu' + k_t gives k_t - mu = (n - 1) / n (k_t - mu').
    So S grows by n / (n - 1) (k_t - mu)^2, which is a running sum once the means are known. The first key is its own
    mean and adds nothing.
    """
    if valid is None:
        n = torch.arange(1, keys.shape[-2] + 1, device=keys.device, dtype=keys.dtype)[:, None]
        mean = keys.cumsum(-2) / n
        weight = n / (n - 1).clamp_min(1)
    else:
        member = valid.to(keys.dtype)[..., None]
        n = member.cumsum(-2)
        mean = (keys * member).cumsum(-2) / n.clamp_min(1)
        weight = member * n / (n - 1).clamp_min(1)
    return Moments(n, mean, ((keys - mean).square() * weight).cumsum(-2))


def _of_union(a: Moments, b: Moments) -> Moments:
    """The moments of two disjoint sets of n and m keys together (Chan, Golub and LeVeque, 1979).

    With the fraction p = m / (n + m) and the distance d = mean_b - mean_a, the common mean is mean_a + p d. It is p d
    away from the mean of a and (1 - p) d from that of b. Moving the centre of n keys by r away from their mean adds
    n r^2 to their squares, so S = S_a + S_b + n (p d)^2 + m ((1 - p) d)^2 = S_a + S_b + n p d^2.
    """
    n = a.n + b.n
    p = b.n / n.clamp_min(1)
    d = b.mean - a.mean
    return Moments(n, a.mean + p * d, a.S + b.S + a.n * p * d.square())


def _of_causal_pools(
    keys: Float[torch.Tensor, "... N D"], valid: Bool[torch.Tensor, "... N"] | None, queries: int, scale: int
) -> Moments:
    """The moments of the pools that query i sees, in groups of `scale` queries.

    Its training points are the pools of all earlier groups, which are whole, and one pool of its own group, which ends
    at i.
    """
    groups, valid_in_groups = _in_blocks(keys, valid, size=scale, count=(queries + scale - 1) // scale)
    members, pools, _ = _of_prefixes(groups, valid_in_groups)  # the mean of a group's keys up to i is i's own pool
    own = Moments((members > 0).to(pools.dtype), pools, torch.zeros_like(pools))
    whole_pools, has_member = pools[..., -1, :], (members[..., -1, 0] > 0).expand(pools.shape[:-2])
    earlier = [F.pad(x, (0, 0, 1, 0))[..., :-1, None, :] for x in _of_prefixes(whole_pools, has_member)]
    return _of_union(Moments(*earlier), own)


def _mean_and_variance(
    moments: Moments, queries: int
) -> tuple[Float[torch.Tensor, "... {queries} D"], Float[torch.Tensor, "... {queries} D"]]:
    """Mean and variance of each query, from moments in blocks of queries."""
    mean, variance = moments.mean, moments.S / moments.n.clamp_min(1)
    return join_blocks(mean, queries), join_blocks(variance, queries)


def _subtract_first(
    keys: Float[torch.Tensor, "... N D"], valid: Bool[torch.Tensor, "... N"] | None
) -> tuple[Float[torch.Tensor, "... 1 D"], Float[torch.Tensor, "... N D"]]:
    """The first valid key, and the keys less it. It is not later than any query, so no query learns of a later key."""
    keys = precise(keys)
    first = first_key(keys, valid)
    return first, keys - first


def _table_times(
    table: Float[torch.Tensor, "... M N"], x: Float[torch.Tensor, "... N F"]
) -> Float[torch.Tensor, "... M F"]:
    """table @ x, as one product for all heads if they share the table."""
    if table.ndim < 3 or x.ndim < 3 or table.shape[-3] != 1:
        return table @ x
    heads = x.shape[-3]
    f = table[..., 0, :, :] @ x.transpose(-3, -2).flatten(-2)
    return f.unflatten(-1, (heads, -1)).transpose(-3, -2)


def _in_blocks(
    keys: Float[torch.Tensor, "... N D"], valid: Bool[torch.Tensor, "... N"] | None, size: int, count: int
) -> tuple[Float[torch.Tensor, "... {count} {size} D"], Bool[torch.Tensor, "... {count} {size}"] | None]:
    """The keys in blocks, and which of them are valid; None if all are and no block had to be filled up."""
    if valid is None and (torch.compiler.is_exporting() or count * size > keys.shape[-2]):
        valid = torch.ones_like(keys[..., 0], dtype=torch.bool)
    blocks = split_into_blocks(keys, size, count)
    return blocks, None if valid is None else split_row_into_blocks(valid, size, count)
