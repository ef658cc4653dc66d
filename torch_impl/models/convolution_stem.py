"""A tokeniser of time series by convolutions, in which padding changes nothing."""

import torch
import torch.nn.functional as F
from torch import nn

from primal_dual.types import Bool, Float
from torch_impl.blocks import split_row_into_blocks
from torch_impl.models.tokens import Tokens


class ConvolutionLayer(nn.Module):
    """A convolution of stride 2 along time, batch normalisation, and gelu: half as many time steps.

    The statistics of the normalisation are those of the valid time steps alone.

    Parameters
    ----------
    features, width : int
        The number of features of a time step, before and after.
    taps : int
        How many time steps the convolution sees, an odd number.

    Examples
    --------
    >>> layer = ConvolutionLayer(features=3, width=8, taps=7)
    >>> steps, key_mask = layer(torch.randn(2, 9, 3), None)
    >>> steps.shape, key_mask
    (torch.Size([2, 5, 8]), None)
    """

    def __init__(self, features: int, width: int, taps: int) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(features, width, taps, stride=2, padding=taps // 2, bias=False)
        self.norm = nn.BatchNorm1d(width)

    def forward(
        self, series: Float[torch.Tensor, "B N features"], key_mask: Bool[torch.Tensor, "B N"] | None
    ) -> tuple[Float[torch.Tensor, "B n width"], Bool[torch.Tensor, "B n"] | None]:
        """The new time steps, zero at padding as the old ones must be, and their padding mask."""
        x = self.convolution(series.mT).mT
        key_mask = group_mask(key_mask, 2)
        tokens = Tokens(key_mask, *x.shape[:2])
        return tokens.unpack(F.gelu(self.norm(tokens.pack(x)))), key_mask


def group_mask(key_mask: Bool[torch.Tensor, "B N"] | None, size: int) -> Bool[torch.Tensor, "B n"] | None:
    """The padding mask of groups of `size` time steps: a group is valid if one of its steps is.

    Examples
    --------
    >>> group_mask(torch.tensor([[True, True, True, False, False]]), 2)
    tensor([[ True,  True, False]])
    """
    return None if key_mask is None else split_row_into_blocks(key_mask, size).any(-1)
