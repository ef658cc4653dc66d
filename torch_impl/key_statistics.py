"""Mean and variance of the training keys of each query, for Attention-BN; in float32 or better, whatever the keys are.

Keys (..., N, D); real (..., N) booleans, or None where all are. Each function gives mu and the biased variance sigma^2,
(..., 1 or M, D), and the keys less a constant, (..., N, D), whose digits rounding will not take. Where every query has
statistics of its own they are running sums: moments (count, mean, sum of squared deviations), of which two sets' merge
into those of their union. No difference of squares is taken, which would lose all digits.
"""

import torch
import torch.nn.functional as F

from torch_impl.blocks import split_into_blocks


def shared(keys, valid):
    """Of all keys."""
    keys = precise(keys)
    if valid is None:
        mu = keys.mean(-2, keepdim=True)
        centred = keys - mu
        return mu, centred.square().mean(-2, keepdim=True), centred
    share = (valid.to(keys.dtype) / valid.sum(-1, keepdim=True).clamp_min(1))[..., None]
    mu = (keys * share).sum(-2, keepdim=True)
    centred = keys - mu
    return mu, (centred.square() * share).sum(-2, keepdim=True), centred


def causal(keys, valid, queries, scale=1):
    """Of keys 0..i averaged `scale` at a time, for queries i = 0..M-1."""
    first, centred = _about_first(keys, valid)
    if scale == 1:
        moments = _prefixes(*_in_blocks(centred, valid, queries, 1))
    else:
        keys, valid = _in_blocks(centred, valid, scale, (queries + scale - 1) // scale)
        count, mean, _ = _prefixes(keys, valid)  # of each pool's members up to i: its mean is the pool that ends at i
        whole = _prefixes(mean[..., -1, :], (count[..., -1, 0] > 0).expand(mean.shape[:-2]))
        before = [F.pad(moment, (0, 0, 1, 0))[..., :-1, None, :] for moment in whole]
        moments = _merged(before, ((count > 0).to(mean.dtype), mean, torch.zeros_like(mean)))
    mu, variance = _mean_and_variance(moments, queries)
    return first + mu, variance, centred


def window(keys, valid, queries, before, after):
    """Of keys i-before..i+after, for queries i = 0..M-1.

    In blocks as long as the window, every window is the end of one block and the start of the next.
    """
    first, centred = _about_first(keys, valid)
    valid = torch.ones_like(centred[..., 0], dtype=torch.bool) if valid is None else valid
    size = before + after + 1
    count = (queries + size - 1) // size + 1
    keys, valid = _in_blocks(F.pad(centred, (0, 0, before, 0)), F.pad(valid, (before, 0)), size, count)
    ends = [moment.flip(-2)[..., :-1, :, :] for moment in _prefixes(keys.flip(-2), valid.flip(-1))]
    starts = [F.pad(moment, (0, 0, 1, 0))[..., 1:, :-1, :] for moment in _prefixes(keys, valid)]
    mu, variance = _mean_and_variance(_merged(ends, starts), queries)
    return first + mu, variance, centred


def _prefixes(keys, valid):
    """Moments of keys 0..i, for each i: the squares are sum_{t=1..i} (t+1)/t (k_t - mu_t)^2, a running sum."""
    if valid is None:
        count = torch.arange(1, keys.shape[-2] + 1, device=keys.device, dtype=keys.dtype)[:, None]
        mean = keys.cumsum(-2) / count
        weight = count / (count - 1).clamp_min(1)
    else:
        member = valid.to(keys.dtype)[..., None]
        count = member.cumsum(-2)
        mean = (keys * member).cumsum(-2) / count.clamp_min(1)
        weight = member * count / (count - 1).clamp_min(1)
    return count, mean, ((keys - mean).square() * weight).cumsum(-2)


def _merged(a, b):
    """The moments of two disjoint sets together (Chan, Golub and LeVeque, 1979)."""
    (n, mean_a, squares_a), (m, mean_b, squares_b) = a, b
    share = m / (n + m).clamp_min(1)
    apart = mean_b - mean_a
    return n + m, mean_a + share * apart, squares_a + squares_b + n * share * apart.square()


def _mean_and_variance(moments, queries):
    """Of moments in blocks, (..., count, size, D) -> (..., queries, D) each."""
    count, mean, squares = moments
    return (part.flatten(-3, -2)[..., :queries, :] for part in (mean, squares / count.clamp_min(1)))


def _about_first(keys, valid):
    """The first real key, (..., 1, D), and the keys less it: even by rounding, no query knows a later key."""
    keys = precise(keys)
    first = first_key(keys, valid)
    return first, keys - first


def _in_blocks(keys, valid, size, count):
    """Keys (..., count, size, D), and which are real, (..., count, size), or None where all are."""
    if valid is None and (torch.compiler.is_exporting() or count * size > keys.shape[-2]):
        valid = torch.ones_like(keys[..., 0], dtype=torch.bool)
    return split_into_blocks(keys, size, count), None if valid is None else split_into_blocks(
        valid[..., None], size, count
    )[..., 0]


def first_key(keys, valid):
    """The first real key, (..., 1, D)."""
    if valid is None:
        return keys[..., :1, :]
    return (keys * (valid & (valid.cumsum(-1) == 1))[..., None]).sum(-2, keepdim=True)


def precise(x):
    """x in float32, or in its own dtype if that is finer."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
