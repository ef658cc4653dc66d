"""The ways to evaluate a support vector expansion: fused where that can be, else as its definition says.

An exponential kernel ends in scaled_dot_product_attention. Batch normalisation is folded into its query: terms that do
not depend on the key cancel in a softmax, so Attention-BN is softmax attention of (q - beta mu) / (sigma^2 + eps) to
k - mu. Scaled heads attend to short keys, strided ones to those of their own remainder, a window to the keys around
its block. Positive features make it linear. What is left follows the definition, a block of queries at a time.

q, k and v are convolved already, without autocast; v has the dtype of the result, q and k may have a finer one.
"""

from dataclasses import replace
from math import prod

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from primal_dual.kernels import Exponential
from primal_dual.supports import Everything, Strided, Window
from primal_dual.transforms import BatchNorm
from torch_impl import key_statistics
from torch_impl.blocks import split_into_blocks
from torch_impl.fast.linear import linear_attention
from torch_impl.fast.visibility import Visibility, merged, pool, shares
from torch_impl.registry import torch_version
from torch_impl.transforms import TensorBatchNorm, fit

LARGEST_BLOCK = 2**24  # numbers in the largest tensor of a block of queries
SHORT = 32  # tokens up to which plain products are faster on a CPU


def expansion(primal, transforms, q, k, v, visibility, dropout_p):
    """sum_j v_j <Phi(T q_i), Phi(T k_j)> / h(q_i) over the keys that query i has `seen` -> (..., M, Dv)."""
    if (
        isinstance(visibility.support, Strided)
        and primal.scale == 1
        and visibility.allowed is None
        and visibility.one_row
    ):
        return _by_remainder(primal, transforms, q, k, v, visibility, dropout_p)
    exponential = isinstance(primal.kernel, Exponential) and primal.normalizer == "sum"
    scale = primal.scale
    if visibility.shared:
        k, valid = pool(k, visibility.valid, scale)
        v, _ = pool(v, visibility.valid, scale)
        log_weight = _pooled_weight(visibility, scale)
        visibility, scale = replace(visibility, valid=valid, log_weight=log_weight), 1
    if not exponential and visibility.valid is not None:
        k = _filled(k, visibility.valid)
    while scale == 1 and transforms and getattr(transforms[0], "independent_of_keys", False):
        apply, k = fit(transforms[:1], k, visibility.valid)
        q, transforms = apply(q), transforms[1:]
    if exponential and len(transforms) == 1 and isinstance(transforms[0], BatchNorm | TensorBatchNorm):
        moments = _statistics(visibility, k, q.shape[-2], scale)
        if moments is not None:
            q, k = _folded(transforms[0], q, k, *moments)
            transforms = ()
    if visibility.shared and transforms:
        apply, k = fit(transforms, k, visibility.valid)
        q, transforms = apply(q), ()
    if transforms or (scale > 1 and not exponential):
        return _by_own_training_sets(primal, transforms, q, k, v, visibility, dropout_p)
    if scale > 1:
        return _by_own_pools(primal, q, k, v, visibility, dropout_p)
    if isinstance(visibility.support, Window) and visibility.allowed is None and visibility.one_row:
        return _by_window(primal, q, k, v, visibility, dropout_p)
    return _by_common_keys(primal, q, k, v, visibility, dropout_p)


def _by_common_keys(primal, q, k, v, visibility, dropout_p):
    """All queries choose from the same keys, as they are."""
    kernel, M, columns = primal.kernel, q.shape[-2], slice(0, k.shape[-2])
    if primal.normalizer == "sum" and isinstance(kernel, Exponential):
        if visibility.only_causal:
            return _sdpa(kernel, q, k, v, None, dropout_p, is_causal=True)
        mask = merged(visibility.visible(slice(0, M), columns, q.device), visibility.log_weight)
        if visibility.shared and visibility.one_row and not dropout_p and _short(q, k, v):
            return _short_softmax(kernel, q, k, v, mask)
        return _sdpa(kernel, q, k, v, mask, dropout_p)
    if primal.normalizer == "sum" and hasattr(kernel, "log_features") and visibility.by_key and not dropout_p:
        log_q, log_k = kernel.log_features(q), kernel.log_features(k)
        return linear_attention(log_q, log_k, v, visibility.valid, visibility.log_weight, is_causal=visibility.causal)

    def block(rows):
        visible = visibility.visible(rows, columns, q.device)
        return _by_definition(primal, q[..., rows, :], k, v, visible, visibility.weight(rows, columns), dropout_p)

    return _in_blocks(block, M, k.shape[-2] * _batch(q, k, v))


def _by_remainder(primal, transforms, q, k, v, visibility, dropout_p):
    """Strided: tokens of one remainder see each other alone, so that the remainder becomes a batch axis."""
    stride, M = visibility.support.stride, q.shape[-2]
    valid = torch.ones_like(k[..., 0], dtype=torch.bool) if visibility.valid is None else visibility.valid

    def by_remainder(x):
        return split_into_blocks(x, stride).transpose(-3, -2)

    transforms = _one_axis_more(transforms)
    weight = None if visibility.log_weight is None else by_remainder(visibility.log_weight.mT).mT
    visibility = Visibility(Everything(), visibility.causal, by_remainder(valid[..., None])[..., 0], None, weight)
    f = expansion(primal, transforms, *map(by_remainder, (q, k, v)), visibility, dropout_p)
    return f.transpose(-3, -2).flatten(-3, -2)[..., :M, :]


