"""Attention of any primal in models that exist: Hugging Face's, timm's and torch's own."""

import math
from dataclasses import replace
from functools import partial

import torch
from torch import nn

from primal_dual.kernels import Exponential
from primal_dual.primal import Heads, catalog, heads
from primal_dual.supports import Strided
from primal_dual.transforms import parts
from torch_impl.attention import attention
from torch_impl.multihead import MultiheadAttention


def register_transformers():
    """Register every catalog name with Hugging Face transformers, as attn_implementation="attention_<name>".

    The model's padding, its own masks and module.is_causal intersect with the primal's support. Keys may be cached, but
    not in a static cache, and for a Convolution not at all.
    """
    for name in catalog:
        _register(f"attention_{name}", name)


def timm_attention(primal):
    """A class for the `attn_layer` argument of timm's vision transformers: their attention with this primal.

    Its weights have the names of timm's, so that a trained model loads.
    """
    return type("PrimalAttention", (TimmAttention,), {"primal": primal})


def replace_attention(model, primal):
    """Give every attention of `model` this primal, in place, with the same parameters -> the model.

    model: a Hugging Face model, or one with nn.MultiheadAttention (as in nn.TransformerEncoder) or timm's Attention
    inside. primal: a catalog name, a Primal, or Heads. torch's inference fast path and its nested tensors, which would
    run softmax instead, are off for what is replaced. Raises ValueError, and changes nothing, where nothing or not
    everything can be replaced.
    """
    new = {child: _replacement(child, primal) for child in model.modules() if child is not model}
    new = {child: replacement for child, replacement in new.items() if replacement is not None}
    dispatches = getattr(model, "_supports_attention_backend", False) and hasattr(model, "set_attn_implementation")
    if not new and not dispatches:
        raise ValueError(
            "replace_attention: expected a model with nn.MultiheadAttention or timm's Attention inside, or one of"
            f" Hugging Face's that takes attention functions; got {type(model).__name__}, which is or has none"
        )
    if dispatches:
        if isinstance(primal, str):
            _ = catalog[primal]
        known = (
            f"attention_{primal}" if isinstance(primal, str) else _names.setdefault(primal, f"attention_{len(_names)}")
        )
        _register(known, primal)
        model.set_attn_implementation(known)
    for module in list(model.modules()):
        for name, child in list(module._modules.items()):
            if child in new:
                setattr(module, name, new[child])
        if isinstance(module, nn.TransformerEncoder):
            module.use_nested_tensor = False
    return model


_names = {}  # of primals that Hugging Face models were given


class TimmAttention(nn.Module):
    """timm's self-attention, x -> proj(attention(qkv(x))), with its arguments and the names of its weights."""

    primal = "softmax"

    def __init__(
        self,
        dim,
        num_heads=8,
        attn_head_dim=None,
        dim_out=None,
        qkv_bias=False,
        qk_norm=False,
        scale_norm=False,
        proj_bias=True,
        attn_drop=0.0,
        proj_drop=0.0,
        norm_layer=nn.LayerNorm,
        device=None,
        dtype=None,
    ):
        super().__init__()
        if attn_head_dim is None and dim % num_heads:
            raise ValueError(f"dim: expected a multiple of {num_heads} heads; got {dim}")
        place = dict(device=device, dtype=dtype)
        self.num_heads, head_dim = num_heads, attn_head_dim or dim // num_heads
        self.heads = heads(self.primal, num_heads)
        self.qkv = nn.Linear(dim, 3 * num_heads * head_dim, bias=qkv_bias, **place)
        self.q_norm = norm_layer(head_dim, **place) if qk_norm else nn.Identity()
        self.k_norm = norm_layer(head_dim, **place) if qk_norm else nn.Identity()
        self.attn_drop = nn.Dropout(attn_drop)
        self.norm = norm_layer(num_heads * head_dim, **place) if scale_norm else nn.Identity()
        self.proj = nn.Linear(num_heads * head_dim, dim_out or dim, bias=proj_bias, **place)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x, attn_mask=None, is_causal=False):
        """x (B, N, dim) -> (B, N, dim_out). attn_mask (..., N or 1, N): True where a query may attend, or floats."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        f = attention(
            self.heads,
            self.q_norm(q),
            self.k_norm(k),
            v,
            query_mask=_real_queries(attn_mask),
            attn_mask=attn_mask,
            is_causal=is_causal,
            dropout_p=self.attn_drop.p if self.training else 0.0,
        )
        return self.proj_drop(self.proj(self.norm(f.transpose(1, 2).flatten(-2))))


def _replacement(module, primal):
    """The module that takes its place, or None where it is no attention. It has the same parameters and mode."""
    if isinstance(module, nn.MultiheadAttention):
        new = MultiheadAttention(
            module.embed_dim,
            module.num_heads,
            module.dropout,
            module.in_proj_bias is not None,
            module.bias_k is not None,
            module.add_zero_attn,
            module.kdim,
            module.vdim,
            module.batch_first,
            device="meta",
            primal=primal,
        )
    elif isinstance(module, TimmAttention) or (
        type(module).__name__ == "Attention" and type(module).__module__.startswith("timm.")
    ):
        width = module.qkv.out_features // 3
        new = timm_attention(primal)(module.qkv.in_features, module.num_heads, width // module.num_heads, device="meta")
    else:
        return None
    new._parameters.update({name: p for name, p in module._parameters.items() if name in new._parameters})
    new._modules.update({name: each for name, each in module._modules.items() if name in new._modules})
    new.training = module.training
    return new


def _register(name, primal):
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
    convolves = any(parts(member.transform)[0] for member in members)
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
    real = _real_queries(mask) if M + cached == N else None
    f = attention(
        members,
        query,
        key,
        value,
        query_mask=real,
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


def _real_queries(mask):
    """Where a key mask (B, 1, 1, N) hides keys of a self-attention, it hides the same tokens as queries."""
    if mask is None or mask.shape[-2] != 1 or mask.ndim != 4:
        return None
    return mask[:, 0, 0] if mask.dtype == torch.bool else mask[:, 0, 0] > float("-inf")
