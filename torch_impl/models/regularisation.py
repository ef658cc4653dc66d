"""What training leaves out at random: numbers (dropout), and branches of whole layers (stochastic depth)."""

import torch
from torch import nn

from primal_dual.types import Float


class Dropout(nn.Dropout):
    """torch's dropout, quicker on a CPU, where p is rounded to a multiple of 1/256.

    There, one random word of 64 bits decides about eight numbers; a word for each number would take a quarter of the
    time of an epoch.

    Examples
    --------
    >>> Dropout(0.5).eval()(torch.ones(3))
    tensor([1., 1., 1.])
    """

    def forward(self, x: Float[torch.Tensor, "..."]) -> Float[torch.Tensor, "..."]:
        """x in eval mode; in training, zero with probability p, else x / (1 - p)."""
        dropped = round(256 * self.p)
        if not self.training or dropped in (0, 256) or x.device.type != "cpu":
            return super().forward(x)
        words = x.new_empty(-(-x.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
        random_bytes = words.view(torch.int8)[: x.numel()].view(x.shape)
        keep = random_bytes.to(x.dtype).ge_(dropped - 128)
        return x * keep.mul_(256 / (256 - dropped))


def layer_rates(last: float, layers: int) -> list[float]:
    """The rates of stochastic depth (Huang et al., ECCV 2016): from zero in the first layer, linearly to the last.

    Examples
    --------
    >>> layer_rates(0.5, 3)
    [0.0, 0.25, 0.5]
    """
    return [last * i / max(layers - 1, 1) for i in range(layers)]


def survival(examples: int, rate: float, device: torch.device) -> Float[torch.Tensor, "{examples} 1 1"]:
    """A random factor for the branch of each example: zero with probability `rate`, else 1 / (1 - rate)."""
    return (torch.rand(examples, 1, 1, device=device) >= rate) / (1 - rate)
