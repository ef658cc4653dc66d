"""Linear attention: with positive features Phi, f(q) = Phi(q)' sum_j Phi(k_j) v_j' / Phi(q)' sum_j Phi(k_j), in O(N).

In other words: each feature f averages the values with the weights Phi_f(k_j), and a query averages the features with
the weights Phi_f(q) sum_j Phi_f(k_j). Both are softmaxes of the features' logarithms, so that nothing overflows or
underflows. Sums are in float32 or better.
"""

import math

import torch

from torch_impl.blocks import split_into_blocks

CHUNK = 128


def linear_attention(log_q, log_k, v, valid=None, log_weight=None, *, is_causal=False):
    """log Phi(q) (..., M, F), log Phi(k) (..., N, F), v (..., N, Dv) -> (..., M, Dv), zero where no key is seen.

    real (..., N), booleans: which keys are seen; the values of others are zero. log_weight (..., 1, N) is added to the
    logits.
    """
    precise = torch.promote_types(v.dtype, torch.float32)
    log_q, log_k = log_q.to(precise), log_k.to(precise)
    if log_weight is not None:
        log_k = log_k + log_weight.mT
    return (_causal if is_causal else _bidirectional)(log_q, log_k, v.to(precise), valid).to(v.dtype)


def _bidirectional(log_q, log_k, v, valid):
    if valid is not None:
        log_k = log_k.masked_fill(~valid[..., None], torch.finfo(log_k.dtype).min)
    averages = log_k.softmax(-2).mT @ v
    return (log_q + log_k.logsumexp(-2, keepdim=True)).softmax(-1) @ averages


def _causal(log_q, log_k, v, valid):
    """A chunk of queries sees its own keys through their kernel matrix, and all earlier ones through their sums.

    Features are divided by their largest so far, T, a row a chunk: no later chunk can make an early key vanish. Inside
    a chunk, one that is smaller than the largest by a factor of e^78 (e^637 in float64) counts as that much smaller.
    """
    queries = log_q.shape[-2]
    count = (queries + CHUNK - 1) // CHUNK
    if valid is None:
        valid = torch.ones(log_k.shape[-2], dtype=torch.bool, device=v.device)
    log_q, log_k, v, valid = (split_into_blocks(x, CHUNK, count) for x in (log_q, log_k, v, valid[..., None]))
    T = log_k.detach().masked_fill(~valid, torch.finfo(v.dtype).min).amax(-2, keepdim=True).cummax(-3).values
    least = 0.9 * math.log(torch.finfo(v.dtype).tiny)  # so that a query's own key never vanishes beside later ones
    phi_k = (log_k - T).clamp(least, 0).exp() * valid
    phi_q = (log_q + T).softmax(-1)
    grams = (phi_q @ phi_k.mT).tril()
    shrink = (T[..., :-1, :, :] - T[..., 1:, :, :]).exp().mT
    states, sizes = phi_k.mT @ v, phi_k.sum(-2)[..., None]
    before, size = _before(states, shrink), _before(sizes, shrink)
    h = grams.sum(-1, keepdim=True) + phi_q @ size
    f = (grams @ v + phi_q @ before) / torch.where(h > 0, h, 1)
    return f.flatten(-3, -2)[..., :queries, :]


def _before(states, shrink):
    """The sum of all earlier chunks' states, in units of each chunk's own T."""
    sums = [torch.zeros_like(states[..., 0, :, :])]
    for state, less in zip(states.unbind(-3), shrink.unbind(-3), strict=False):
        sums.append((sums[-1] + state) * less)
    return torch.stack(sums, -3)
