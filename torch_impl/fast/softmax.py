"""Softmax attention, fused, and Attention-BN as softmax attention of another query.

Let T x = (x - beta mu) s with s = 1 / sqrt(sigma^2 + eps), feature by feature. The logit of query q and key k_j is

    (T q).(T k_j) = ((q - beta mu) s^2).(k_j - beta mu) = q'.k_j - q'.(beta mu),    q' = (q - beta mu) / (sigma^2 + eps)

and its second term is the same for all keys j, so that it cancels in the softmax. So does q'.c, if any constant c is
subtracted from all keys. Hence Attention-BN is softmax attention of the queries q' to the keys k_j - c, also where mu
and sigma are those of each query's own training set, as under a causal support. See tutorial 4.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F

from primal_dual.kernels import Exponential
from primal_dual.supports import Everything, Window
from primal_dual.transforms import BatchNorm
from primal_dual.types import Bool, Float
from torch_impl import key_statistics
from torch_impl.fast.problem import Problem
from torch_impl.fast.visibility import logit_mask
from torch_impl.key_statistics import KeyStatistics
from torch_impl.transforms import TensorBatchNorm

SHORT = 32  # tokens up to which plain products are faster on a CPU
LARGEST_FLOAT16 = 65504


def softmax_attention(problem: Problem) -> Float[torch.Tensor, "... M Dv"]:
    """sum_j v_j softmax_j(q_i.k_j scale), of a problem without pools and transforms; zero where a query sees no key."""
    kernel, visibility = problem.kernel, problem.visibility
    assert isinstance(kernel, Exponential)
    q, k, v, dropout_p = problem.q, problem.k, problem.v, problem.dropout_p
    if visibility.only_causal:
        return _fused(kernel, q, k, v, None, dropout_p, is_causal=True)
    mask = logit_mask(problem.visible, visibility.log_weight)
    if visibility.shared and visibility.one_row and not dropout_p and _is_short(q, k, v):
        return _short_softmax(kernel, q, k, v, mask)
    return _fused(kernel, q, k, v, mask, dropout_p)


def softmax_weights(problem: Problem) -> Float[torch.Tensor, "... M N"]:
    """softmax_j(q_i.k_j scale), of a problem without pools and transforms; zero where a query sees no key."""
    kernel, log_weight, visible = problem.kernel, problem.visibility.log_weight, problem.visible
    assert isinstance(kernel, Exponential)
    logits = (problem.q * kernel.slope(problem.q.shape[-1])).to(problem.precise) @ problem.k.to(problem.precise).mT
    if log_weight is not None:
        logits = logits + log_weight
    if visible is not None:
        sees_any = visible.any(-1, keepdim=True)
        logits = logits.masked_fill(sees_any & ~visible, float("-inf"))
    w = torch.softmax(logits, -1)
    if visible is not None:
        w = w.masked_fill(~sees_any, 0)
    return F.dropout(w, problem.dropout_p).to(problem.v.dtype)


def fold_batch_norm(problem: Problem) -> Problem:
    """The problem after its BatchNorm is folded into the query, if that is its only transform and a softmax follows.

    It is left as it is where only the definition gives each query's statistics.
    """
    if not problem.is_softmax or len(problem.transforms) != 1:
        return problem
    batch_norm = problem.transforms[0]
    if not isinstance(batch_norm, BatchNorm | TensorBatchNorm):
        return problem
    statistics = _statistics(problem)
    if statistics is None:
        return problem
    q = _folded_query(batch_norm, problem.q, statistics)
    return replace(problem, transforms=(), q=q, k=_centred_keys(problem.k, statistics.centred))


def _statistics(problem: Problem) -> KeyStatistics | None:
    """The statistics of each query's training keys, or None where there is no quick way to them."""
    visibility, scale, k = problem.visibility, problem.scale, problem.k
    support, has_table = visibility.support, visibility.allowed is not None
    if visibility.shared:
        return key_statistics.shared(k, visibility.valid)
    if isinstance(support, Everything) and not has_table:
        return key_statistics.causal(k, visibility.valid, problem.queries, scale)
    if isinstance(support, Window) and not has_table and scale == 1:
        before = min(support.radius, problem.queries - 1)  # a longer window sees no more
        after = 0 if visibility.causal else min(support.radius, problem.keys - 1)
        return key_statistics.window(k, visibility.valid, problem.queries, before, after)
    if scale > 1 or not key_statistics.has_finer_type(k.dtype, k.device.type):
        return None
    visible = problem.visible
    assert visible is not None  # else all queries would share their statistics
    return key_statistics.of_table(k, visible)


def _folded_query(
    batch_norm: BatchNorm | TensorBatchNorm, q: Float[torch.Tensor, "... M D"], statistics: KeyStatistics
) -> Float[torch.Tensor, "... M D"]:
    """q' = (q - beta mu) / (sigma^2 + eps)."""
    beta, mu = batch_norm.beta, statistics.mu
    q = q - beta * mu if isinstance(beta, torch.Tensor) else torch.sub(q, mu, alpha=beta)
    return q / (statistics.variance + batch_norm.eps)


