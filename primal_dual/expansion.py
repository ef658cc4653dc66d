"""Attention: the support vector expansion of a primal's SVR, f(x) = sum_j v_j <Phi(T x), Phi(T k_j)> / h(x).

The SVR of query i is trained on the keys that i may see, averaged `scale` at a time; h and the statistics of T are
those of that training set. Everything here is differentiable by autograd, to second order.
"""

from collections.abc import Iterator, Sequence
from math import prod

import autograd.numpy as np

from primal_dual import checks
from primal_dual.arrays import constant
from primal_dual.kernel_matrix import kernel_rows, normalizer
from primal_dual.primal import Heads, Primal
from primal_dual.protocols import Support, Transform
from primal_dual.sequence import convolve_sequence, pool
from primal_dual.supports import Everything, check_size, visibility_table
from primal_dual.transforms import fit, independent_of_keys, split_convolutions
from primal_dual.types import Array, Bool, Float, Num

LARGEST_BLOCK = 2**18  # numbers in the largest array of a block of queries: 2 MiB


def attention(
    primal: Primal | Heads,
    q: Num[Array, "... M D"],
    k: Num[Array, "... N D"],
    v: Num[Array, "... N Dv"],
    key_mask: Bool[Array, "... N"] | None = None,
    *,
    query_mask: Bool[Array, "... M"] | None = None,
) -> Float[Array, "... M Dv"]:
    """Attention of queries to keys and values: f(q_i) = sum_j v_j <Phi(T q_i), Phi(T k_j)> / h(q_i).

    This is the support vector expansion of the primal's SVR, without its bias b. Source: arXiv 2406.13781; tutorial 2
    derives it.

    Parameters
    ----------
    primal : Primal or Heads
        For Heads, q, k and v have a head axis before their last two; the masks have none.
    q, k, v : arrays
        Queries, keys and values. Their leading axes broadcast.
    key_mask : array of booleans, optional
        True for a valid key, False for padding.
    query_mask : array of booleans, optional
        True for a valid query. One that is not valid counts as zero to its neighbours under a Convolution, and its
        output is of no use.

    Returns
    -------
    array
        f, one row a query.

    Raises
    ------
    ValueError
        For shapes that do not fit, numbers that are not finite, a query that sees no key, and an h near zero.

    Examples
    --------
    >>> k = np.array([[0.0], [np.log(3.0)]])
    >>> attention(Primal(), np.array([[1.0]]), k, np.array([[0.0], [1.0]])).round(12).tolist()
    [[0.75]]
    """
    q, k, v = checks.array("q", q, "M D"), checks.array("k", k, "N D"), checks.array("v", v, "N Dv")
    if isinstance(primal, Heads):
        return _each_head(primal, q, k, v, key_mask, query_mask)
    checks.expect_primal(primal)
    valid = checks.mask("key_mask", key_mask, k.shape[-2])
    valid_query = checks.mask("query_mask", query_mask, q.shape[-2])
    _check_shapes(primal, q, k, v, valid, valid_query)
    q = _with_leading_axes(q, k, v, valid, valid_query)
    q = _replace_padding(convolve_sequence(primal, q, valid_query), valid_query)
    k = _replace_padding(convolve_sequence(primal, k, valid), valid)
    transforms = split_convolutions(primal.transform)[1]
    if _share_a_training_set(primal, transforms):
        blocks = _by_shared_training_set(primal, transforms, q, k, v, valid, valid_query)
    else:
        blocks = _by_own_training_sets(primal, transforms, q, k, v, valid, valid_query)
    with np.errstate(over="ignore", invalid="ignore"):  # reported below
        f = np.concatenate(list(blocks), axis=-2)
    if not np.isfinite(constant(f)).all():
        raise ValueError(
            f"attention: {primal.kernel} of these queries and keys, or a sum of these values, is NaN or too large for "
            "a float; scale them down"
        )
    return f


