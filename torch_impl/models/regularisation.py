"""What is left out at random in training: numbers, and whole layers."""

import torch
from torch import nn


class Dropout(nn.Dropout):
    """torch's dropout, but on a CPU one random word of 64 bits decides over eight numbers, p to a multiple of 1/256.

    Drawing a word for each takes a quarter of the time of an epoch.
    """

    def forward(self, x):
        dropped = round(256 * self.p)
        if not self.training or dropped in (0, 256) or x.device.type != "cpu":
            return super().forward(x)
        words = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
        keep = words.view(torch.int8)[: x.numel()].view(x.shape).to(x.dtype).ge_(dropped - 128)
        return x * keep.mul_(256 / (256 - dropped))


def layer_rates(last, layers):
    """Of stochastic depth (Huang et al., ECCV 2016), a layer each."""
    return [last * i / max(layers - 1, 1) for i in range(layers)]


def survival(examples, rate, device):
    """(examples, 1, 1): zero with probability `rate`, else 1 / (1 - rate)."""
    return (torch.rand(examples, 1, 1, device=device) >= rate) / (1 - rate)
