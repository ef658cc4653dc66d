"""Hugging Face's attention function, for any primal."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import nn

from primal_dual.kernels import Exponential
from primal_dual.primal import Heads, Primal, heads
from primal_dual.transforms import Identity, split_convolutions
from primal_dual.types import Bool, Float
from torch_impl.drop_in.hugging_face.cache import (
    check_cache,
    convolves,
    moves_with_padding,
    seen_by_last_query,
    without_supports,
)
from torch_impl.drop_in.hugging_face.left_padding import take_columns, take_rows, turn
from torch_impl.drop_in.hugging_face.masks import mask_of_attention, valid_keys
from torch_impl.expansion import attention, attention_with_weights

WITHOUT_PRIMAL = ("softcap", "position_bias", "s_aux", "sinks", "indices", "block_indices")


class Inputs(NamedTuple):
    """What an attention of `members` is evaluated on; `valid` marks real keys, and real queries if `is_self`."""

    members: Heads
    q: Float[torch.Tensor, "B H M D"]
    k: Float[torch.Tensor, "B H N D"]
    v: Float[torch.Tensor, "B H N Dv"]
    mask: torch.Tensor | None
    valid: Bool[torch.Tensor, "B N"] | None
    is_self: bool
    is_causal: bool


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
) -> tuple[Float[torch.Tensor, "B M H Dv"], Float[torch.Tensor, "B H M N"] | None]:
    """Hugging Face's attention function, with its signature. Fewer key heads are shared by query heads."""
    _refuse_options(module, options)
    (_, H, M, D), N = query.shape, key.shape[2]
    causal = getattr(module, "is_causal", False) if is_causal is None else is_causal
    members = layers.get(H) or heads(primal, H)
    query, scaling = _own_query(primal, members, module, query, scaling)
    members = _with_scaling(primal, members, scaling, D)
    mask, cached = mask_of_attention(attention_mask), N - M if causal else 0
    is_table = attention_mask is not None and attention_mask.ndim == 4
    if cached:
        check_cache(primal, members, is_table)
    reads_table = convolves(members) or moves_with_padding(members)
    valid = None if mask is None or (is_table and not reads_table) else valid_keys(mask)
    k, v = _repeat_heads(key, H), _repeat_heads(value, H)
    is_self = M + cached == N and not _is_cross_attention(module)
    causal = causal and (not is_table or convolves(members))  # a table says itself what is causal
    inputs = Inputs(members, query, k, v, mask, valid, is_self, causal)
    inputs = _single_query(inputs) if cached and M == 1 else _with_cached_queries(inputs, cached)
    evaluate = _without_left_padding if valid is not None and moves_with_padding(members) else _evaluate
    f, weights = evaluate(inputs, dropout, bool(options.get("output_attentions")))
    f = f[:, :, -M:].transpose(1, 2).contiguous()
    return f, None if weights is None else weights[:, :, -M:]


def _refuse_options(module: nn.Module, options: Mapping[str, Any]) -> None:
    for name in WITHOUT_PRIMAL:
        if options.get(name) is not None:
            raise ValueError(f"{type(module).__name__}: expected no {name}, which has no primal; got one")


def _is_cross_attention(module: nn.Module) -> bool:
    """Whether the keys are those of another sequence, as far as the module tells.

    It is called so, or is a decoder's, but not causal. Moonshine's and Q-Former's modules do not tell.
    """
    if "Cross" in type(module).__name__ or getattr(module, "is_cross_attention", False):
        return True
    return getattr(module, "is_decoder", False) and not getattr(module, "is_causal", True)


def _single_query(inputs: Inputs) -> Inputs:
    """The query at the last key, alone: what its support shows is a mask of keys, and nothing is later."""
    members, mask = inputs.members, inputs.mask
    seen = seen_by_last_query(members, inputs.k.shape[2], inputs.k.device)
    if seen is not None and mask is not None:
        mask = mask & seen if mask.dtype == torch.bool else mask.masked_fill(~seen, float("-inf"))
    mask = seen if mask is None else mask
    return inputs._replace(members=without_supports(members), mask=mask, is_self=False, is_causal=False)


