"""Attention of any primal in Hugging Face's transformers."""

import math
from dataclasses import replace
from functools import partial

import torch
from torch import nn

from primal_dual.kernels import Exponential
from primal_dual.primal import Heads, catalog, heads
from primal_dual.supports import Strided
from primal_dual.transforms import split_convolutions
from torch_impl.drop_in.masks import valid_queries
from torch_impl.expansion import attention


def register_transformers():
    """Register every catalog name with Hugging Face transformers, as attn_implementation="attention_<name>".

    The model's padding, its own masks and module.is_causal intersect with the primal's support. Keys may be cached, but
    not in a static cache, and for a Convolution not at all.
    """
    for name in catalog:
        register(f"attention_{name}", name)


def register(name, primal):
    from transformers import AttentionInterface, AttentionMaskInterface, masking_utils

    counts = [len(primal)] if isinstance(primal, Heads) else range(1, 33)
    layers = {count: heads(primal, count) for count in counts}  # not all compilers can build them inside a graph
    AttentionInterface.register(name, partial(_transformers_attention, primal, layers))
    AttentionMaskInterface.register(name, partial(_transformers_mask, primal, masking_utils))


def _transformers_attention(
    primal, layers, module, query, key, value, attention_mask, scaling=None, dropout=0.0, is_causal=None, **options
):
    """Hugging Face's attention function: (B, H, M, D) -> (B, M, H, D); fewer key heads are shared by query heads."""
    for name in ("softcap", "position_bias", "s_aux"):
        if options.get(name) is not None:
            raise ValueError(f"{type(module).__name__}: expected no {name}, which has no primal; got one")
    (_, H, M, D), N = query.shape, key.shape[2]
    if key.shape[1] != H:
        key, value = (x.repeat_interleave(H // x.shape[1], 1) for x in (key, value))
    causal = getattr(module, "is_causal", False) if is_causal is None else is_causal
    cached = N - M if causal else 0  # with cached keys, the last query stands at the last key
    members = layers.get(H) or heads(primal, H)
    members = members if scaling is None else _with_scaling(primal, members, scaling, D)
    convolves = any(split_convolutions(member.transform)[0] for member in members)
    if cached and convolves:
        raise ValueError(f"attention {primal}: expected use_cache=False, since a Convolution needs all queries")
    query = nn.functional.pad(query, (0, 0, cached, 0))
    mask = attention_mask
    if mask is not None and mask.ndim == 2:
        mask = mask.bool()[:, None, None, :]
    elif mask is not None:
        if mask.is_floating_point():  # the library hides by the smallest float
            mask = mask.masked_fill(mask <= torch.finfo(mask.dtype).min, float("-inf"))
        if mask.shape[-2] > 1:  # a table that the model or its user made says all, causality too
            mask, causal = nn.functional.pad(mask, (0, 0, cached, 0)), causal and convolves
    valid = valid_queries(mask) if M + cached == N else None
    f = attention(
        members,
        query,
        key,
        value,
        query_mask=valid,
        attn_mask=mask,
        is_causal=causal,
        dropout_p=dropout,
    )
    return f[:, :, cached:].transpose(1, 2).contiguous(), None


def _with_scaling(primal, members, scaling, D):
    """The heads of a layer whose logits are q.k scaling: that of a kernel itself is 1/sqrt(D)."""
    if math.isclose(scaling, D**-0.5, rel_tol=1e-6):
        return members
    if any(member.kernel != Exponential() for member in members):
        raise ValueError(f"attention {primal}: expected scaling 1/sqrt({D}), as kernels have; got {scaling}")
    return Heads(*(replace(member, kernel=Exponential(scaling)) for member in members))


def _transformers_mask(
    primal,
    masking_utils,
    *,
    mask_function=None,
    attention_mask=None,
    q_length,
    kv_length,
    q_offset=0,
    kv_offset=0,
    **options,
):
    """The (B, N) key mask where the model's mask is that, perhaps with causality; else the whole table."""
    declared = catalog[primal] if isinstance(primal, str) else primal
    members = declared if isinstance(declared, Heads) else (declared,)
    if int(q_offset) + q_length != int(kv_offset) + kv_length and mask_function is masking_utils.causal_mask_function:
        raise ValueError("past_key_values: expected a cache that grows; got one with empty places, as a static one has")
    if int(kv_offset) and any(member.scale > 1 or isinstance(member.support, Strided) for member in members):
        raise ValueError(
            f"attention {primal}: expected a cache of all keys; got a sliding one, which moves their pools"
        )
    sizes = dict(q_length=q_length, kv_length=kv_length, q_offset=q_offset, kv_offset=kv_offset)
    simple = mask_function in (masking_utils.causal_mask_function, masking_utils.bidirectional_mask_function, None)
    make = masking_utils.flash_attention_mask if simple else masking_utils.sdpa_mask
    return make(mask_function=mask_function, attention_mask=attention_mask, **sizes, **options)