def _centred_keys(
    k: Float[torch.Tensor, "... N D"], centred: Float[torch.Tensor, "... N D"]
) -> Float[torch.Tensor, "... N D"]:
    """The keys less a constant c, which cancels in the softmax.

    Keys in half precision, whose differences from c need not fit in it, lose c only in the features in which all keys
    are within a factor of two of it: there k - c is exact (Sterbenz's lemma).
    """
    if k.dtype == centred.dtype:
        return centred
    constant = (k[..., :1, :] - centred[..., :1, :]).detach()
    is_near = centred.detach().abs().amax(-2, keepdim=True) <= constant.abs() / 2
    return k - torch.where(is_near, constant, 0).to(k.dtype)


def _fused(
    kernel: Exponential,
    q: Float[torch.Tensor, "... M D"],
    k: Float[torch.Tensor, "... N D"],
    v: Float[torch.Tensor, "... N Dv"],
    mask: Bool[torch.Tensor, "... #M N"] | Float[torch.Tensor, "... #M N"] | None,
    dropout_p: float,
    is_causal: bool = False,
) -> Float[torch.Tensor, "... M Dv"]:
    """torch's scaled_dot_product_attention, with leading axes that broadcast."""
    lead = torch.broadcast_shapes(q.shape[:-2], k.shape[:-2], v.shape[:-2], () if mask is None else mask.shape[:-2])
    if v.dtype == torch.float16:
        q = q.clamp(-LARGEST_FLOAT16, LARGEST_FLOAT16)  # a folded query can be larger; infinite, it would make NaN
    if mask is not None:
        mask = _mask_for_torch(mask, v, lead)
    q, k, v = (_with_two_leading_axes(x.to(v.dtype), lead) for x in (q, k, v))
    f = F.scaled_dot_product_attention(q, k, v, mask, dropout_p, is_causal, scale=kernel.scale)
    return f.reshape(*lead, *f.shape[-2:])


def _mask_for_torch(
    mask: Bool[torch.Tensor, "... #M N"] | Float[torch.Tensor, "... #M N"],
    v: Float[torch.Tensor, "... N Dv"],
    lead: tuple[int, ...],
) -> Bool[torch.Tensor, "... #M N"] | Float[torch.Tensor, "... #M N"]:
    """A mask as the fused kernels take it.

    For values in half precision on a GPU it is one of numbers: there, torch 2.11 takes -65504 for False, with which a
    query that sees no key would attend to all of them. A mask that all examples share is not repeated for each: torch
    would make numbers of every copy.
    """
    if mask.is_floating_point():
        mask = mask.to(v.dtype)
    elif v.is_cuda and v.dtype.itemsize == 2:
        mask = v.new_zeros(()).where(mask, float("-inf"))
    if len(lead) == 2 or mask.ndim == 2:
        return mask
    if all(n == 1 for n in mask.shape[:-3]):
        return mask.reshape(1, *mask.shape[-3:])
    return _with_two_leading_axes(mask, lead)


def _with_two_leading_axes(
    x: Float[torch.Tensor, "... A B"] | Bool[torch.Tensor, "... A B"], lead: tuple[int, ...]
) -> Float[torch.Tensor, "b H A B"] | Bool[torch.Tensor, "b H A B"]:
    """x with the leading axes `lead`, made two: the fused kernels take no other number of them."""
    x = x.expand(*lead, *x.shape[-2:])
    missing = 2 - len(lead)
    return x[(None,) * missing] if missing > 0 else x.flatten(0, -4)


def _is_short(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> bool:
    """Whether plain products are faster: for few tokens on a CPU, where no graph is made for other machines."""
    few = max(q.shape[-2], k.shape[-2]) <= SHORT
    return q.device.type == "cpu" and not torch.compiler.is_compiling() and few and v.dtype.itemsize >= 4


def _short_softmax(
    kernel: Exponential,
    q: Float[torch.Tensor, "... M D"],
    k: Float[torch.Tensor, "... N D"],
    v: Float[torch.Tensor, "... N Dv"],
    mask: Bool[torch.Tensor, "... 1 N"] | Float[torch.Tensor, "... 1 N"] | None,
) -> Float[torch.Tensor, "... M Dv"]:
    """softmax(q k' scale + mask) v. Where the mask hides all keys, the values are zero, and so is the result."""
    logits = (q.to(v.dtype) * kernel.slope(q.shape[-1])) @ k.to(v.dtype).mT
    if mask is not None:
        lowest = torch.finfo(logits.dtype).min
        is_float = mask.is_floating_point()
        logits = logits + (mask.clamp_min(lowest) if is_float else logits.new_zeros(()).where(mask, lowest))
    return logits.softmax(-1) @ v
