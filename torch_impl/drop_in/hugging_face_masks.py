"""Hugging Face's mask function, for any primal."""

from typing import Any

import torch

from primal_dual.primal import Heads, Primal, catalog
from primal_dual.supports import Strided


def mask_function(
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