def _with_cached_queries(inputs: Inputs, cached: int) -> Inputs:
    """Queries whose last one stands at the last key: those before them are filled in as zeros."""
    q, mask = nn.functional.pad(inputs.q, (0, 0, cached, 0)), inputs.mask
    if mask is not None and mask.shape[-2] > 1:
        mask = nn.functional.pad(mask, (0, 0, cached, 0))
    return inputs._replace(q=q, mask=mask)


def _without_left_padding(inputs: Inputs, dropout: float, with_weights: bool) -> tuple[torch.Tensor, Any]:
    """The same where positions count from the first valid token: all tokens turn until it comes first."""
    assert inputs.valid is not None and inputs.mask is not None
    there, back = turn(inputs.valid)
    mask = take_columns(inputs.mask, there)
    if mask.shape[-2] > 1:
        mask = take_rows(mask, there)
    f, weights = _evaluate(
        inputs._replace(
            q=take_rows(inputs.q, there) if inputs.is_self else inputs.q,
            k=take_rows(inputs.k, there),
            v=take_rows(inputs.v, there),
            valid=inputs.valid.take_along_dim(there, -1),
            mask=mask,
        ),
        dropout,
        with_weights,
    )
    weights = None if weights is None else take_columns(weights, back)
    if not inputs.is_self:
        return f, weights
    return take_rows(f, back), None if weights is None else take_rows(weights, back)


def _evaluate(inputs: Inputs, dropout: float, with_weights: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The attention, and its weights if they are asked for."""
    members, q, k, v, mask, valid, is_self, is_causal = inputs
    options: dict[str, Any] = dict(query_mask=valid if is_self else None, attn_mask=mask, is_causal=is_causal)
    if with_weights:
        return attention_with_weights(members, q, k, v, valid, dropout_p=dropout, **options)
    return attention(members, q, k, v, valid, dropout_p=dropout, **options), None


def _own_query(
    primal: str | Primal | Heads,
    members: Heads,
    module: nn.Module,
    query: Float[torch.Tensor, "B H M D"],
    scaling: float | None,
) -> tuple[Float[torch.Tensor, "B H M D"], float | None]:
    """The module's query before it was scaled, and the scaling of its logits.

    Some modules multiply their queries by module.scaling and call us with a scaling of 1. Softmax does not mind; in
    Attention-BN, the query must be in the units of the keys.
    """
    own = getattr(module, "scaling", scaling)
    if scaling is None or own is scaling or all(_is_plain_softmax(member) for member in members):
        return query, scaling
    if isinstance(own, float) and math.isclose(own, scaling):
        return query, scaling
    if isinstance(own, float) and scaling == 1 and math.isclose(own, query.shape[-1] ** -0.5, rel_tol=1e-6):
        return query / own, own
    raise ValueError(f"attention {primal}: expected queries as {type(module).__name__} projects them; got scaled ones")


def _is_plain_softmax(member: Primal) -> bool:
    """Whether the logits are q.k times a number, convolutions apart."""
    return member.kernel == Exponential() and all(
        isinstance(part, Identity) for part in split_convolutions(member.transform)[1]
    )


def _repeat_heads(x: Float[torch.Tensor, "B key_heads N F"], H: int) -> Float[torch.Tensor, "B {H} N F"]:
    """One key head for each query head: neighbouring query heads share one."""
    return x if x.shape[1] == H else x.repeat_interleave(H // x.shape[1], 1)


def _with_scaling(primal: str | Primal | Heads, members: Heads, scaling: float | None, D: int) -> Heads:
    """The heads of a layer whose logits are q.k scaling: that of a kernel itself is 1/sqrt(D)."""
    if scaling is None or math.isclose(scaling, D**-0.5, rel_tol=1e-6):
        return members
    if any(member.kernel != Exponential() for member in members):
        raise ValueError(f"attention {primal}: expected scaling 1/sqrt({D}), as kernels have; got {scaling}")
    return Heads(*(replace(member, kernel=Exponential(scaling)) for member in members))
