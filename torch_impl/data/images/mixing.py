"""Mixing the images of a batch in pairs, and their targets in the same proportion."""

import torch
from torch.distributions import Beta

from primal_dual.types import Bool, Float

Batch = tuple[Float[torch.Tensor, "n channels H W"], Float[torch.Tensor, "n classes"]]


def mixup(images: Float[torch.Tensor, "n channels H W"], targets: Float[torch.Tensor, "n classes"], a: float) -> Batch:
    """(1 - s) x + s x' for each image x, another image x' of the batch, and s ~ Beta(a, a); targets alike.

    Source: Zhang et al., ICLR 2018. kornia's version draws s uniformly.

    Examples
    --------
    >>> x, y = mixup(torch.eye(3).view(3, 3, 1, 1), torch.eye(3), 1.0)
    >>> torch.equal(x[..., 0, 0], y)
    True
    """
    other = torch.randperm(len(images)).to(images.device)
    s = Beta(a, a).sample((len(images), 1)).to(images)
    return images.lerp(images[other], s[..., None, None]), targets.lerp(targets[other], s)


def cutmix(images: Float[torch.Tensor, "n channels H W"], targets: Float[torch.Tensor, "n classes"], a: float) -> Batch:
    """A random rectangle of each image is replaced by that of another image, which has its fraction in the target.

    The rectangle has the fraction 1 - s of the area before it is rounded to pixels, s ~ Beta(a, a). Source: Yun et al.,
    ICCV 2019. kornia's version selects the pixels by a mask on the CPU, for which a GPU would wait.

    Examples
    --------
    >>> x, y = cutmix(torch.eye(3).view(3, 3, 1, 1).expand(-1, -1, 5, 7), torch.eye(3), 1.0)
    >>> bool(((x.mean((2, 3)) - y).abs() < 1e-6).all())
    True
    """
    other = torch.randperm(len(images)).to(images.device)
    side = (1 - Beta(a, a).sample((len(images), 1))).sqrt()  # of the rectangle, as a fraction of the image's
    rows = _random_interval(side, images.shape[-2]).to(images.device)
    columns = _random_interval(side, images.shape[-1]).to(images.device)
    rectangle = rows[:, None, :, None] & columns[:, None, None, :]
    fraction = rectangle.mean((-2, -1), dtype=targets.dtype)
    return images[other].where(rectangle, images), targets.lerp(targets[other], fraction)


def _random_interval(side: Float[torch.Tensor, "n 1"], length: int) -> Bool[torch.Tensor, "n {length}"]:
    """For each image, True in a random interval whose width is the fraction `side` of the length."""
    width = (side * length).round()
    start = (torch.rand_like(side) * (length - width + 1)).floor()
    position = torch.arange(length)
    return (start <= position) & (position < start + width)
