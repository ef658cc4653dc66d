"""Attention: the support vector expansion of a primal's SVR, f(x) = sum_j v_j <Phi(T x), Phi(T k_j)> / h(x).

The SVR of query i is trained on the keys that i may see, averaged `scale` at a time; h and the statistics of T are
those of that training set. Everything here is differentiable by autograd, to second order.
"""

from math import prod

import autograd.numpy as np

from primal_dual import checks
from primal_dual.arrays import constant
from primal_dual.primal import Heads
from primal_dual.supports import Causal, Everything, check_size, sees
from primal_dual.transforms import fit, parts

BLOCK = 2**18  # numbers in the largest array of a block of queries: 2 MiB


def attention(primal, q, k, v, key_mask=None, *, query_mask=None):
    """f(q_i) = sum_j v_j <Phi(T q_i), Phi(T k_j)> / h(q_i), without the bias b -> (..., M, Dv).

    q (..., M, D), k (..., N, D), v (..., N, Dv), key_mask (..., N) with True for a real key; leading axes broadcast.
    For Heads, q, k and v have the head axis before their last two; the masks have none. query_mask (..., M) says which
    queries are real: one that is not counts as zero to its neighbours under a Convolution, and its output is of no use.

    Raises ValueError for other shapes, numbers that are not finite, a query that sees no key, and an h near zero.
    Source: arXiv 2406.13781.
    """
    q, k, v = checks.array("q", q, "M D"), checks.array("k", k, "N D"), checks.array("v", v, "N Dv")
    if isinstance(primal, Heads):
        return _side_by_side(primal, q, k, v, key_mask, query_mask)
    checks.primal(primal)
    real = checks.mask("key_mask", key_mask, k.shape[-2])
    real_query = checks.mask("query_mask", query_mask, q.shape[-2])
    _check_shapes(primal, q, k, v, real, real_query)
    q = _with_leading_axes(q, k, v, real, real_query)
    transforms = parts(primal.transform)[1]
    q, k = _fill(convolved(primal, q, real_query), real_query), _fill(convolved(primal, k, real), real)
    pointwise = all(getattr(part, "pointwise", False) for part in transforms)
    shared = isinstance(primal.support, Everything) or (primal.scale == 1 and pointwise)
    blocks = (_by_shared_training_set if shared else _by_own_training_sets)(
        primal, transforms, q, k, v, real, real_query
    )
    with np.errstate(over="ignore", invalid="ignore"):  # told by the check below
        f = np.concatenate(list(blocks), axis=-2)
    if not np.isfinite(constant(f)).all():
        raise ValueError(
            f"attention: {primal.kernel} of these queries and keys is NaN or too large for a float; scale them down"
        )
    return f


def attention_weights(primal, q, k, key_mask=None):
    """(..., M, N) with weights @ v = attention(primal, q, k, v): a pool's weight is spread evenly over its keys.

    Shapes and errors as in `attention`, of which this is the value at v = the identity matrix.
    """
    identity = np.eye(checks.array("k", k, "N D").shape[-2])
    if isinstance(primal, Heads):
        identity = np.stack([identity] * len(primal))
    return attention(primal, q, k, identity, key_mask)


def convolved(primal, x, real):
    """The sequence x (..., N, D) after the convolutions of a primal; tokens that are not real count as zero."""
    for convolution in parts(primal.transform)[0]:
        x = convolution.convolve(x, real, isinstance(primal.support, Causal))
    return x


def pool(x, members, scale):
    """Average the members of each group of `scale` positions: (..., N, F), (..., N) -> (..., n, F), (..., n).

    The second result says which groups have a member.
    """
    tokens = x.shape[-2]
    scale = min(scale, tokens)
    if scale == 1:
        return x, members
    short = -tokens % scale
    if short:
        x = np.concatenate([x, np.zeros((*x.shape[:-2], short, x.shape[-1]))], axis=-2)
        members = np.concatenate([members, np.zeros((*members.shape[:-1], short), bool)], axis=-1)
    members = members.reshape(*members.shape[:-1], -1, scale)
    count = members.sum(-1)
    share = members / np.maximum(count, 1)[..., None]
    groups = x.reshape((*x.shape[:-2], -1, scale, x.shape[-1]))
    return (share[..., None, :] @ groups)[..., 0, :], count > 0


def kernel_rows(primal, x, keys, visible):
    """<Phi(x_i), Phi(k_j)> = w_ij exp(top_i), zero where not visible -> w (..., M, n), top (..., M, 1).

    x and the keys are transformed already. `top` keeps w from overflow where h divides it out again.
    """
    positive = hasattr(primal.kernel, "log_gram")
    a = primal.kernel.log_gram(x, keys) if positive else primal.kernel.gram(x, keys)
    expected = (*np.broadcast_shapes(x.shape[:-2], keys.shape[:-2]), x.shape[-2], keys.shape[-2])
    if getattr(a, "shape", None) != expected:
        raise ValueError(f"{primal.kernel}: expected a kernel matrix {expected}; got {getattr(a, 'shape', a)}")
    if positive:
        if not visible.all():
            a = a + np.where(visible, 0.0, -np.inf)
        top = constant(a).max(axis=-1, keepdims=True)
        if primal.normalizer == "one":
            top = np.zeros_like(top)
        return np.exp(a - top), top
    w = a * visible
    return w, np.zeros((*w.shape[:-1], 1))


