"""timm's attention with any primal."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import nn

from primal_dual.primal import Heads, Primal, heads
from primal_dual.types import Bool, Float
from torch_impl import checks
from torch_impl.expansion import attention
from torch_impl.masks import hide_low_numbers
from torch_impl.transforms import learned_beta


def timm_attention(primal: str | Primal | Heads, learn_beta: bool = False) -> "type[TimmAttention]":
    """A class for the `attn_layer` argument of timm's vision transformers: their attention with this primal.

    Its weights have the names of timm's, so that a trained model loads. Its modules can be pickled.

    Parameters
    ----------
    primal : str, Primal or Heads
        What every layer evaluates; a str is a catalog name, which with "sh" gives the heads different scales, see
        `primal_dual.heads`.
    learn_beta : bool
        Whether the heads learn their beta, if they have a BatchNorm: a weight that timm does not know.

    Examples
    --------
    >>> timm_attention("bn")(16, num_heads=4)(torch.ones(2, 9, 16)).shape
    torch.Size([2, 9, 16])
    """
    return _kind(primal, learn_beta)


@cache
def _kind(primal: str | Primal | Heads, learn_beta: bool) -> "type[TimmAttention]":
    """The class, of which there is one, so that a copy is of the class of its original."""

    class PrimalAttention(TimmAttention):
        def __reduce_ex__(self, protocol: Any) -> Any:
            if type(self) is not PrimalAttention:
                return super().__reduce_ex__(protocol)
            return _empty, (primal, learn_beta), self.__getstate__()

    PrimalAttention.primal, PrimalAttention.learn_beta = primal, learn_beta
    return PrimalAttention


def _empty(primal: str | Primal | Heads, learn_beta: bool) -> "TimmAttention":
    """A module to be unpickled, whose class has no name to be found by."""
    kind = _kind(primal, learn_beta)
    return kind.__new__(kind)


class TimmAttention(nn.Module):
    """timm's self-attention, x -> proj(attention(qkv(x))), with its arguments and the names of its weights.

    Raises ValueError for a dim that is no multiple of num_heads.

    Attributes
    ----------
    primal : str, Primal or Heads
        A catalog name, or what is declared. `timm_attention` makes a class with another one.
    learn_beta : bool
        Whether the heads learn their beta.
    """

    primal: str | Primal | Heads = "softmax"
    learn_beta: bool = False

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        attn_head_dim: int | None = None,
        dim_out: int | None = None,
        qkv_bias: bool = False,
        qk_norm: bool = False,
        scale_norm: bool = False,
        proj_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        norm_layer: Callable[..., nn.Module] = nn.LayerNorm,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if attn_head_dim is None and dim % num_heads:
            raise ValueError(f"dim: expected a multiple of {num_heads} heads; got {dim}")
        head_dim = attn_head_dim or dim // num_heads
        place = dict(device=device, dtype=dtype)
        self.num_heads = num_heads
        self.heads = heads(self.primal, num_heads)
        self.qkv = nn.Linear(dim, 3 * num_heads * head_dim, bias=qkv_bias, **place)
        self.q_norm = norm_layer(head_dim, **place) if qk_norm else nn.Identity()
        self.k_norm = norm_layer(head_dim, **place) if qk_norm else nn.Identity()
        self.attn_drop = nn.Dropout(attn_drop)
        self.norm = norm_layer(num_heads * head_dim, **place) if scale_norm else nn.Identity()
        self.proj = nn.Linear(num_heads * head_dim, dim_out or dim, bias=proj_bias, **place)
        self.proj_drop = nn.Dropout(proj_drop)
        self.beta = learned_beta(self.heads, self.proj.weight) if self.learn_beta else None

    def forward(
        self,
        x: Float[torch.Tensor, "B N dim"],
        attn_mask: Bool[torch.Tensor, "... #N N"] | Float[torch.Tensor, "... #N N"] | None = None,
        is_causal: bool = False,
    ) -> Float[torch.Tensor, "B N dim_out"]:
        """The self-attention of B sequences of N tokens.

        Parameters
        ----------
        x : tensor
            The tokens.
        attn_mask : tensor, optional
            Booleans, True where a query may attend, or floats that are added to the logits; for a primal that takes
            means of keys, those below -88 hide a key, as -inf does.
        is_causal : bool
            Whether a token sees no later one.
        """
        if attn_mask is not None and checks.booleans_or_floats(attn_mask):
            attn_mask = hide_low_numbers(attn_mask, self.heads)
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        f = attention(
            self.heads,
            self.q_norm(q),
            self.k_norm(k),
            v,
            query_mask=valid_queries(attn_mask),
            attn_mask=attn_mask,
            is_causal=is_causal,
            beta=self.beta,
            dropout_p=self.attn_drop.p if self.training else 0.0,
        )
        return self.proj_drop(self.proj(self.norm(f.transpose(1, 2).flatten(-2))))


def valid_queries(
    mask: Bool[torch.Tensor, "..."] | Float[torch.Tensor, "..."] | None,
) -> Bool[torch.Tensor, "B N"] | None:
    """The valid queries of a self-attention: where a key mask (B, 1, 1, N) hides keys, it hides the same queries.

    None for a mask of another shape, which says nothing about queries. Booleans are True for a valid token; a float of
    -inf hides one.

    Examples
    --------
    >>> valid_queries(torch.tensor([[[[True, False]]]])).tolist()
    [[True, False]]
    """
    if mask is None or mask.ndim != 4 or mask.shape[-2] != 1:
        return None
    row = mask[:, 0, 0]
    return row if row.dtype == torch.bool else row > float("-inf")
