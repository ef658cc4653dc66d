"""The values of pixels: bytes as fractions of 255, their statistics, and standardised images."""

import math
from collections.abc import Iterable, Sequence

import torch

from primal_dual.types import Float, Num, UInt8


def scaled(images: Num[torch.Tensor, "*batch channels H W"]) -> Float[torch.Tensor, "*batch channels H W"]:
    """Bytes in 0, ..., 255 as floats in [0, 1]; floats stay as they are.

    Examples
    --------
    >>> scaled(torch.tensor([[[0, 51, 255]]], dtype=torch.uint8))
    tensor([[[0.0000, 0.2000, 1.0000]]])
    """
    return images / 255 if images.dtype == torch.uint8 else images


def standardised(
    images: Num[torch.Tensor, "*batch channels H W"], mean: Sequence[float], deviation: Sequence[float]
) -> Float[torch.Tensor, "*batch channels H W"]:
    """(x - mean) / deviation.

    Parameters
    ----------
    images : tensor, (..., channels, H, W)
        Bytes, which are divided by 255 first, or floats in [0, 1].
    mean, deviation : sequence of float
        One number a channel. A channel whose deviation is zero is only centred.

    Examples
    --------
    >>> standardised(torch.tensor([[[0, 51, 255]]], dtype=torch.uint8), [0.2], [0.1])
    tensor([[[-2.,  0.,  8.]]])
    """
    images = scaled(images)
    centre, divisor = images.new_tensor(mean)[:, None, None], images.new_tensor(deviation)[:, None, None]
    return (images - centre) / divisor.where(divisor > 0, 1)


def channel_statistics(batches: Iterable[UInt8[torch.Tensor, "_ channels _ _"]]) -> tuple[list[float], list[float]]:
    """The mean and the standard deviation of each channel, as fractions of 255.

    They are computed in integers, from how often each level occurs, and are exact up to the last division and root.

    Parameters
    ----------
    batches : iterable of tensors of bytes, (n, channels, H, W)
        The images.

    Examples
    --------
    >>> channel_statistics([torch.tensor([[[[0, 255]]]], dtype=torch.uint8)])
    ([0.5], [0.5])
    """
    levels = torch.arange(256)
    histograms = (torch.stack([x.flatten().bincount(minlength=256) for x in batch.unbind(1)]) for batch in batches)
    histogram = sum(histograms, torch.zeros((), dtype=torch.int64))  # (channels, 256)
    count = histogram.sum(1).tolist()
    total = (histogram @ levels).tolist()
    squares = (histogram @ levels**2).tolist()
    mean = [a / (255 * n) for n, a in zip(count, total, strict=True)]
    deviation = [math.sqrt(n * b - a * a) / (255 * n) for n, a, b in zip(count, total, squares, strict=True)]
    return mean, deviation
