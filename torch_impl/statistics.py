"""Mean and variance of the training keys of each query, for Attention-BN; in float32 or better, whatever the keys are.

Keys (..., N, D); real (..., N) booleans, or None where all are. Where every query has statistics of its own they are
running sums: moments (count, mean, sum of squared deviations), of which two sets' merge into those of their union. No
difference of squares is taken, which would lose all digits.
"""

import torch
import torch.nn.functional as F


def mean(keys, real):
    """Of all keys, (..., 1, D)."""
    keys = _precise(keys)
    if real is None:
        return keys.mean(-2, keepdim=True)
    share = (real.to(keys.dtype) / real.sum(-1, keepdim=True).clamp_min(1))[..., None]
    return (keys * share).sum(-2, keepdim=True)


def first_key(keys, real):
    """The first real key, (..., 1, D)."""
    if real is None:
        return keys[..., :1, :]
    first = real & (real.cumsum(-1) == 1)
    return (keys * first[..., None]).sum(-2, keepdim=True)


def shared(keys, real):
    """Of all keys: mean and biased variance, (..., 1, D) each."""
    mu = mean(keys, real)
    return mu, mean((keys - mu).square(), real)


def causal(keys, real, queries, scale=1):
    """Of keys 0..i averaged `scale` at a time, for queries i = 0..M-1: mean and biased variance, (..., M, D) each."""
    keys, real = _fitted(_precise(keys), real, 0, queries)
    if scale == 1:
        return _mean_and_variance(_prefixes(keys, real), queries)
    keys, real = _fitted(keys, real, 0, queries + -queries % scale)
    keys = keys.unflatten(-2, (-1, scale))
    real = None if real is None else real.unflatten(-1, (-1, scale))
    count, mean, _ = _prefixes(keys, real)  # of each pool's members up to i: its mean is the pool that ends at i
    whole = _prefixes(mean[..., -1, :], (count[..., -1, 0] > 0).expand(mean.shape[:-2]))
    last = (count > 0).to(mean.dtype), mean, torch.zeros_like(mean)
    both = merge([_shifted(moment)[..., None, :] for moment in whole], last)
    return _mean_and_variance([moment.flatten(-3, -2) for moment in both], queries)


def window(keys, real, queries, before, after):
    """Of keys i-before..i+after, for queries i = 0..M-1: mean and biased variance, (..., M, D) each.

    In blocks as long as the window, every window is the end of one block and the start of the next.
    """
    size = before + after + 1
    keys, real = _fitted(_precise(keys), real, before, queries + -queries % size + size)
    keys, real = keys.unflatten(-2, (-1, size)), real.unflatten(-1, (-1, size))
    ends = [moment.flip(-2) for moment in _prefixes(keys.flip(-2), real.flip(-1))]
    starts = [_shifted(moment) for moment in _prefixes(keys, real)]
    both = merge([moment[..., :-1, :, :] for moment in ends], [moment[..., 1:, :, :] for moment in starts])
    return _mean_and_variance([moment.flatten(-3, -2) for moment in both], queries)


def merge(a, b):
    """The moments of two disjoint sets together (Chan, Golub and LeVeque, 1979)."""
    (n, mean_a, squares_a), (m, mean_b, squares_b) = a, b
    share = m / (n + m).clamp_min(1)
    apart = mean_b - mean_a
    return n + m, mean_a + share * apart, squares_a + squares_b + n * share * apart.square()


def _prefixes(keys, real):
    """Moments of keys 0..i, for each i: the squares are sum_{t=1..i} t/(t+1) (k_t - mu_{t-1})^2, a running sum."""
    first = first_key(keys, real)
    if real is None:
        member = 1
        count = some = torch.arange(1, keys.shape[-2] + 1, device=keys.device, dtype=keys.dtype)[:, None]
    else:
        member = real.to(keys.dtype)[..., None]
        count = member.cumsum(-2)
        some = count.clamp_min(1)
    keys = (keys - first) * member
    mean = keys.cumsum(-2) / some
    steps = (keys - _shifted(mean)).square() * (member * (count - 1) / some)
    return count, first + mean, steps.cumsum(-2)


def _mean_and_variance(moments, queries):
    count, mean, squares = moments
    return mean[..., :queries, :], (squares / count.clamp_min(1))[..., :queries, :]


def _shifted(x):
    """x at the token before, zero at the first."""
    return F.pad(x, (0, 0, 1, 0))[..., :-1, :]


def _fitted(keys, real, before, tokens):
    """Keys and real with `before` absent tokens in front, then cut or filled up with absent ones to `tokens`."""
    after = tokens - before - keys.shape[-2]
    if before or after > 0:
        real = torch.ones_like(keys[..., 0], dtype=torch.bool) if real is None else real
    real = None if real is None else F.pad(real, (before, after))
    return F.pad(keys, (0, 0, before, after)), real


def _precise(x):
    return x.to(torch.promote_types(x.dtype, torch.float32))
