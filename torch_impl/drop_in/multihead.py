"""Multi-head attention of any primal as a module, in the place of torch.nn.MultiheadAttention."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from primal_dual.checks import integer
from primal_dual.primal import Heads, Primal, heads
from primal_dual.transforms import split_convolutions
from primal_dual.types import Bool, Float
from torch_impl import checks
from torch_impl.expansion import attention, attention_with_weights
from torch_impl.masks import hide_low_numbers
from torch_impl.transforms import learned_beta


class MultiheadAttention(nn.MultiheadAttention):
    """torch's module with the attention of any primal: sum_s f^s W_O^s + b_O, with f^s that of head s.

    Signature and weights are torch's: a trained nn.MultiheadAttention loads by load_state_dict (with strict=False if
    something more is learned). Masks are torch's, too, and hide a key where they are True or -inf; with a primal that
    takes means of keys, as "bn", also where they are below -88. They intersect with the primal's support. Source: arXiv
    2406.13781; see tutorial 8.

    Parameters
    ----------
    embed_dim, num_heads, dropout, bias, kdim, vdim, batch_first, device, dtype
        As in torch. add_bias_kv and add_zero_attn must be False.
    primal : str, Primal or Heads
        A str is a catalog name, which with "sh" gives the heads different scales, see `primal_dual.heads`; Heads must
        be `num_heads` many.
    learn_beta : bool
        Whether BatchNorm's beta is a parameter, one a head, which starts at the primal's own.
    learn_taps : bool
        Whether the kernel of the one Convolution that the heads share is a parameter, which starts at the primal's own.

    Raises
    ------
    ValueError
        For add_bias_kv, add_zero_attn, an embed_dim that is no multiple of num_heads, Heads of another number, and for
        nothing to learn.

    Examples
    --------
    >>> x = torch.ones(5, 2, 8)
    >>> f, weights = MultiheadAttention(8, 4, primal="bn")(x, x, x)
    >>> f.shape, weights.shape
    (torch.Size([5, 2, 8]), torch.Size([2, 5, 5]))
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        primal: str | Primal | Heads = "softmax",
        learn_beta: bool = False,
        learn_taps: bool = False,
    ) -> None:
        if add_bias_kv or add_zero_attn:
            raise ValueError("add_bias_kv, add_zero_attn: expected False; a key that is no token has no primal here")
        for name, size in dict(embed_dim=embed_dim, num_heads=num_heads, kdim=kdim, vdim=vdim).items():
            if size is not None:
                integer(name, size, 1)
        if not isinstance(dropout, float | int) or not 0 <= dropout < 1:
            raise ValueError(f"dropout: expected a number in [0, 1); got {dropout!r}")
        if embed_dim % num_heads:
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
        self.register_forward_pre_hook(keep_forward)
        self.primal = heads(primal, num_heads)
        self.beta = learned_beta(self.primal, self.out_proj.weight) if learn_beta else None
        if learn_beta and self.beta is None:
            raise ValueError("learn_beta: expected one BatchNorm in each head; got none")
        self.taps = nn.Parameter(_taps(self.primal).to(self.out_proj.weight)) if learn_taps else None

    def __prepare_scriptable__(self) -> None:
        raise ValueError("torch.jit.script: expected no MultiheadAttention of ours; use torch.compile or torch.export")

    def forward(
        self,
        query: Float[torch.Tensor, "... E"],
        key: Float[torch.Tensor, "... Ek"],
        value: Float[torch.Tensor, "... Ev"],
        key_padding_mask: Bool[torch.Tensor, "..."] | Float[torch.Tensor, "..."] | None = None,
        need_weights: bool = True,
        attn_mask: Bool[torch.Tensor, "..."] | Float[torch.Tensor, "..."] | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Float[torch.Tensor, "... E"], Float[torch.Tensor, "..."] | None]:
        """Attend from L queries to S keys in each of B examples.

        Parameters
        ----------
        query, key, value : tensors
            (L, B, E), (S, B, Ek) and (S, B, Ev); the batch axis comes first with batch_first, and may be left out.
        key_padding_mask : tensor, optional
            (B, S): booleans, True for padding, or floats that are added to the logits. If query is key, it holds for
            the queries, too, which a Convolution reads.
        need_weights : bool
            Whether to return the weights.
        attn_mask : tensor, optional
            (L, S) or (B heads, L, S): booleans, True where a query must not attend, or floats that are added.
        average_attn_weights : bool
            Whether to average the weights over the heads.
        is_causal : bool
            Whether a query sees no later key. As in torch, attn_mask is then the causal mask; it may be left out.

        Returns
        -------
        tuple
            The outputs, in the shape of query, and the weights (B, L, S), or (B, heads, L, S) unless they are averaged;
            None if they are not needed. A pool's weight is spread evenly over its keys.

        Raises
        ------
        ValueError
            For shapes and masks that do not fit.
        """
        if any(isinstance(x, torch.Tensor) and x.is_nested for x in (query, key, value)):
            masked = key_padding_mask is not None or attn_mask is not None
            return self._attend_nested(query, key, value, masked or need_weights, is_causal), None
        self._check(query, key, value)
        _check_flags(need_weights=need_weights, average_attn_weights=average_attn_weights, is_causal=is_causal)
        batched, is_self = query.ndim == 3, _are_same(query, key)
        q, k, v = (self._to_heads(x, batched) for x in self._project(query, key, value))
        key_mask, mask = _our_masks(self.primal, key_padding_mask, None if is_causal else attn_mask, q, k)
        options: dict[str, Any] = dict(
            key_mask=key_mask,
            query_mask=key_mask if is_self else None,
            attn_mask=mask,
            is_causal=is_causal,
            dropout_p=self.dropout if self.training else 0.0,
            beta=self.beta,
            taps=self.taps,
        )
        if not need_weights:
            return self._from_heads(attention(self.primal, q, k, v, **options), batched), None
        f, weights = attention_with_weights(self.primal, q, k, v, **options)
        weights = weights.mean(1) if average_attn_weights else weights
        return self._from_heads(f, batched), weights if batched else weights[0]

    def _reset_parameters(self) -> None:
        """torch's initial weights, and the primal's own numbers in the place of those that are learned."""
        super()._reset_parameters()
        beta, taps = (getattr(self, name, None) for name in ("beta", "taps"))  # torch calls this before there are any
        if beta is not None:
            beta.data.copy_(learned_beta(self.primal, beta))
        if taps is not None:
            taps.data.copy_(_taps(self.primal))

    def extra_repr(self) -> str:
        """The arguments that a printed model shows."""
        return f"embed_dim={self.embed_dim}, num_heads={self.num_heads}, primal={self.primal}"

    def _attend_nested(self, query: Any, key: Any, value: Any, more: bool, is_causal: bool) -> torch.Tensor:
        """Self-attention of the nested tensor that torch's encoder makes of padded sequences.

        `more` says that a mask is given, or weights are asked for.
        """
        same = query is key is value and query.layout == torch.strided
        if not same or more or not self.batch_first:
            expected = "one nested tensor of layout torch.strided, with batch_first, no mask and need_weights=False"
            raise ValueError(f"query, key, value: expected padded tensors, or {expected}")
        x = query.to_padded_tensor(0.0)
        lengths = torch.tensor([len(sequence) for sequence in query.unbind()], device=x.device)
        padding = torch.arange(x.shape[1], device=x.device) >= lengths[:, None]
        f, _ = self.forward(x, x, x, padding, need_weights=False, is_causal=is_causal)
        return torch.nested.as_nested_tensor([y[:n] for y, n in zip(f, lengths.tolist(), strict=True)])

    def _check(self, query: Any, key: Any, value: Any) -> None:
        batch_axis = 0 if self.batch_first else 1
        given = {"query": (query, self.embed_dim), "key": (key, self.kdim), "value": (value, self.vdim)}
        for name, (x, size) in given.items():
            if not isinstance(x, torch.Tensor) or x.ndim not in (2, 3) or x.shape[-1] != size:
                got = tuple(x.shape) if isinstance(x, torch.Tensor) else type(x).__name__
                raise ValueError(f"{name}: expected a tensor of 2 or 3 axes, the last of {size}; got {got}")
            if x.dtype != self.out_proj.weight.dtype and not torch.is_autocast_enabled(x.device.type):
                raise ValueError(
                    f"{name}: expected the dtype of the weights, {self.out_proj.weight.dtype}; got {x.dtype}"
                )
            if x.ndim != query.ndim or (x.ndim == 3 and x.shape[batch_axis] != query.shape[batch_axis]):
                raise ValueError(f"{name}: expected the batch of query, {tuple(query.shape)}; got {tuple(x.shape)}")

    def _project(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """query W_Q + b_Q, key W_K + b_K and value W_V + b_V, in one product if the three are one."""
        W, b = self.in_proj_weight, self.in_proj_bias
        if W is not None and query is key and key is value:
            return F.linear(query, W, b).chunk(3, -1)
        W_Q, W_K, W_V = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight) if W is None else W.chunk(3)
        b_Q, b_K, b_V = (None, None, None) if b is None else b.chunk(3)
        return F.linear(query, W_Q, b_Q), F.linear(key, W_K, b_K), F.linear(value, W_V, b_V)

    def _to_heads(self, x: Float[torch.Tensor, "... E"], batched: bool) -> Float[torch.Tensor, "B H N Dh"]:
        """(B, heads, tokens, features), from torch's order of the axes."""
        if not batched:
            x = x[None]
        elif not self.batch_first:
            x = x.transpose(0, 1)
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def _from_heads(self, f: Float[torch.Tensor, "B H L Dh"], batched: bool) -> Float[torch.Tensor, "... E"]:
        """sum_s f^s W_O^s + b_O, in torch's order of the axes."""
        f = F.linear(f.transpose(1, 2).flatten(-2), self.out_proj.weight, self.out_proj.bias)
        if not batched:
            return f[0]
        return f if self.batch_first else f.transpose(0, 1)


