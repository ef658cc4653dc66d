"""Mean and variance of the training keys of each query, for Attention-BN; in float32 or better, whatever the keys are.

Keys (..., N, D); real (..., N) booleans, or None where all are. Each function gives mu and the biased variance sigma^2,
(..., 1 or M, D), and the keys less a constant, (..., N, D), whose digits rounding will not take. Where every query has
statistics of its own they are running sums: moments (count, mean, sum of squared deviations), of which two sets' merge
into those of their union. No difference of squares is taken, which would lose all digits.
"""

import torch
import torch.nn.functional as F


def shared(keys, real):
    """Of all keys."""
    keys = _precise(keys)
    if real is None:
        mu = keys.mean(-2, keepdim=True)
        centred = keys - mu
        return mu, centred.square().mean(-2, keepdim=True), centred
    share = (real.to(keys.dtype) / real.sum(-1, keepdim=True).clamp_min(1))[..., None]
    mu = (keys * share).sum(-2, keepdim=True)
    centred = keys - mu
    return mu, (centred.square() * share).sum(-2, keepdim=True), centred


def causal(keys, real, queries, scale=1):
    """Of keys 0..i averaged `scale` at a time, for queries i = 0..M-1."""
    first, centred = _about_first(keys, real)
    if scale == 1:
        fitted = _fitted(centred, real, 0, queries)
        mu, variance = _mean_and_variance(_prefixes(*fitted), queries)
        return first + mu, variance, centred
    keys, real = _fitted(centred, real, 0, queries + -queries % scale)
    keys = keys.unflatten(-2, (-1, scale))
    real = None if real is None else real.unflatten(-1, (-1, scale))
    count, mean, _ = _prefixes(keys, real)  # of each pool's members up to i: its mean is the pool that ends at i
    whole = _prefixes(mean[..., -1, :], (count[..., -1, 0] > 0).expand(mean.shape[:-2]))
    before = [F.pad(moment, (0, 0, 1, 0))[..., :-1, None, :] for moment in whole]
    both = _merged(before, ((count > 0).to(mean.dtype), mean, torch.zeros_like(mean)))
    mu, variance = _mean_and_variance([moment.flatten(-3, -2) for moment in both], queries)
    return first + mu, variance, centred


def window(keys, real, queries, before, after):
    """Of keys i-before..i+after, for queries i = 0..M-1.

    In blocks as long as the window, every window is the end of one block and the start of the next.
    """
    first, centred = _about_first(keys, real)
    size = before + after + 1
    keys, real = _fitted(centred, real, before, queries + -queries % size + size)
    keys, real = keys.unflatten(-2, (-1, size)), real.unflatten(-1, (-1, size))
    ends = [moment.flip(-2)[..., :-1, :, :] for moment in _prefixes(keys.flip(-2), real.flip(-1))]
    starts = [F.pad(moment, (0, 0, 1, 0))[..., 1:, :-1, :] for moment in _prefixes(keys, real)]
    both = [moment.flatten(-3, -2) for moment in _merged(ends, starts)]
    mu, variance = _mean_and_variance(both, queries)
    return first + mu, variance, centred


def _prefixes(keys, real):
    """Moments of keys 0..i, for each i: the squares are sum_{t=1..i} (t+1)/t (k_t - mu_t)^2, a running sum."""
    if real is None:
        count = torch.arange(1, keys.shape[-2] + 1, device=keys.device, dtype=keys.dtype)[:, None]
        mean = keys.cumsum(-2) / count
        weight = count / (count - 1).clamp_min(1)
    else:
        member = real.to(keys.dtype)[..., None]
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
    count, mean, squares = moments
    return mean[..., :queries, :], (squares / count.clamp_min(1))[..., :queries, :]


def _about_first(keys, real):
    """The first real key, (..., 1, D), and the keys less it: even by rounding, no query knows a later key."""
    keys = _precise(keys)
    if real is None:
        first = keys[..., :1, :]
    else:
        first = (keys * (real & (real.cumsum(-1) == 1))[..., None]).sum(-2, keepdim=True)
    return first, keys - first


def _fitted(keys, real, before, tokens):
    """Keys and real with `before` absent tokens in front, then cut or filled up with absent ones to `tokens`."""
    after = tokens - before - keys.shape[-2]
    if before or after > 0:
        real = torch.ones_like(keys[..., 0], dtype=torch.bool) if real is None else real
    if real is not None:
        real = F.pad(real, (before, after))
    return F.pad(keys, (0, 0, before, after)) if before or after else keys, real


def _precise(x):
    return x.to(torch.promote_types(x.dtype, torch.float32))
