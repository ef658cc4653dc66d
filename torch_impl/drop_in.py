"""Attention of any primal in models that exist: Hugging Face's, timm's and torch's own."""

import math
from dataclasses import replace
from functools import partial

import torch
from torch import nn

from primal_dual.kernels import Exponential
from primal_dual.primal import Heads, catalog, heads
from primal_dual.transforms import parts
from torch_impl.attention import attention
from torch_impl.multihead import MultiheadAttention


def register_transformers():
    """Register every catalog name with Hugging Face transformers, as attn_implementation="attention_<name>".

    The model's own masks, its padding and module.is_causal intersect with the primal's support.
    """
    for name in catalog:
        _register(f"attention_{name}", name)


def timm_attention(primal):
    """A class for the `attn_layer` argument of timm's vision transformers: their attention with this primal.

    Its weights have the names of timm's, so that a trained model loads.
    """
    return type("PrimalAttention", (TimmAttention,), {"primal": primal})


def replace_attention(model, primal):
    """Give every attention of `model` this primal, in place, and keep the weights -> the model.

    model: a Hugging Face model, or one with nn.MultiheadAttention (as in nn.TransformerEncoder) or timm's Attention
    inside. primal: a catalog name, a Primal, or Heads. torch's inference fast path and its nested tensors, which would
    run softmax instead, are off for what is replaced. Raises ValueError where nothing can be replaced.
    """
    if hasattr(model, "set_attn_implementation"):
        name = f"attention_{primal}" if isinstance(primal, str) else f"attention_{hash(primal) & 0xFFFFFFFF:x}"
        _register(name, catalog[primal] and primal if isinstance(primal, str) else primal)
        model.set_attn_implementation(name)
        return model
    replaced = 0
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            new = _replacement(child, primal)
            if new is not None:
                new.load_state_dict(child.state_dict())
                setattr(module, name, new.train(child.training))
                replaced += 1
        if isinstance(module, nn.TransformerEncoder):
            module.use_nested_tensor = False
    if not replaced:
        raise ValueError(
            "replace_attention: expected a Hugging Face model, or one with nn.MultiheadAttention or timm's Attention"
            f" inside; got {type(model).__name__} without any"
        )
    return model


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
    if isinstance(module, nn.MultiheadAttention) and not isinstance(module, MultiheadAttention):
        return MultiheadAttention(
            module.embed_dim,
            module.num_heads,
            module.dropout,
            module.in_proj_bias is not None,
            module.bias_k is not None,
            module.add_zero_attn,
            module.kdim,
            module.vdim,
            module.batch_first,
            module.out_proj.weight.device,
            module.out_proj.weight.dtype,
            primal=primal,
        )
    if type(module).__name__ == "Attention" and type(module).__module__.startswith("timm."):
        new = timm_attention(primal)(
            module.qkv.in_features,
            module.num_heads,
            module.head_dim,
            module.proj.out_features,
            module.qkv.bias is not None,
            proj_bias=module.proj.bias is not None,
            attn_drop=module.attn_drop.p,
            proj_drop=module.proj_drop.p,
            device=module.qkv.weight.device,
            dtype=module.qkv.weight.dtype,
        )
        new.q_norm, new.k_norm = module.q_norm, module.k_norm
        new.norm = getattr(module, "norm", new.norm)
        return new
    return None


def _register(name, primal):
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(name, partial(_transformers_attention, primal))
    AttentionMaskInterface.register(name, _transformers_mask)


def _transformers_attention(
    primal, module, query, key, value, attention_mask, scaling=None, dropout=0.0, is_causal=None, **options
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
    members = _layer_heads(primal, H, D**-0.5 if scaling is None else scaling, D)
    if cached and any(parts(member.transform)[0] for member in members):
        raise ValueError(f"attention {primal}: expected use_cache=False, since a Convolution needs all queries")
    query = nn.functional.pad(query, (0, 0, cached, 0))
    mask = attention_mask
    if mask is not None and mask.ndim == 2:
        mask = mask.bool()[:, None, None, :]
    elif mask is not None:
        if mask.is_floating_point():  # the library hides by the smallest float
            mask = mask.masked_fill(mask <= torch.finfo(mask.dtype).min, float("-inf"))
        mask = nn.functional.pad(mask, (0, 0, cached, 0)) if mask.shape[-2] > 1 else mask
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


def _layer_heads(primal, count, scaling, D):
    """The heads of a layer whose logits are q.k scaling: that of a kernel itself is 1/sqrt(D)."""
    members = heads(primal, count)
    if math.isclose(scaling, D**-0.5, rel_tol=1e-6):
        return members
    if any(member.kernel != Exponential() for member in members):
        raise ValueError(f"attention {primal}: expected scaling 1/sqrt({D}), as kernels have; got {scaling}")
    return Heads(*(replace(member, kernel=Exponential(scaling)) for member in members))


def _transformers_mask(*arguments, mask_function=None, attention_mask=None, kv_length=None, **options):
    """The (B, N) key mask where the model's mask is that, perhaps with causality; else the whole table."""
    from transformers import masking_utils

    if mask_function in (masking_utils.causal_mask_function, masking_utils.bidirectional_mask_function, None):
        return masking_utils.flash_attention_mask(
            *arguments, mask_function=mask_function, attention_mask=attention_mask, kv_length=kv_length, **options
        )
    return masking_utils.sdpa_mask(
        *arguments, mask_function=mask_function, attention_mask=attention_mask, kv_length=kv_length, **options
    )


def _real_queries(mask):
    """Where a key mask (B, 1, 1, N) hides keys of a self-attention, it hides the same tokens as queries."""
    if mask is None or mask.shape[-2] != 1 or mask.ndim != 4:
        return None
    return mask[:, 0, 0] if mask.dtype == torch.bool else mask[:, 0, 0] > float("-inf")