def _are_same(query: torch.Tensor, key: torch.Tensor) -> bool:
    """Whether both are one tensor, or the same view of its memory, which is what a reentrant checkpoint passes on."""
    if query is key or torch.compiler.is_compiling():
        return query is key
    try:
        return query.is_set_to(key)
    except RuntimeError:  # of tensors without memory of their own, as those of torch.func.vmap and on "meta"
        return False


def _check_flags(**flags: Any) -> None:
    for name, flag in flags.items():
        if not isinstance(flag, bool):
            raise ValueError(f"{name}: expected True or False; got {flag!r}")


def keep_forward(*_: object) -> None:
    """A hook that does nothing: where there is one, torch's encoder layers do not run softmax in our place."""


def _our_masks(
    primal: Heads,
    padding: torch.Tensor | None,
    attn_mask: torch.Tensor | None,
    q: Float[torch.Tensor, "B H L D"],
    k: Float[torch.Tensor, "B H S D"],
) -> tuple[Bool[torch.Tensor, "B S"] | None, torch.Tensor | None]:
    """key_mask and attn_mask of `attention`, from torch's key_padding_mask and attn_mask.

    Booleans change their meaning. The finite floats of key_padding_mask become part of attn_mask. For what low numbers
    hide, see `hide_low_numbers`.
    """
    (B, H, L), S = q.shape[:3], k.shape[2]
    if padding is not None:
        _check_mask("key_padding_mask", padding, (B, S), *([(S,)] if B == 1 else []))
        padding = hide_low_numbers(padding.reshape(B, S), primal)
    if attn_mask is not None:
        _check_mask("attn_mask", attn_mask, (L, S), (B * H, L, S))
        attn_mask = attn_mask.unflatten(0, (B, H)) if attn_mask.ndim == 3 else attn_mask
        attn_mask = ~attn_mask if attn_mask.dtype == torch.bool else hide_low_numbers(attn_mask, primal)
    if padding is None:
        return None, attn_mask
    if padding.dtype == torch.bool:
        return ~padding, attn_mask
    key_mask = padding > float("-inf")
    return key_mask, _add_to_logits(padding.masked_fill(~key_mask, 0)[:, None, None, :], attn_mask)