def normalizer(primal, w):
    """h(x_i) exp(-top_i), (..., M, 1), from the rows w of `kernel_rows`. ValueError if they overflow or h is near 0."""
    h = w.sum(axis=-1, keepdims=True)
    if not np.isfinite(constant(h)).all():
        raise ValueError(f"{primal.kernel} of these queries and keys is NaN or too large for a float; scale them down")
    if primal.normalizer == "one":
        return np.ones(h.shape)
    size = abs(constant(h)) if hasattr(primal.kernel, "log_gram") else abs(constant(w)).sum(axis=-1, keepdims=True)
    if (abs(constant(h)) <= 1e-12 * size).any():
        raise ValueError(f"h(x) = sum_j <Phi(x), Phi(k_j)> is near zero: the terms of {primal.kernel} cancel")
    return h


def _expansion(primal, x, keys, values, visible):
    w, _ = kernel_rows(primal, x, keys, visible)
    return w @ values / normalizer(primal, w)


def _by_shared_training_set(primal, transforms, q, k, v, real, real_query):
    """Blocks of queries whose SVRs have T and the pools in common."""
    (k, pooled), (v, _) = pool(k, real, primal.scale), pool(v, real, primal.scale)
    apply, k = fit(transforms, _fill(k, pooled), pooled)
    q = apply(q)
    for rows in _blocks(q, k.shape[-2] * prod(_leading(q, k, v, real))):
        columns, visible = _seen(primal.support, rows, pooled, real_query, 1)
        yield _expansion(primal, q[..., rows, :], k[..., columns, :], v[..., columns, :], visible)


def _by_own_training_sets(primal, transforms, q, k, v, real, real_query):
    """Blocks of queries of which each has pools and a T of its own: each is a batch of one query."""
    queries = _blocks(q, k.shape[-2] * (k.shape[-1] + v.shape[-1]) * prod(_leading(q, k, v, real)))
    q, k, v = q[..., :, None, :], k[..., None, :, :], v[..., None, :, :]
    for rows in queries:
        columns, members = _seen(primal.support, rows, real, real_query, primal.scale)
        keys, pooled = pool(k[..., columns, :], members, primal.scale)
        values, _ = pool(v[..., columns, :], members, primal.scale)
        apply, keys = fit(transforms, _fill(keys, pooled), pooled)
        yield _expansion(primal, apply(q[..., rows, :, :]), keys, values, pooled[..., None, :])[..., 0, :]


def _blocks(q, numbers_a_query):
    size = max(1, BLOCK // numbers_a_query, min(64, 4 * BLOCK // numbers_a_query))
    return (slice(i, min(i + size, q.shape[-2])) for i in range(0, q.shape[-2], size))


def _seen(support, rows, real, real_query, scale):
    """The span of keys that a block of queries sees, from the start of a pool, and which query sees which of them.

    A query that is not real has no support of its own, and sees every key that is.
    """
    seen = sees(support, np.arange(rows.start, rows.stop), real.shape[-1])
    visible = real[..., None, :] & (seen | ~real_query[..., rows, None])
    blind = ~visible.any(axis=-1)
    if blind.any():
        query = rows.start + np.argwhere(blind)[0][-1]
        raise ValueError(f"query {query} sees no key: expected one at least under {support} and the key mask")
    columns = np.flatnonzero(visible.any(axis=tuple(range(visible.ndim - 1))))
    span = slice(columns[0] // scale * scale, columns[-1] + 1)
    return span, visible[..., span]


def _fill(x, real):
    """Tokens that are not real become copies of the first real one, which every transform can take."""
    if real.all():
        return x
    first = (real & (np.cumsum(real, axis=-1) == 1)).astype(float)
    return x * real[..., None] + (first[..., None, :] @ x) * ~real[..., None]


def _leading(q, k, v, real):
    return np.broadcast_shapes(q.shape[:-2], k.shape[:-2], v.shape[:-2], real.shape[:-1])


def _with_leading_axes(q, k, v, real, real_query):
    """q with all leading axes of the result, so that it does not depend on what is masked."""
    lead = np.broadcast_shapes(_leading(q, k, v, real), real_query.shape[:-1])
    return q if q.shape[:-2] == lead else q + np.zeros((*lead, 1, 1))


def _check_shapes(primal, q, k, v, real, real_query):
    shapes = f"q {q.shape}, k {k.shape}, v {v.shape}, key_mask {real.shape}, query_mask {real_query.shape}"
    if q.shape[-1] != k.shape[-1]:
        raise ValueError(f"q, k: expected the same last axis, D; got {q.shape[-1]} and {k.shape[-1]}")
    if k.shape[-2] != v.shape[-2]:
        raise ValueError(f"k, v: expected as many values as keys, N; got {k.shape[-2]} and {v.shape[-2]}")
    try:
        _leading(q, k, v, real)
        np.broadcast_shapes(q.shape[:-2], real_query.shape[:-1])
    except ValueError as error:
        raise ValueError(f"expected leading axes that broadcast; got {shapes}") from error
    if not real.any(axis=-1).all():
        raise ValueError("key_mask: expected a real key at least in each row; got a row with none")
    check_size(primal.support, q.shape[-2], k.shape[-2])


def _side_by_side(heads, q, k, v, key_mask, query_mask):
    for name, x in (("q", q), ("k", k), ("v", v)):
        if x.ndim < 3 or x.shape[-3] != len(heads):
            raise ValueError(f"{name}: expected (..., {len(heads)} heads, tokens, features); got {x.shape}")
    each = [
        attention(primal, q[..., s, :, :], k[..., s, :, :], v[..., s, :, :], key_mask, query_mask=query_mask)
        for s, primal in enumerate(heads)
    ]
    return np.stack(each, axis=-3)