def attention_weights(
    primal: Primal | Heads,
    q: Num[Array, "... M D"],
    k: Num[Array, "... N D"],
    key_mask: Bool[Array, "... N"] | None = None,
    *,
    query_mask: Bool[Array, "... M"] | None = None,
) -> Float[Array, "... M N"]:
    """The matrix A with A @ v = attention(primal, q, k, v): attention with the identity matrix for its values.

    A pool's weight is spread evenly over its keys. Parameters and errors are those of `attention`.

    Examples
    --------
    >>> attention_weights(Primal(), np.array([[1.0]]), np.array([[0.0], [np.log(3.0)]])).round(12).tolist()
    [[0.25, 0.75]]
    """
    identity = np.eye(checks.array("k", k, "N D").shape[-2])
    if isinstance(primal, Heads):
        identity = np.stack([identity] * len(primal))
    return attention(primal, q, k, identity, key_mask, query_mask=query_mask)


def _share_a_training_set(primal: Primal, transforms: Sequence[Transform]) -> bool:
    """Whether pools and T are the same for all queries."""
    return isinstance(primal.support, Everything) or (primal.scale == 1 and independent_of_keys(transforms))


def _by_shared_training_set(
    primal: Primal,
    transforms: Sequence[Transform],
    q: Float[Array, "... M D"],
    k: Float[Array, "... N D"],
    v: Float[Array, "... N Dv"],
    valid: Bool[Array, "... N"],
    valid_query: Bool[Array, "... M"],
) -> Iterator[Float[Array, "... m Dv"]]:
    """f for blocks of m queries whose SVRs have T and the pools in common."""
    pooled_keys, pooled = pool(k, valid, primal.scale)
    values, _ = pool(v, valid, primal.scale)
    apply, keys = fit(transforms, _replace_padding(pooled_keys, pooled), pooled)
    q = apply(q)
    for rows in _blocks(q.shape[-2], keys.shape[-2] * prod(_leading_axes(q, keys, values, valid))):
        columns, visible = _visible_span(primal.support, rows, pooled, valid_query, 1)
        yield _expansion(primal, q[..., rows, :], keys[..., columns, :], values[..., columns, :], visible)


def _by_own_training_sets(
    primal: Primal,
    transforms: Sequence[Transform],
    q: Float[Array, "... M D"],
    k: Float[Array, "... N D"],
    v: Float[Array, "... N Dv"],
    valid: Bool[Array, "... N"],
    valid_query: Bool[Array, "... M"],
) -> Iterator[Float[Array, "... m Dv"]]:
    """f for blocks of m queries of which each has pools and a T of its own: each query is a batch of one."""
    numbers_a_query = k.shape[-2] * (k.shape[-1] + v.shape[-1]) * prod(_leading_axes(q, k, v, valid))
    q, k, v = q[..., :, None, :], k[..., None, :, :], v[..., None, :, :]
    for rows in _blocks(q.shape[-3], numbers_a_query):
        columns, members = _visible_span(primal.support, rows, valid, valid_query, primal.scale)
        keys, pooled = pool(k[..., columns, :], members, primal.scale)
        values, _ = pool(v[..., columns, :], members, primal.scale)
        apply, keys = fit(transforms, _replace_padding(keys, pooled), pooled)
        yield _expansion(primal, apply(q[..., rows, :, :]), keys, values, pooled[..., None, :])[..., 0, :]


def _expansion(
    primal: Primal,
    x: Float[Array, "... m D"],
    keys: Float[Array, "... n D"],
    values: Float[Array, "... n Dv"],
    visible: Bool[Array, "..."],
) -> Float[Array, "... m Dv"]:
    """sum_j v_j <Phi(x), Phi(k_j)> / h(x) over the visible keys; x and the keys are transformed already."""
    w, _ = kernel_rows(primal, x, keys, visible)
    return w @ values / normalizer(primal, w)


