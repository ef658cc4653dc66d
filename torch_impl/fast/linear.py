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

import torch
import torch.nn.functional as F

from primal_dual.types import Bool, Float
from torch_impl.blocks import join_blocks, split_into_blocks
from torch_impl.kernels import log_inner_products

CHUNK = 64
HIDDEN = -1e37  # a logarithm far below all others, with room to subtract another


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
        log_k = log_k + log_weight.mT.to(precise).clamp_min(HIDDEN / 10)  # a mask's lowest number still hides no key
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

    All earlier keys are seen, so that the largest of them is a unit for each feature, exp(top_f), in which no key is
    lost that counts. The two parts of a query are added up in the unit of the larger one.
    """
    queries = log_q.shape[-2]
    if valid is None:
        valid = torch.ones(log_k.shape[-2], dtype=torch.bool, device=v.device)
    count = (queries + CHUNK - 1) // CHUNK
    log_q, log_k, v, valid = (split_into_blocks(x, CHUNK, count) for x in (log_q, log_k, v, valid[..., None]))
    top, earlier_sizes, earlier_values = _earlier_chunks(log_k, v, valid)
    log_features = log_q + top
    log_earlier = log_features.logsumexp(-1, keepdim=True)
    sees = valid.mT.expand(*valid.shape[:-2], CHUNK, CHUNK).tril()
    log_own = log_inner_products(log_q, log_k).masked_fill(~sees, HIDDEN)
    unit = torch.maximum(log_own.amax(-1, keepdim=True), log_earlier).detach()
    own, earlier = (log_own - unit).exp() * sees, (log_earlier - unit).exp() * log_features.softmax(-1)
    h = own.sum(-1, keepdim=True) + earlier @ earlier_sizes
    f = (own @ v + earlier @ earlier_values) / torch.where(h > 0, h, 1)
    return join_blocks(f, queries)


def _earlier_chunks(
    log_k: Float[torch.Tensor, "... chunks n F"],
    v: Float[torch.Tensor, "... chunks n Dv"],
    valid: Bool[torch.Tensor, "... chunks n 1"],
) -> tuple[
    Float[torch.Tensor, "... chunks 1 F"],
    Float[torch.Tensor, "... chunks F 1"],
    Float[torch.Tensor, "... chunks F Dv"],
]:
    """The keys of all chunks before each chunk, feature by feature.

    Returns the logarithm top_f of the largest, HIDDEN if there is none, and the sums of Phi_f(k_j) exp(-top_f) and of
    Phi_f(k_j) exp(-top_f) v_j, zero if there is none.
    """
    top = log_k.detach().masked_fill(~valid, HIDDEN).amax(-2, keepdim=True).cummax(-3).values
    top_before = F.pad(top, (0, 0, 0, 0, 1, 0), value=HIDDEN)[..., :-1, :, :]
    phi = (log_k - top).masked_fill(~valid, HIDDEN).exp()
    change_of_unit = (top_before - top).exp().mT
    sizes = _sum_of_earlier(phi.sum(-2)[..., None], change_of_unit)
    return top_before, sizes, _sum_of_earlier(phi.mT @ v, change_of_unit)


def _sum_of_earlier(
    states: Float[torch.Tensor, "... chunks F Dv"], change_of_unit: Float[torch.Tensor, "... chunks F 1"]
) -> Float[torch.Tensor, "... chunks F Dv"]:
    """The sum of the states of all earlier chunks, in the unit of the last of them."""
    sums = [torch.zeros_like(states[..., 0, :, :])]
    for state, factor in zip(states.unbind(-3), change_of_unit.unbind(-3), strict=True):
        sums.append(sums[-1] * factor + state)
    return torch.stack(sums[:-1], -3)
