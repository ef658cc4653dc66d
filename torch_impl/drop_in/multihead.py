"""Multi-head attention of any primal as a module, in the place of torch.nn.MultiheadAttention."""

import torch
import torch.nn.functional as F
from torch import nn

from primal_dual.primal import heads
from primal_dual.transforms import BatchNorm, split_convolutions
from torch_impl.expansion import attention, attention_weights


class MultiheadAttention(nn.MultiheadAttention):
    """sum_s f^s(x W_Q^s) W_O^s + b_O, with f^s the attention of head s's primal: torch's module, signature and weights.

    primal: a catalog name, a Primal, or Heads of `num_heads`. learn_beta: BatchNorm's beta becomes a parameter, one a
    head. learn_taps: so does the kernel of the one Convolution that the heads share. Both start at the primal's own.

    A trained nn.MultiheadAttention loads by load_state_dict, with strict=False beside what is learned. Masks are
    torch's: True hides a key. They intersect with the primal's support. Raises ValueError for add_bias_kv,
    add_zero_attn, an embed_dim that is no multiple of num_heads, another number of Heads, and nothing to learn.
    Source: arXiv 2406.13781.
    """

    def __init__(
        self,
        embed_dim,
        num_heads,
        dropout=0.0,
        bias=True,
        add_bias_kv=False,
        add_zero_attn=False,
        kdim=None,
        vdim=None,
        batch_first=False,
        device=None,
        dtype=None,
        *,
        primal="softmax",
        learn_beta=False,
        learn_taps=False,
    ):
        if add_bias_kv or add_zero_attn:
            raise ValueError("add_bias_kv, add_zero_attn: expected False; a key that is no token has no primal here")
        if num_heads < 1 or embed_dim < 1 or embed_dim % num_heads:
            raise ValueError(f"embed_dim: expected a multiple of {num_heads} heads; got {embed_dim}")
        super().__init__(
            embed_dim,
            num_heads,
            dropout,
            bias,
            kdim=kdim,
            vdim=vdim,
            batch_first=batch_first,
            device=device,
            dtype=dtype,
        )
        # torch's encoder layers ask this before they run their own softmax kernel on our weights in inference.
        self._qkv_same_embed_dim = False
        self.primal = heads(primal, num_heads)
        self.beta = nn.Parameter(_betas(self.primal).to(self.out_proj.weight)) if learn_beta else None
        self.taps = nn.Parameter(_taps(self.primal).to(self.out_proj.weight)) if learn_taps else None

    def _reset_parameters(self):
        self._qkv_same_embed_dim = self.in_proj_weight is not None
        super()._reset_parameters()
        self._qkv_same_embed_dim = False

    def forward(
        self,
        query,
        key,
        value,
        key_padding_mask=None,
        need_weights=True,
        attn_mask=None,
        average_attn_weights=True,
        is_causal=False,
    ):
        """query (L, B, E), key (S, B, E_k), value (S, B, E_v) -> (L, B, E) and weights over the keys, or None.

        Axes as torch's: (B, L, E) with batch_first, (L, E) unbatched. Weights (B, L, S), or (B, heads, L, S) unless
        average_attn_weights; a pool's weight is spread evenly over its keys. key_padding_mask (B, S) and attn_mask
        (L, S) or (B heads, L, S): booleans, True hides, or floats that are added. As in torch, is_causal says that
        attn_mask is the causal one; it may also stand alone.
        """
        batched, is_self = query.ndim == 3, query is key
        self._check(query, key, value)
        q, k, v = self._projected(query, key, value)
        if not batched:
            q, k, v = (x[None] for x in (q, k, v))
        elif not self.batch_first:
            q, k, v = (x.transpose(0, 1) for x in (q, k, v))
        q, k, v = (x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for x in (q, k, v))
        key_mask, mask = self._masks(key_padding_mask, None if is_causal else attn_mask, q, k)
        options = dict(
            query_mask=key_mask if is_self else None,
            attn_mask=mask,
            is_causal=is_causal,
            beta=self.beta,
            taps=self.taps,
        )
        f = attention(self.primal, q, k, v, key_mask, dropout_p=self.dropout if self.training else 0.0, **options)
        f = F.linear(f.transpose(1, 2).flatten(-2), self.out_proj.weight, self.out_proj.bias)
        f = f[0] if not batched else f if self.batch_first else f.transpose(0, 1)
        if not need_weights:
            return f, None
        weights = attention_weights(self.primal, q, k, key_mask, **options)
        weights = weights.mean(1) if average_attn_weights else weights
        return f, weights if batched else weights[0]

    def _check(self, query, key, value):
        batch_axis = 0 if self.batch_first else 1
        given = {"query": (query, self.embed_dim), "key": (key, self.kdim), "value": (value, self.vdim)}
        for name, (x, size) in given.items():
            if not isinstance(x, torch.Tensor) or x.ndim not in (2, 3) or x.shape[-1] != size:
                got = tuple(x.shape) if isinstance(x, torch.Tensor) else type(x).__name__
                raise ValueError(f"{name}: expected a tensor of 2 or 3 axes, the last of {size}; got {got}")
            if x.ndim != query.ndim or (x.ndim == 3 and x.shape[batch_axis] != query.shape[batch_axis]):
                raise ValueError(f"{name}: expected the batch of query, {tuple(query.shape)}; got {tuple(x.shape)}")

    def extra_repr(self):
        return f"embed_dim={self.embed_dim}, num_heads={self.num_heads}, primal={self.primal}"

    def _projected(self, query, key, value):
        if self.in_proj_weight is not None:
            if query is key and key is value:
                return F.linear(query, self.in_proj_weight, self.in_proj_bias).chunk(3, -1)
            weights = self.in_proj_weight.chunk(3)
        else:
            weights = self.q_proj_weight, self.k_proj_weight, self.v_proj_weight
        biases = (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        return [F.linear(x, W, b) for x, W, b in zip((query, key, value), weights, biases, strict=True)]

    def _masks(self, padding, attn_mask, q, k):
        """torch's masks -> key_mask and attn_mask of `attention`."""
        (B, H, L), S = q.shape[:3], k.shape[2]
        key_mask = None
        if padding is not None:
            _expect("key_padding_mask", padding, (B, S), *([(S,)] if B == 1 else []))
            padding = padding.reshape(B, S)
            key_mask = ~padding if padding.dtype == torch.bool else padding > float("-inf")
        if attn_mask is not None:
            _expect("attn_mask", attn_mask, (L, S), (B * H, L, S))
            attn_mask = attn_mask.unflatten(0, (B, H)) if attn_mask.ndim == 3 else attn_mask
            attn_mask = ~attn_mask if attn_mask.dtype == torch.bool else attn_mask
        if padding is not None and padding.is_floating_point():
            row = padding[:, None, None, :].masked_fill(~key_mask[:, None, None, :], 0)
            if attn_mask is None:
                attn_mask = row
            elif attn_mask.dtype == torch.bool:
                attn_mask = torch.where(attn_mask, row, float("-inf"))
            else:
                attn_mask = attn_mask + row
        return key_mask, attn_mask


def _expect(name, mask, *shapes):
    good = isinstance(mask, torch.Tensor) and (mask.dtype == torch.bool or mask.is_floating_point())
    if not good or tuple(mask.shape) not in shapes:
        got = f"{mask.dtype} {tuple(mask.shape)}" if isinstance(mask, torch.Tensor) else type(mask).__name__
        raise ValueError(f"{name}: expected booleans or floats {' or '.join(map(str, shapes))}; got {got}")


def _betas(primals):
    norms = [
        part for primal in primals for part in split_convolutions(primal.transform)[1] if isinstance(part, BatchNorm)
    ]
    if len(norms) != len(primals):
        raise ValueError(f"learn_beta: expected one BatchNorm in each head; got {len(norms)} in {len(primals)} heads")
    return torch.tensor([part.beta for part in norms])


def _taps(primals):
    kernels = {part.kernel for primal in primals for part in split_convolutions(primal.transform)[0]}
    if len(kernels) != 1 or any(len(split_convolutions(primal.transform)[0]) != 1 for primal in primals):
        counts = [len(split_convolutions(primal.transform)[0]) for primal in primals]
        raise ValueError(f"learn_taps: expected one Convolution, the same in each head; got {counts} in the heads")
    return torch.tensor(kernels.pop())
