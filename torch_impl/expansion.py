"""Attention: the support vector expansion of a primal's SVR, the torch twin of primal_dual.attention."""

from contextlib import nullcontext

import torch

from primal_dual.primal import Heads
from primal_dual.supports import check_size
from primal_dual.transforms import BatchNorm, Identity, split_convolutions
from torch_impl import checks
from torch_impl.fast.dispatch import expansion
from torch_impl.fast.visibility import combine_masks
from torch_impl.recorder import record
from torch_impl.transforms import TensorBatchNorm, convolve


def attention(
    primal,
    q,
    k,
    v,
    key_mask=None,
    *,
    query_mask=None,
    attn_mask=None,
    is_causal=False,
    dropout_p=0.0,
    beta=None,
    taps=None,
):
    """f(q_i) = sum_j v_j <Phi(T q_i), Phi(T k_j)> / h(q_i), without the bias b -> (..., M, Dv).

    q (..., M, D), k (..., N, D), v (..., N, Dv), key_mask (..., N) and query_mask (..., M) as in primal_dual.attention.
    For Heads, q, k and v have the head axis before their last two, the key and query masks none.

    attn_mask (..., M, N), booleans with True where a query may attend, or floats: -inf hides a key and anything else is
    added to its logit (averaged over a pool). It and is_causal, key j <= query i, intersect with the primal's support;
    statistics and pools follow. One row, (..., 1, N), is a key mask. A Convolution looks back only where the support or
    is_causal says so, whatever the table of attn_mask. beta, a tensor of one number, or (H,) for Heads, is used in
    place of BatchNorm's; taps, a tensor of the kernel's shape, in place of the Convolution's.

    A query that sees no key gets zero. Values are not checked: where h(x) is zero or overflows, so does f. Raises
    ValueError for shapes, dtypes and devices that do not fit, and for a part without a torch twin. Source: arXiv
    2406.13781.
    """
    _check(primal, q, k, v, key_mask, query_mask, attn_mask, beta, taps)
    if not 0 <= dropout_p < 1:
        raise ValueError(f"dropout_p: expected a number in [0, 1); got {dropout_p}")
    record(primal, q, k, v, key_mask, attn_mask, is_causal, beta, taps)
    options = dict(is_causal=is_causal, dropout_p=dropout_p, beta=beta, taps=taps)
    return _attend(primal, q, k, v, key_mask, query_mask, attn_mask, **options)


def attention_unchecked(primal, q, k, v, key_mask):
    """attention(primal, q, k, v, key_mask) of arguments that fit, unchecked, with k and v zero where key_mask hides."""
    record(primal, q, k, v, key_mask, None, False, None, None)
    return _attend(primal, q, k, v, key_mask, None, None, hidden_are_zero=True)


def attention_weights(
    primal, q, k, key_mask=None, *, query_mask=None, attn_mask=None, is_causal=False, beta=None, taps=None
):
    """(..., M, N) with weights @ v = attention(primal, q, k, v): a pool's weight is spread evenly over its keys.

    Shapes, options and errors as in `attention`, of which this is the value at v = the identity matrix.
    """
    checks.tensor("k", k, "N D")
    v = torch.eye(k.shape[-2], dtype=k.dtype, device=k.device)
    if isinstance(primal, Heads):
        v = v.expand(len(primal), -1, -1)
    _check(primal, q, k, v, key_mask, query_mask, attn_mask, beta, taps)
    options = dict(is_causal=is_causal, dropout_p=0.0, beta=beta, taps=taps)
    return _attend(primal, q, k, v, key_mask, query_mask, attn_mask, **options)


def _attend(primal, *arguments, **options):
    return (_side_by_side if isinstance(primal, Heads) else _attention)(primal, *arguments, **options)


def _side_by_side(primal, q, k, v, key_mask, query_mask, attn_mask, *, beta=None, **options):
    """Heads: those of one primal in one call."""
    key_mask, query_mask = (None if mask is None else mask[..., None, :] for mask in (key_mask, query_mask))
    beta = beta[:, None, None] if beta is not None and beta.ndim else beta
    if len(primal.groups) == 1:
        return _attention(primal.primals[0], q, k, v, key_mask, query_mask, attn_mask, beta=beta, **options)
    order = [s for _, heads in primal.groups for s in heads]
    sizes = [len(heads) for _, heads in primal.groups]

    def grouped(x):
        """Heads of x (..., H, M, D); what all heads share (..., M, D) or (..., 1, M, D) goes to each group."""
        if x is None or x.ndim < 3 or x.shape[-3] != len(primal):
            return [x] * len(sizes)
        return _ordered(x, order).split(sizes, -3)

    each = [
        _attention(member, *tensors, key_mask, query_mask, mask, beta=own, **options)
        for (member, _), *tensors, mask, own in zip(
            primal.groups, *(grouped(x) for x in (q, k, v, attn_mask, beta)), strict=True
        )
    ]
    return _ordered(torch.cat(each, -3), [order.index(s) for s in range(len(order))])