def _add_to_logits(row: Float[torch.Tensor, "B 1 1 S"], attn_mask: torch.Tensor | None) -> torch.Tensor:
    """attn_mask with a row of floats added to the logits of all queries."""
    if attn_mask is None:
        return row
    if attn_mask.dtype == torch.bool:
        return torch.where(attn_mask, row, float("-inf"))
    return attn_mask + row


def _check_mask(name: str, mask: Any, *shapes: tuple[int, ...]) -> None:
    if not checks.booleans_or_floats(mask) or tuple(mask.shape) not in shapes:
        expected = f"booleans or floats {' or '.join(map(str, shapes))}"
        raise ValueError(f"{name}: expected {expected}; got {checks.describe(mask)}")


def _taps(primals: Heads) -> Float[torch.Tensor, "..."]:
    """The kernel of the Convolution that all heads share. ValueError if they do not have one and the same."""
    convolutions = [split_convolutions(primal.transform)[0] for primal in primals]
    kernels = {part.kernel for parts in convolutions for part in parts}
    counts = [len(parts) for parts in convolutions]
    if len(kernels) != 1 or any(count != 1 for count in counts):
        raise ValueError(f"learn_taps: expected one Convolution, the same in each head; got {counts} in the heads")
    return torch.tensor(kernels.pop(), dtype=torch.float64)
