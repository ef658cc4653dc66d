"""Linear attention: with positive features Phi, f(q) = Phi(q)' sum_j Phi(k_j) v_j' / Phi(q)' sum_j Phi(k_j), in O(N).

Features come as logarithms and leave as such: each is divided by its largest over the keys and each query's by its own
largest, both of which cancel. Sums are in float32 or better.
"""

import math

import torch
import torch.nn.functional as F

CHUNK = 128


def linear_attention(log_q, log_k, v, real=None, log_weight=None, *, is_causal=False):
    """log Phi(q) (..., M, F), log Phi(k) (..., N, F), v (..., N, Dv) -> (..., M, Dv), zero where no key is seen.

    real (..., N), booleans: which keys are seen. log_weight (..., 1, N) is added to the logits.
    """
    precise = torch.promote_types(v.dtype, torch.float32)
    log_q, log_k = log_q.to(precise), log_k.to(precise)
    if log_weight is not None:
        log_k = log_k + log_weight.mT
    if real is not None:
        log_k = log_k.masked_fill(~real[..., None], float("-inf"))
    with_ones = F.pad(v.to(precise), (0, 1), value=1.0)  # the last column sums to h
    sums = (_causal_sums if is_causal else _sums)(log_q, log_k, with_ones)
    h = sums[..., -1:]
    return (sums[..., :-1] / torch.where(h > 0, h, 1)).to(v.dtype)


def _sums(log_q, log_k, v):
    top = _finite(log_k.detach().amax(-2, keepdim=True))
    states = (log_k - top).exp().mT @ v
    return _largest_is_one(log_q + top).exp() @ states


def _causal_sums(log_q, log_k, v):
    """A chunk of queries sees its own keys through their kernel matrix, and all earlier ones through their sums.

    Features are divided by their largest so far, T, a row a chunk: no later chunk can make an early key vanish.
    """
    queries, tokens = log_q.shape[-2], max(log_q.shape[-2], log_k.shape[-2])
    log_q, v = _chunks(log_q, tokens), _chunks(v, tokens)
    log_k = _chunks(log_k, tokens, float("-inf"))
    T = _finite(log_k.detach().amax(-2).cummax(-2).values)
    least = 0.9 * math.log(torch.finfo(v.dtype).tiny)  # so that a query's own key never vanishes beside later ones
    phi_k = (log_k - T[..., None, :]).clamp_min(least).exp() * (log_k > float("-inf"))
    phi_q = _largest_is_one(log_q + T[..., None, :]).exp()
    states = phi_k.mT @ v
    decay = (T[..., None, :, :] - T[..., :, None, :]).clamp_max(0).movedim(-1, -3).exp().tril(-1)
    before = (decay @ states.movedim(-3, -2)).movedim(-2, -3)
    sums = (phi_q @ phi_k.mT).tril() @ v + phi_q @ before
    return sums.flatten(-3, -2)[..., :queries, :]


def _chunks(x, tokens, fill=0.0):
    missing = tokens + -tokens % CHUNK - x.shape[-2]
    return F.pad(x, (0, 0, 0, missing), value=fill).unflatten(-2, (-1, CHUNK))


def _largest_is_one(log_x):
    return log_x - log_x.detach().amax(-1, keepdim=True)


def _finite(top):
    return torch.where(top > float("-inf"), top, 0)
