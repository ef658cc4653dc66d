"""The tokens of a batch with and without their padding."""

import torch

from primal_dual.types import Bool, Num


class Tokens:
    """Where the T tokens of a batch are in its B sequences of N positions; the other positions are padding.

    Layers that treat each token alone work on packed tokens, (T, F), so that padding costs nothing and changes nothing.
    In a graph that is exported, in eval mode, T must not depend on the mask: there padding is packed, too.

    Parameters
    ----------
    key_mask : tensor of booleans, (B, N), or None
        The padding mask: True for a token. None if no sequence is padded.
    B, N : int
        The number of sequences and of positions.

    Examples
    --------
    >>> tokens = Tokens(torch.tensor([[True, False]]), 1, 2)
    >>> tokens.pack(torch.tensor([[[7.0], [0.0]]])), tokens.unpack(torch.tensor([[7.0]]))
    (tensor([[7.]]), tensor([[[7.],
             [0.]]]))
    """

    def __init__(self, key_mask: Bool[torch.Tensor, "B N"] | None, B: int, N: int) -> None:
        self.key_mask, self.shape = key_mask, (B, N)
        self.positions = None
        if key_mask is not None and not torch.compiler.is_exporting():
            self.positions = key_mask.flatten().nonzero()[:, 0]

    @property
    def count(self) -> Num[torch.Tensor, "B 1"] | int:
        """The number of tokens of each sequence, (B, 1); one number, N, if none is padded."""
        return self.shape[1] if self.key_mask is None else self.key_mask.sum(-1, keepdim=True)

    def pack(self, x: Num[torch.Tensor, "B N F"]) -> Num[torch.Tensor, "T F"]:
        """The tokens alone, one after the other."""
        flat = x.reshape(-1, x.shape[-1])
        return flat if self.positions is None else flat.index_select(0, self.positions)

    def unpack(self, x: Num[torch.Tensor, "T F"]) -> Num[torch.Tensor, "B N F"]:
        """The tokens at their positions, zero at padding."""
        if self.positions is not None:
            B, N = self.shape
            x = x.new_zeros(B * N, x.shape[-1]).index_copy_(0, self.positions, x)
        x = x.unflatten(0, self.shape)
        if self.positions is None and self.key_mask is not None:
            return x.masked_fill(~self.key_mask[..., None], 0)
        return x