def _ordered(x, order):
    return x if order == sorted(order) else x.index_select(-3, torch.tensor(order, device=x.device))


def _attention(
    primal,
    q,
    k,
    v,
    key_mask,
    query_mask,
    attn_mask,
    *,
    is_causal=False,
    dropout_p=0.0,
    beta=None,
    taps=None,
    hidden_are_zero=False,
):
    convolutions, transforms = split_convolutions(primal.transform)
    transforms = [part for part in transforms if not isinstance(part, Identity)]
    if beta is not None:
        transforms = [TensorBatchNorm(beta, part.eps) if isinstance(part, BatchNorm) else part for part in transforms]
    context = combine_masks(primal.support, is_causal, key_mask, attn_mask)
    device = q.device.type
    autocast = device != "meta" and torch.is_autocast_enabled(device)
    if autocast:
        v = v.to(torch.get_autocast_dtype(device))
    with torch.autocast(device, enabled=False) if autocast else nullcontext():
        if context.valid is not None and not hidden_are_zero:
            k, v = (x.masked_fill(~context.valid[..., None], 0) for x in (k, v))
        for part in convolutions:
            q = convolve(part, q, query_mask, context.causal, taps)
            k = convolve(part, k, context.valid, context.causal, taps)
        return expansion(primal, tuple(transforms), q, k, v, context, dropout_p)


def _check(primal, q, k, v, key_mask, query_mask, attn_mask, beta, taps):
    checks.tensor("q", q, "M D")
    checks.tensor("k", k, "N D")
    checks.tensor("v", v, "N Dv")
    checks.alike(q=q, k=k, v=v)
    (M, D), N = q.shape[-2:], k.shape[-2]
    if k.shape[-1] != D:
        raise ValueError(f"q, k: expected the same last axis, D; got {D} and {k.shape[-1]}")
    if v.shape[-2] != N:
        raise ValueError(f"k, v: expected as many values as keys, N; got {N} and {v.shape[-2]}")
    if isinstance(primal, Heads):
        for name, x in (("q", q), ("k", k), ("v", v)):
            if x.ndim < 3 or x.shape[-3] != len(primal):
                raise ValueError(f"{name}: expected (..., {len(primal)} heads, tokens, features); got {tuple(x.shape)}")
    elif not hasattr(primal, "kernel") or isinstance(primal, type):
        raise ValueError(f"primal: expected a Primal or Heads, such as catalog['bn']; got {primal!r}")
    checks.mask("key_mask", key_mask, N, q.device)
    checks.mask("query_mask", query_mask, M, q.device)
    checks.attention_mask(attn_mask, M, N, q.device)
    lead = checks.broadcast(q=q.shape[:-2], k=k.shape[:-2], v=v.shape[:-2])
    outer = lead[:-1] if isinstance(primal, Heads) else lead
    masks = {"key_mask": key_mask, "query_mask": query_mask}
    checks.broadcast(lead=outer, **{name: mask.shape[:-1] for name, mask in masks.items() if mask is not None})
    if attn_mask is not None:
        checks.broadcast(lead=lead, attn_mask=attn_mask.shape[:-2])
    members = tuple(primal) if isinstance(primal, Heads) else (primal,)
    for member in members:
        check_size(member.support, M, N)
    if beta is not None:
        norms = any(
            isinstance(part, BatchNorm) for member in members for part in split_convolutions(member.transform)[1]
        )
        each = [(), (len(members),)] if isinstance(primal, Heads) else [()]
        checks.parameter("beta", beta, each if norms else [])
    if taps is not None:
        kernels = {part.kernel: None for member in members for part in split_convolutions(member.transform)[0]}
        checks.parameter("taps", taps, [_shape(kernel) for kernel in kernels])


def _shape(kernel):
    return (len(kernel), len(kernel[0])) if isinstance(kernel[0], tuple) else (len(kernel),)