def _by_window(primal, q, k, v, visibility, dropout_p):
    """Blocks of queries, each against its own keys and `radius` more on either side. Twice as long was fastest."""
    radius, (M, N) = visibility.support.radius, (q.shape[-2], k.shape[-2])
    size = max(2 * radius, 32)
    width, count = size + 2 * radius, (M + size - 1) // size

    def around(x):
        x = split_into_blocks(x, size, count)
        before = F.pad(x[..., size - radius :, :], (0, 0, 0, 0, 1, 0))[..., :-1, :, :]
        after = F.pad(x[..., :radius, :], (0, 0, 0, 0, 0, 1))[..., 1:, :, :]
        return torch.cat([before, x, after], -2)

    i = torch.arange(size, device=q.device)[:, None]
    j = torch.arange(-radius, width - radius, device=q.device)
    visible = torch_version(visibility.support)(visibility.support, i, j)
    if visibility.causal:
        visible = visible & (j <= i)
    j = j + size * torch.arange(count, device=q.device)[:, None, None]
    inside, keys = (j >= 0) & (j < N), around(k)
    if not isinstance(primal.kernel, Exponential):  # others would lose digits to tokens of another size
        keys = torch.where(inside.mT, keys, keys[..., radius : radius + 1, :])
    visible = visible & inside
    if visibility.valid is not None:
        visible = visible & around(visibility.valid[..., None]).mT
    weight = None if visibility.log_weight is None else around(visibility.log_weight.mT).mT
    blockwise = Visibility(Everything(), False, None, visible, weight)
    f = _by_common_keys(primal, split_into_blocks(q, size, count), keys, around(v), blockwise, dropout_p)
    return f.flatten(-3, -2)[..., :M, :]


def _by_own_pools(primal, q, k, v, visibility, dropout_p):
    """Softmax attention of queries that pool the keys they see: <q, mean k> is the mean of <q, k> over the pool."""
    M, N, scale = q.shape[-2], k.shape[-2], primal.scale
    slope = q.shape[-1] ** -0.5 if primal.kernel.scale is None else primal.kernel.scale
    precise = torch.promote_types(v.dtype, torch.float32)
    q, k = (q * slope).to(precise), k.to(precise)

    def block(rows):
        columns = visibility.span(rows, N, scale)
        share, visible = shares(visibility.visible(rows, columns, q.device), scale, q.dtype)
        logits = q[..., rows, :] @ k[..., columns, :].mT
        weight = visibility.weight(rows, columns)
        logits = logits if weight is None else logits + weight
        logits = split_into_blocks(logits[..., None], scale)[..., 0]
        logits = (logits * share).sum(-1).masked_fill(~visible, float("-inf"))
        top = logits.detach().amax(-1, keepdim=True)
        w = (logits - torch.where(top > float("-inf"), top, 0)).exp()
        w = F.dropout(w / w.sum(-1, keepdim=True).clamp_min(1), dropout_p)
        each = (w[..., None] * share).flatten(-2)[..., : columns.stop - columns.start]
        return each.to(v.dtype) @ v[..., columns, :]

    return _in_blocks(block, M, N * _batch(q, k, v))


def _by_own_training_sets(primal, transforms, q, k, v, visibility, dropout_p):
    """Each query has pools and a T of its own: it is a batch of one query."""
    transforms = _one_axis_more(transforms)
    M, N, scale = q.shape[-2], k.shape[-2], primal.scale

    def block(rows):
        columns = visibility.span(rows, N, scale)
        members = visibility.visible(rows, columns, q.device)
        keys, valid = pool(k[..., None, columns, :], members, scale)
        values, _ = pool(v[..., None, columns, :], members, scale)
        weight = visibility.weight(rows, columns)
        if weight is not None:
            weight = pool(weight[..., None], members, scale)[0].mT
        apply, keys = fit(transforms, _filled(keys, valid), valid)
        x = apply(q[..., rows, None, :])
        return _by_definition(primal, x, keys, values, valid[..., None, :], weight, dropout_p)[..., 0, :]

    return _in_blocks(block, M, N * (q.shape[-1] + v.shape[-1]) * _batch(q, k, v))


def _by_definition(primal, q, k, v, visible, log_weight, dropout_p):
    """The expansion by its kernel matrix, in float32 or better."""
    precise = torch.promote_types(v.dtype, torch.float32)
    a = torch_version(primal.kernel)(primal.kernel, q.to(precise), k.to(precise))
    if hasattr(primal.kernel, "log_gram"):
        a = a if log_weight is None else a + log_weight
        a = a if visible is None else a.masked_fill(~visible, float("-inf"))
        top = a.detach().amax(-1, keepdim=True)
        w = (a - torch.where((top > float("-inf")) & (primal.normalizer == "sum"), top, 0)).exp()
    else:
        w = a if log_weight is None else a * log_weight.exp()
        w = w if visible is None else w.masked_fill(~visible, 0)
    if primal.normalizer == "sum":
        h = w.sum(-1, keepdim=True)
        w = w / torch.where(h == 0, 1, h)
    return (F.dropout(w, dropout_p) @ v.to(precise)).to(v.dtype)


