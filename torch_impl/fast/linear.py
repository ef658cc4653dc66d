"""Linear attention, in time and memory that grow with N and not with N^2, as two softmaxes.

With finite positive features Phi the expansion has two sums, over the keys j and over the features f:

    f(q) = sum_f Phi_f(q) sum_j Phi_f(k_j) v_j / sum_f Phi_f(q) sum_j Phi_f(k_j)

Let size_f = sum_j Phi_f(k_j). Then Phi_f(k_j) / size_f are the weights of a mean over the keys, one for each feature:

    mean_f = sum_j (Phi_f(k_j) / size_f) v_j,    f(q) = sum_f Phi_f(q) size_f mean_f / sum_f Phi_f(q) size_f

So f(q) is a mean of these means, with weights in proportion to Phi_f(q) size_f. Both kinds of weights are softmaxes of
logarithms: over j of log Phi_f(k_j), and over f of log Phi_f(q) + log size_f. A softmax neither overflows nor
underflows, at any size of Phi. Sums are in float32 or better.
Source: Katharopoulos et al., ICML 2020, for the two sums; see tutorial 3.
"""

import math

import torch

from primal_dual.types import Bool, Float
from torch_impl.blocks import split_into_blocks

CHUNK = 128


def linear_attention(
    log_q: Float[torch.Tensor, "... M F"],
    log_k: Float[torch.Tensor, "... N F"],
    v: Float[torch.Tensor, "... N Dv"],
    valid: Bool[torch.Tensor, "... N"] | None = None,
    log_weight: Float[torch.Tensor, "... 1 N"] | None = None,
    *,
    is_causal: bool = False,
) -> Float[torch.Tensor, "... M Dv"]:
    """sum_j v_j <Phi(q_i), Phi(k_j)> / h(q_i) over the valid keys; zero for a query that sees none.

    Parameters
    ----------
    log_q, log_k : tensors
        The logarithms of the features of queries and keys.
    v : tensor
        The values. Those of keys that are not valid must be zero.
    valid : tensor of booleans, optional
        True for a valid key.
    log_weight : tensor, optional
        Added to the logarithm of the kernel.
    is_causal : bool
        Whether query i sees the keys 0..i alone.

    Examples
    --------
    >>> log_features, v = torch.tensor([[0.0], [0.0]]), torch.tensor([[1.0], [3.0]])
    >>> linear_attention(log_features, log_features, v, is_causal=True).tolist()
    [[1.0], [2.0]]
    """
    precise = torch.promote_types(v.dtype, torch.float32)
    log_q, log_k = log_q.to(precise), log_k.to(precise)
    if log_weight is not None:
        log_k = log_k + log_weight.mT
    if is_causal:
        return _causal(log_q, log_k, v.to(precise), valid).to(v.dtype)
    return _bidirectional(log_q, log_k, v.to(precise), valid).to(v.dtype)


def _bidirectional(
    log_q: Float[torch.Tensor, "... M F"],
    log_k: Float[torch.Tensor, "... N F"],
    v: Float[torch.Tensor, "... N Dv"],
    valid: Bool[torch.Tensor, "... N"] | None,
) -> Float[torch.Tensor, "... M Dv"]:
    """The two softmaxes. Where no key is valid the values are zero, and so are their means."""
    if valid is not None:
        log_k = log_k.masked_fill(~valid[..., None], torch.finfo(log_k.dtype).min)
    means = log_k.softmax(-2).mT @ v
    log_sizes = log_k.logsumexp(-2, keepdim=True)
    return (log_q + log_sizes).softmax(-1) @ means


def _causal(
    log_q: Float[torch.Tensor, "... M F"],
    log_k: Float[torch.Tensor, "... N F"],
    v: Float[torch.Tensor, "... N Dv"],
    valid: Bool[torch.Tensor, "... N"] | None,
) -> Float[torch.Tensor, "... M Dv"]:
    """A chunk of queries sees the keys of its own chunk through their kernel matrix, and earlier chunks through sums.

    With the unit exp(top_f), a row a chunk, for each feature, the numerator and the denominator of f(q) are sums of
    (Phi_f(q) exp(top_f)) (Phi_f(k_j) exp(-top_f)). The first factors are scaled to add up to one, which cancels in f.
    """
    queries = log_q.shape[-2]
    if valid is None:
        valid = torch.ones(log_k.shape[-2], dtype=torch.bool, device=v.device)
    count = (queries + CHUNK - 1) // CHUNK
    log_q, log_k, v, valid = (split_into_blocks(x, CHUNK, count) for x in (log_q, log_k, v, valid[..., None]))
    top = _largest_so_far(log_k, valid)
    phi_k = _in_units_of(top, log_k) * valid
    phi_q = (log_q + top).softmax(-1)
    own_chunk = (phi_q @ phi_k.mT).tril()
    change_of_units = (top[..., :-1, :, :] - top[..., 1:, :, :]).exp().mT
    earlier_values = _sum_of_earlier(phi_k.mT @ v, change_of_units)
    earlier_sizes = _sum_of_earlier(phi_k.sum(-2)[..., None], change_of_units)
    h = own_chunk.sum(-1, keepdim=True) + phi_q @ earlier_sizes
    f = (own_chunk @ v + phi_q @ earlier_values) / torch.where(h > 0, h, 1)
    return f.flatten(-3, -2)[..., :queries, :]


def _largest_so_far(
    log_k: Float[torch.Tensor, "... chunks n F"], valid: Bool[torch.Tensor, "... chunks n 1"]
) -> Float[torch.Tensor, "... chunks 1 F"]:
    """Each feature's largest logarithm up to and with each chunk, so that no later chunk makes an early key vanish."""
    logs = log_k.detach().masked_fill(~valid, torch.finfo(log_k.dtype).min)
    return logs.amax(-2, keepdim=True).cummax(-3).values


def _in_units_of(
    top: Float[torch.Tensor, "... chunks 1 F"], log_k: Float[torch.Tensor, "... chunks n F"]
) -> Float[torch.Tensor, "... chunks n F"]:
    """Phi(k) exp(-top), at most 1.

    A feature that is smaller by a factor of more than e^78 (e^637 in float64) counts as that much smaller, so that a
    query's own key never vanishes beside later ones of its chunk.
    """
    least = 0.9 * math.log(torch.finfo(log_k.dtype).tiny)
    return (log_k - top).clamp(least, 0).exp()


def _sum_of_earlier(
    states: Float[torch.Tensor, "... chunks F Dv"], change_of_units: Float[torch.Tensor, "... chunks_less_one F 1"]
) -> Float[torch.Tensor, "... chunks F Dv"]:
    """The sum of the states of all earlier chunks, in units of each chunk's own."""
    sums = [torch.zeros_like(states[..., 0, :, :])]
    for state, factor in zip(states.unbind(-3), change_of_units.unbind(-3), strict=False):
        sums.append((sums[-1] + state) * factor)
    return torch.stack(sums, -3)
