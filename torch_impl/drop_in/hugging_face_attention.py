"""Hugging Face's attention function, for any primal."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from primal_dual.kernels import Exponential
from primal_dual.primal import Heads, Primal, heads
from primal_dual.transforms import split_convolutions
from primal_dual.types import Bool, Float
from torch_impl.drop_in.masks import valid_queries
from torch_impl.expansion import attention


def attention_function(
    primal: str | Primal | Heads,
    layers: Mapping[int, Heads],
    module: nn.Module,
    query: Float[torch.Tensor, "B H M D"],
    key: Float[torch.Tensor, "B key_heads N D"],
    value: Float[torch.Tensor, "B key_heads N Dv"],
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    is_causal: bool | None = None,
    **options: Any,
) -> tuple[Float[torch.Tensor, "B M H Dv"], None]:
    """Hugging Face's attention function, with its signature. Fewer key heads are shared by query heads.

    With cached keys the last query stands at the last key: the queries before it are filled in as zeros.
    """
    _refuse_options(module, options)
    (_, H, M, D), N = query.shape, key.shape[2]
    causal = getattr(module, "is_causal", False) if is_causal is None else is_causal
    cached = N - M if causal else 0
    members = _with_scaling(primal, layers.get(H) or heads(primal, H), scaling, D)
    convolves = any(split_convolutions(member.transform)[0] for member in members)
    if cached and convolves:
        raise ValueError(f"attention {primal}: expected use_cache=False, since a Convolution needs all queries")
    mask = _with_infinity(attention_mask)
    if mask is not None and mask.shape[-2] > 1:
        mask = nn.functional.pad(mask, (0, 0, cached, 0))
        causal = causal and convolves  # the model's own table holds causality, too
    f = attention(
        members,
        nn.functional.pad(query, (0, 0, cached, 0)),
        _repeat_heads(key, H),
        _repeat_heads(value, H),
        query_mask=valid_queries(mask) if M + cached == N else None,
        attn_mask=mask,
        is_causal=causal,
        dropout_p=dropout,
    )
    return f[:, :, cached:].transpose(1, 2).contiguous(), None


def _refuse_options(module: nn.Module, options: Mapping[str, Any]) -> None:
    for name in ("softcap", "position_bias", "s_aux"):
        if options.get(name) is not None:
            raise ValueError(f"{type(module).__name__}: expected no {name}, which has no primal; got one")


def _repeat_heads(x: Float[torch.Tensor, "B key_heads N F"], H: int) -> Float[torch.Tensor, "B {H} N F"]:
    """One key head for each query head: neighbouring query heads share one."""
    return x if x.shape[1] == H else x.repeat_interleave(H // x.shape[1], 1)


def _with_infinity(
    mask: torch.Tensor | None,
) -> Bool[torch.Tensor, "B heads queries N"] | Float[torch.Tensor, "B heads queries N"] | None:
    """The library's mask as `attention` takes it. The library hides by the smallest float, and we by -inf."""
    if mask is None:
        return None
    if mask.ndim == 2:
        return mask.bool()[:, None, None, :]
    if mask.is_floating_point():
        return mask.masked_fill(mask <= torch.finfo(mask.dtype).min, float("-inf"))
    return mask


def _with_scaling(primal: str | Primal | Heads, members: Heads, scaling: float | None, D: int) -> Heads:
    """The heads of a layer whose logits are q.k scaling: that of a kernel itself is 1/sqrt(D)."""
    if scaling is None or math.isclose(scaling, D**-0.5, rel_tol=1e-6):
        return members
    if any(member.kernel != Exponential() for member in members):
        raise ValueError(f"attention {primal}: expected scaling 1/sqrt({D}), as kernels have; got {scaling}")
    return Heads(*(replace(member, kernel=Exponential(scaling)) for member in members))