def _one_axis_more(transforms):
    """A beta of its own for each head, (H, 1, 1), meets queries that have an axis more, (H, M, 1, D)."""
    return tuple(
        part._replace(beta=part.beta[..., None]) if isinstance(part, TensorBatchNorm) and part.beta.ndim else part
        for part in transforms
    )


def _filled(k, valid):
    """Tokens that are not real become the first real one, so that no other token loses digits to them."""
    return torch.where(valid[..., None], k, key_statistics.first_key(k, valid))


def _sdpa(kernel, q, k, v, mask, dropout_p, is_causal=False):
    """scaled_dot_product_attention with leading axes that broadcast, of which it knows two."""
    lead = torch.broadcast_shapes(q.shape[:-2], k.shape[:-2], v.shape[:-2], () if mask is None else mask.shape[:-2])
    if v.dtype == torch.float16:
        q = q.clamp(-65504, 65504)  # a folded query can be larger; infinite, it would make NaN
    if mask is not None and mask.is_floating_point():
        mask = mask.to(v.dtype)
    q, k, v = (_two_leading_axes(x.to(v.dtype), lead) for x in (q, k, v))
    mask = mask if mask is None or len(lead) == 2 or mask.ndim == 2 else _two_leading_axes(mask, lead)
    f = F.scaled_dot_product_attention(q, k, v, mask, dropout_p, is_causal, scale=kernel.scale)
    return f.reshape(*lead, *f.shape[-2:])


def _short(q, k, v):
    """Whether plain products are faster: on a CPU, for few tokens, where no graph is made for others."""
    few = max(q.shape[-2], k.shape[-2]) <= SHORT
    return q.device.type == "cpu" and not torch.compiler.is_compiling() and few and v.dtype.itemsize >= 4


def _short_softmax(kernel, q, k, v, mask):
    """softmax(q k') v. The mask is by key, so that a query without keys finds values of zero alone."""
    scale = q.shape[-1] ** -0.5 if kernel.scale is None else kernel.scale
    a = (q.to(v.dtype) * scale) @ k.to(v.dtype).mT
    if mask is not None:
        lowest = torch.finfo(a.dtype).min
        a = a + (mask.clamp_min(lowest) if mask.is_floating_point() else a.new_zeros(()).where(mask, lowest))
    return a.softmax(-1) @ v


def _two_leading_axes(x, lead):
    x = x.expand(*lead, *x.shape[-2:])
    return x[(None,) * (2 - len(lead))] if len(lead) < 2 else x.flatten(0, -4)


def _statistics(visibility, k, queries, scale):
    """Mean and variance of the training keys of each query, or None where only the definition gives them."""
    if visibility.shared:
        return key_statistics.shared(k, visibility.valid)
    if visibility.allowed is None and isinstance(visibility.support, Everything):
        return key_statistics.causal(k, visibility.valid, queries, scale)
    if visibility.allowed is None and isinstance(visibility.support, Window) and scale == 1:
        radius = visibility.support.radius
        return key_statistics.window(k, visibility.valid, queries, radius, 0 if visibility.causal else radius)
    return None


def _folded(batch_norm, q, k, mu, variance, centred):
    """The query (q - beta mu) / (sigma^2 + eps), and keys less a constant, which no softmax sees.

    Keys in half precision lose it only in features where that rounds nothing: within a factor two of it (Sterbenz).
    """
    beta = batch_norm.beta
    q = q - beta * mu if isinstance(beta, torch.Tensor) else torch.sub(q, mu, alpha=beta)
    if k.dtype != centred.dtype:
        constant = (k[..., :1, :] - centred[..., :1, :]).detach()
        near = centred.detach().abs().amax(-2, keepdim=True) <= constant.abs() / 2
        centred = k - torch.where(near, constant, 0).to(k.dtype)
    return q / (variance + batch_norm.eps), centred


def _pooled_weight(visibility, scale):
    return None if visibility.log_weight is None else pool(visibility.log_weight.mT, visibility.valid, scale)[0].mT


def _in_blocks(block, queries, numbers_a_query):
    """block(rows) for slices of the queries; what a block would keep for its gradient is computed again instead."""
    size = max(1, LARGEST_BLOCK // max(1, numbers_a_query))
    if size >= queries or torch.compiler.is_exporting():
        return block(slice(0, queries))
    rows = (slice(i, min(i + size, queries)) for i in range(0, queries, size))
    return torch.cat([checkpoint(block, some, use_reentrant=False) for some in rows], -2)


def _batch(q, k, v):
    return prod(torch.broadcast_shapes(q.shape[:-2], k.shape[:-2], v.shape[:-2]))
