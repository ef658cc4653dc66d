"""timm's attention with any primal."""

from torch import nn

from primal_dual.primal import heads
from torch_impl.drop_in.masks import valid_queries
from torch_impl.expansion import attention


def timm_attention(primal):
    """A class for the `attn_layer` argument of timm's vision transformers: their attention with this primal.

    Its weights have the names of timm's, so that a trained model loads.
    """
    return type("PrimalAttention", (TimmAttention,), {"primal": primal})


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
            query_mask=valid_queries(attn_mask),
            attn_mask=attn_mask,
            is_causal=is_causal,
            dropout_p=self.attn_drop.p if self.training else 0.0,
        )
        return self.proj_drop(self.proj(self.norm(f.transpose(1, 2).flatten(-2))))
