"""The power spectrum of a time series: oscillations, which averages over time do not show."""

import torch
import torch.nn.functional as F
from torch import nn

from primal_dual.types import Bool, Float

FLOOR = 1e-3  # of the power, whose logarithm is taken


class PowerSpectrum(nn.Module):
    """A vector made of the mean power of a series' patches at each frequency (Bartlett, 1948):

        p[f] = mean over patches of |sum_t x[t] exp(-2 pi i f t / P)|^2,   f = 0 ... floor(P / 2)
        gelu(W norm(log(p + 0.001)) + b)

    where P is the number of time steps of a patch, f counts cycles a patch, each feature of a time step has a p of its
    own, and the norm is batch normalisation.

    Parameters
    ----------
    features, patch, width : int
        The number of features of a time step, of time steps of a patch, and of features of the vector.

    Examples
    --------
    >>> spectrum = PowerSpectrum(features=3, patch=8, width=16)
    >>> spectrum(torch.randn(5, 4, 24), None).shape
    torch.Size([5, 16])
    """

    def __init__(self, features: int, patch: int, width: int) -> None:
        super().__init__()
        self.features, self.patch = features, patch
        powers = (patch // 2 + 1) * features
        self.norm = _BatchNorm(powers)
        self.embed = nn.Linear(powers, width)

    def forward(
        self, patches: Float[torch.Tensor, "B N _"], key_mask: Bool[torch.Tensor, "B N"] | None
    ) -> Float[torch.Tensor, "B width"]:
        """The vector of each series, of its patches (time steps side by side) and their padding mask."""
        if patches.shape[0] == 0:  # which torch's transform refuses
            return patches.new_zeros(0, self.embed.out_features)
        patches = patches.to(torch.promote_types(patches.dtype, torch.float32))  # what it takes
        count: int | torch.Tensor = patches.shape[1]
        if key_mask is not None:
            patches = patches.masked_fill(~key_mask[..., None], 0)
            count = key_mask.sum(1).clamp_min(1)[:, None, None]
        waves = torch.fft.rfft(patches.unflatten(2, (self.patch, self.features)), dim=2)
        power = waves.abs().square().sum(1) / count
        return F.gelu(self.embed(self.norm((power + FLOOR).log().flatten(1))))


class _BatchNorm(nn.BatchNorm1d):
    """torch's, but a batch of one example, which has no variance, is normalised by the running statistics."""

    def forward(self, x: Float[torch.Tensor, "B F"]) -> Float[torch.Tensor, "B F"]:
        if self.training and len(x) == 1:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)