def _blocks(queries: int, numbers_a_query: int) -> Iterator[slice]:
    """Slices of the queries, each of so many that its largest array has about LARGEST_BLOCK numbers."""
    numbers_a_query = max(1, numbers_a_query)  # an empty batch has none
    size = max(1, LARGEST_BLOCK // numbers_a_query, min(64, 4 * LARGEST_BLOCK // numbers_a_query))
    return (slice(i, min(i + size, queries)) for i in range(0, queries, size))


def _visible_span(
    support: Support, rows: slice, valid: Bool[Array, "... N"], valid_query: Bool[Array, "... M"], scale: int
) -> tuple[slice, Bool[Array, "... #m n"]]:
    """The span of keys that a block of queries sees, from the start of a pool, and which query sees which of them.

    One row says it where all see the same. A query that is not valid has no support of its own, and sees every key that
    is. Raises ValueError for a query that sees no key.
    """
    visible = valid[..., None, :]
    if not isinstance(support, Everything):
        seen = visibility_table(support, np.arange(rows.start, rows.stop), valid.shape[-1])
        visible = visible & (seen | ~valid_query[..., rows, None])
    blind = ~visible.any(axis=-1)
    if blind.any():
        query = rows.start + np.argwhere(blind)[0][-1]
        raise ValueError(f"query {query} sees no key: expected one at least under {support} and the key mask")
    columns = np.flatnonzero(visible.any(axis=tuple(range(visible.ndim - 1))))
    if not len(columns):  # an empty batch
        return slice(0, visible.shape[-1]), visible
    span = slice(columns[0] // scale * scale, columns[-1] + 1)
    return span, visible[..., span]


def _replace_padding(x: Float[Array, "... N D"], valid: Bool[Array, "... N"]) -> Float[Array, "... N D"]:
    """Tokens that are not valid become copies of the first valid one, which every transform can take."""
    if valid.all():
        return x
    first = (valid & (np.cumsum(valid, axis=-1) == 1)).astype(float)
    return x * valid[..., None] + (first[..., None, :] @ x) * ~valid[..., None]


def _leading_axes(q: Array, k: Array, v: Array, valid: Array) -> tuple[int, ...]:
    return np.broadcast_shapes(q.shape[:-2], k.shape[:-2], v.shape[:-2], valid.shape[:-1])


def _with_leading_axes(q: Array, k: Array, v: Array, valid: Array, valid_query: Array) -> Array:
    """q with all leading axes of the result, so that it does not depend on what is masked."""
    lead = np.broadcast_shapes(_leading_axes(q, k, v, valid), valid_query.shape[:-1])
    return q if q.shape[:-2] == lead else q + np.zeros((*lead, 1, 1))


def _check_shapes(primal: Primal, q: Array, k: Array, v: Array, valid: Array, valid_query: Array) -> None:
    shapes = f"q {q.shape}, k {k.shape}, v {v.shape}, key_mask {valid.shape}, query_mask {valid_query.shape}"
    checks.sizes(q.shape, k.shape, v.shape)
    try:
        _leading_axes(q, k, v, valid)
        np.broadcast_shapes(q.shape[:-2], valid_query.shape[:-1])
    except ValueError as error:
        raise ValueError(f"expected leading axes that broadcast; got {shapes}") from error
    if not valid.any(axis=-1).all():
        raise ValueError("key_mask: expected a valid key at least in each row; got a row with none")
    check_size(primal.support, q.shape[-2], k.shape[-2])


def _each_head(heads: Heads, q: Array, k: Array, v: Array, key_mask: Array | None, query_mask: Array | None) -> Array:
    """The heads side by side."""
    checks.head_axis(len(heads), q=q.shape, k=k.shape, v=v.shape)
    for name, mask in (("key_mask", key_mask), ("query_mask", query_mask)):
        checks.no_head_axis(name, np.shape(mask), max(q.ndim, k.ndim, v.ndim) - 2, len(heads))
    each = [
        attention(primal, q[..., s, :, :], k[..., s, :, :], v[..., s, :, :], key_mask, query_mask=query_mask)
        for s, primal in enumerate(heads)
    ]
    return np.stack(each, axis=-3)
