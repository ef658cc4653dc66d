"""Attention of any primal in Hugging Face's transformers."""

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from primal_dual.kernels import Exponential
from primal_dual.primal import Heads, Primal, catalog, heads
from primal_dual.supports import Strided
from primal_dual.transforms import split_convolutions
from primal_dual.types import Bool, Float
from torch_impl.drop_in.masks import valid_queries
from torch_impl.expansion import attention


def register_transformers() -> None:
    """Register every catalog name with Hugging Face transformers, as attn_implementation="attention_<name>".

    The model's padding, its own masks and module.is_causal intersect with the primal's support. Keys may be cached, but
    not in a static cache, and for a Convolution not at all.
    """
    for name in catalog:
        register(f"attention_{name}", name)


def register(name: str, primal: str | Primal | Heads) -> None:
    """Register one primal with Hugging Face transformers, as attn_implementation=`name`.

    Parameters
    ----------
    name : str
        What a model's configuration will call it.
    primal : str, Primal or Heads
        A str is a catalog name; ValueError if it is unknown.
    """
    counts = [len(primal)] if isinstance(primal, Heads) else range(1, 33)
    layers = {count: heads(primal, count) for count in counts}  # not all compilers can build them inside a graph
    from transformers import AttentionInterface, AttentionMaskInterface, masking_utils

    AttentionInterface.register(name, partial(_transformers_attention, primal, layers))
    AttentionMaskInterface.register(name, partial(_transformers_mask, primal, masking_utils))


def _transformers_attention(
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


def _transformers_mask(
    primal: str | Primal | Heads,
    masking_utils: Any,
    *,
    mask_function: Any = None,
    attention_mask: torch.Tensor | None = None,
    q_length: int,
    kv_length: int,
    q_offset: int = 0,
    kv_offset: int = 0,
    **options: Any,
) -> torch.Tensor | None:
    """Hugging Face's mask function: a key mask (B, N) if the model's mask is one, causality apart; else the table."""
    declared = catalog[primal] if isinstance(primal, str) else primal
    members = tuple(declared) if isinstance(declared, Heads) else (declared,)
    if int(q_offset) + q_length != int(kv_offset) + kv_length and mask_function is masking_utils.causal_mask_function:
        raise ValueError("past_key_values: expected a cache that grows; got one with empty places, as a static one has")
    if int(kv_offset) and any(member.scale > 1 or isinstance(member.support, Strided) for member in members):
        raise ValueError(
            f"attention {primal}: expected a cache of all keys; got a sliding one, which moves their pools"
        )
    simple = mask_function in (masking_utils.causal_mask_function, masking_utils.bidirectional_mask_function, None)
    make = masking_utils.flash_attention_mask if simple else masking_utils.sdpa_mask
    return make(
        mask_function=mask_function,
        attention_mask=attention_mask,
        q_length=q_length,
        kv_length=kv_length,
        q_offset=q_offset,
        kv_offset=kv_offset,
        **options,
    )
