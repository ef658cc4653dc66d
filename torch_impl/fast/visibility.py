"""Which keys train the SVR of which query, once masks, causality and a support have met; and pools of those keys."""

from dataclasses import dataclass

import torch

from primal_dual.supports import Causal, Everything, Window
from torch_impl.blocks import split_into_blocks
from torch_impl.registry import torch_version


@dataclass(frozen=True, eq=False)
class Visibility:
    """Which keys a query sees: those under the support that are real, allowed, and not later if causal.

    real (..., N) and allowed (..., M, N) are booleans or None; log_weight (..., M or 1, N) is added to the logits.
    """

    support: object
    causal: bool
    valid: torch.Tensor | None
    allowed: torch.Tensor | None
    log_weight: torch.Tensor | None

    @property
    def shared(self):
        """Whether all queries see the same keys."""
        return isinstance(self.support, Everything) and not self.causal and self.allowed is None

    @property
    def only_causal(self):
        """Whether causality alone hides keys, and nothing weighs them."""
        return self.causal and self.by_key and self.valid is None and self.log_weight is None

    @property
    def by_key(self):
        """Whether, apart from causality, a key is the same to all queries."""
        return isinstance(self.support, Everything) and self.allowed is None and self.one_row

    def visible(self, rows, columns, device):
        """Booleans (..., rows, columns) for slices of queries and keys, or None where all is visible."""
        seen = None
        if self.causal or not isinstance(self.support, Everything):
            i = torch.arange(rows.start, rows.stop, device=device)[:, None]
            j = torch.arange(columns.start, columns.stop, device=device)
            if not isinstance(self.support, Everything):
                seen = torch_version(self.support)(self.support, i, j)
            if self.causal:
                seen = _both(seen, j <= i)
        if self.allowed is not None:
            seen = _both(seen, self.allowed[..., rows, columns])
        return seen if self.valid is None else _both(seen, self.valid[..., None, columns])

    def weight(self, rows, columns):
        """log_weight (..., rows or 1, columns), or None."""
        if self.log_weight is None:
            return None
        return self.log_weight[..., slice(None) if self.one_row else rows, columns]

    @property
    def one_row(self):
        """Whether log_weight, if any, is the same for all queries."""
        return self.log_weight is None or self.log_weight.shape[-2] == 1

    def span(self, rows, keys, scale):
        """A slice of keys, from the start of a pool, beyond which no query of `rows` sees any."""
        start, stop = 0, keys
        if isinstance(self.support, Window):
            start, stop = max(rows.start - self.support.radius, 0), min(rows.stop + self.support.radius, keys)
        if self.causal:
            stop = min(stop, rows.stop)
        start = min(start, keys - 1) // scale * scale
        return slice(start, max(stop, start + 1))


def combine_masks(support, is_causal, key_mask, attn_mask):
    """The `Seen` of a support and the masks of a call, in which a float's -inf hides and one row is a key mask."""
    causal = is_causal or isinstance(support, Causal)
    support = Everything() if isinstance(support, Causal) else support
    if attn_mask is None:
        return Visibility(support, causal, key_mask, None, None)
    log_weight = None
    if attn_mask.is_floating_point():
        log_weight, attn_mask = attn_mask, attn_mask > float("-inf")
        log_weight = log_weight.masked_fill(~attn_mask, 0)
    if attn_mask.shape[-2] == 1:
        return Visibility(support, causal, _both(key_mask, attn_mask[..., 0, :]), None, log_weight)
    return Visibility(support, causal, key_mask, attn_mask, log_weight)


def merged(visible, log_weight):
    """One mask of both, for logits: None, booleans, or floats of which -inf hides."""
    if visible is None or log_weight is None:
        return visible if log_weight is None else log_weight
    return torch.where(visible, log_weight, float("-inf"))


def pool(x, members, scale):
    """Average the members of each group of `scale` tokens: (..., N, F), (..., N) -> (..., n, F), (..., n).

    None instead of booleans where all tokens are members. A group without any has the mean zero.
    """
    if scale == 1:
        return x, members
    groups = split_into_blocks(x, scale)
    if members is None:
        count = x.shape[-2] - scale * torch.arange(groups.shape[-3], device=x.device)[:, None]
        precise = torch.promote_types(x.dtype, torch.float32)
        return (groups.sum(-2, dtype=precise) / count.clamp_max(scale)).to(x.dtype), None
    share, some = shares(members, scale, x.dtype)
    return (share[..., None, :] @ groups)[..., 0, :], some


def shares(members, scale, dtype):
    """Each token's share in the mean of its group, (..., n, scale), and which groups have a member, (..., n)."""
    members = split_into_blocks(members[..., None], scale)[..., 0]
    count = members.sum(-1, keepdim=True)
    return members.to(dtype) / count.clamp_min(1), count[..., 0] > 0


def _both(a, b):
    return b if a is None else a & b
