"""Hugging Face's masks: its mask function for any primal, and what a mask says of padding."""

from typing import Any

import torch

from primal_dual.primal import Heads, Primal, members_of
from primal_dual.types import Bool, Float
from torch_impl.drop_in.hugging_face.cache import crosses, needs_positions, pools, refuse_cache
from torch_impl.masks import with_infinity


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
    config: Any = None,
    **options: Any,
) -> torch.Tensor | None:
    """Hugging Face's mask function: a key mask (B, N) if the model's mask is one, causality apart; else the table.

    A model that does more with its mask than to pass it on asks for the table by allowing no skip.
    """
    members = members_of(primal)
    is_causal = mask_function is masking_utils.causal_mask_function
    may_skip = options.get("allow_is_causal_skip" if is_causal else "allow_is_bidirectional_skip", True)
    if int(q_offset) + q_length != int(kv_offset) + kv_length and is_causal:
        raise ValueError("past_key_values: expected a cache that grows; got one with empty places, as a static one has")
    if int(kv_offset) and pools(members):
        refuse_cache(primal, "a sliding cache moves the keys that are averaged")
    if int(q_offset) and crosses(config) and needs_positions(members):
        refuse_cache(primal, "a cached query does not know its position in cross-attention")
    if may_skip and (is_causal or mask_function in (masking_utils.bidirectional_mask_function, None)):
        if attention_mask is None:
            return None
        key_mask = attention_mask[:, -kv_length:]
        # A graph has no place for a question about its numbers.
        whole = not torch.compiler.is_compiling() and key_mask.shape[1] == kv_length and key_mask.all()
        return None if whole else key_mask
    return masking_utils.sdpa_mask(
        mask_function=mask_function,
        attention_mask=attention_mask,
        q_length=q_length,
        kv_length=kv_length,
        q_offset=q_offset,
        kv_offset=kv_offset,
        **options,
    )


def mask_of_attention(
    mask: torch.Tensor | None,
) -> Bool[torch.Tensor, "B heads queries N"] | Float[torch.Tensor, "B heads queries N"] | None:
    """The library's mask as `attention` takes it. Models hide by numbers below -88, and we by -inf.

    Examples
    --------
    >>> mask_of_attention(torch.tensor([[1, 0]])).tolist()
    [[[[True, False]]]]
    >>> mask_of_attention(torch.tensor([[[[0.5, -100.0]]]])).tolist()
    [[[[0.5, -inf]]]]
    """
    if mask is None:
        return None
    if mask.ndim == 2:
        return mask.bool()[:, None, None, :]
    if mask.is_floating_point():
        return with_infinity(mask)
    return mask


def valid_keys(
    mask: Bool[torch.Tensor, "B heads queries N"] | Float[torch.Tensor, "B heads queries N"],
) -> Bool[torch.Tensor, "B N"]:
    """The keys that some query sees. The others are padding: a real token sees itself.

    Examples
    --------
    >>> valid_keys(torch.tensor([[[[False, True, False], [False, True, True]]]])).tolist()
    [[False, True, True]]
    """
    visible = mask if mask.dtype == torch.bool else mask > float("-inf")
    return visible.any((1, 2))
