"""Which keys train the SVR of which query, once masks, causality and a support have met."""

from dataclasses import dataclass

import torch

from primal_dual.protocols import Support
from primal_dual.supports import Causal, Everything, Window
from primal_dual.types import Bool, Float
from torch_impl.registry import torch_version


@dataclass(frozen=True, eq=False)
class Visibility:
    """Which keys a query sees: those under the support that are valid, allowed, and not later than it if causal.

    Attributes
    ----------
    support : Support
        Any but Causal, which `causal` stands for.
    causal : bool
        Whether a query sees no key later than itself.
    valid : tensor of booleans or None
        True for a key that is not padding; None if all are valid.
    allowed : tensor of booleans or None
        True where a query may attend to a key; None if it may always.
    log_weight : tensor or None
        Added to the logits; it has one row if it is the same for all queries.
    """

    support: Support
    causal: bool
    valid: Bool[torch.Tensor, "... N"] | None
    allowed: Bool[torch.Tensor, "... #M N"] | None
    log_weight: Float[torch.Tensor, "... #M N"] | None

    @property
    def shared(self) -> bool:
        """Whether all queries see the same keys."""
        return isinstance(self.support, Everything) and not self.causal and self.allowed is None

    @property
    def only_causal(self) -> bool:
        """Whether causality alone hides keys, and nothing is added to the logits."""
        return self.causal and self.by_key and self.valid is None and self.log_weight is None

    @property
    def by_key(self) -> bool:
        """Whether, causality apart, a key is the same to all queries."""
        return isinstance(self.support, Everything) and self.by_position

    @property
    def by_position(self) -> bool:
        """Whether the support and causality alone make a key different to different queries."""
        return self.allowed is None and self.one_row

    @property
    def one_row(self) -> bool:
        """Whether what is added to the logits, if anything, is the same for all queries."""
        return self.log_weight is None or self.log_weight.shape[-2] == 1

    def visible(self, rows: slice, columns: slice, device: torch.device) -> Bool[torch.Tensor, "... #m n"] | None:
        """True where a query in the slice `rows` sees a key in the slice `columns`; None if all see all."""
        seen = None
        if self.causal or not isinstance(self.support, Everything):
            i = torch.arange(rows.start, rows.stop, device=device)[:, None]
            j = torch.arange(columns.start, columns.stop, device=device)
            if not isinstance(self.support, Everything):
                seen = torch_version(self.support)(self.support, i, j)
                if seen.dtype != torch.bool:
                    raise ValueError(f"{self.support}: expected sees to return booleans; got {seen.dtype}")
            if self.causal:
                seen = _intersection(seen, j <= i)
        if self.allowed is not None:
            seen = _intersection(seen, self.allowed[..., rows, columns])
        return seen if self.valid is None else _intersection(seen, self.valid[..., None, columns])

    def weight(self, rows: slice, columns: slice) -> Float[torch.Tensor, "... #m n"] | None:
        """What is added to the logits of queries in `rows` and keys in `columns`, or None."""
        if self.log_weight is None:
            return None
        return self.log_weight[..., slice(None) if self.one_row else rows, columns]

    def span(self, rows: slice, keys: int, scale: int) -> slice:
        """A slice of the keys, from the start of a pool, that holds all which the queries in `rows` see."""
        start, stop = 0, keys
        if isinstance(self.support, Window):
            start, stop = max(rows.start - self.support.radius, 0), min(rows.stop + self.support.radius, keys)
        if self.causal:
            stop = min(stop, rows.stop)
        start = min(start, keys - 1) // scale * scale
        return slice(start, max(stop, start + 1))


def combine_masks(
    support: Support,
    is_causal: bool,
    key_mask: Bool[torch.Tensor, "... N"] | None,
    attn_mask: Bool[torch.Tensor, "... #M N"] | Float[torch.Tensor, "... #M N"] | None,
) -> Visibility:
    """The Visibility of a support and the masks of a call.

    A float of -inf hides a key, and other floats are added to the logits. A mask of one row is a key mask.

    Examples
    --------
    >>> visibility = combine_masks(Causal(), False, None, torch.tensor([[True, False]]))
    >>> visibility.causal, visibility.valid.tolist(), visibility.allowed
    (True, [True, False], None)
    """
    causal = is_causal or isinstance(support, Causal)
    support = Everything() if isinstance(support, Causal) else support
    if attn_mask is None:
        return Visibility(support, causal, key_mask, None, None)
    log_weight = None
    if attn_mask.is_floating_point():
        log_weight, attn_mask = attn_mask, attn_mask > float("-inf")
        log_weight = log_weight.masked_fill(~attn_mask, 0)
    if attn_mask.shape[-2] == 1:
        return Visibility(support, causal, _intersection(key_mask, attn_mask[..., 0, :]), None, log_weight)
    return Visibility(support, causal, key_mask, attn_mask, log_weight)


def logit_mask(
    visible: Bool[torch.Tensor, "... #M N"] | None, log_weight: Float[torch.Tensor, "... #M N"] | None
) -> Bool[torch.Tensor, "... #M N"] | Float[torch.Tensor, "... #M N"] | None:
    """One mask in place of both: None, booleans, or floats to be added to the logits, -inf where a key is hidden."""
    if log_weight is None:
        return visible
    if visible is None:
        return log_weight
    return torch.where(visible, log_weight, float("-inf"))


def _intersection(a: Bool[torch.Tensor, "..."] | None, b: Bool[torch.Tensor, "..."]) -> Bool[torch.Tensor, "..."]:
    return b if a is None else a & b
