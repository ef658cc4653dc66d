"""RandAugment (Cubuk et al., NeurIPS 2020) and its operations on batches of images, by kornia."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from kornia import enhance
from kornia.geometry import transform

from primal_dual.types import Float

LEVELS = 10  # the largest magnitude


def rand_augment(
    images: Float[torch.Tensor, "n channels H W"], magnitude: float
) -> Float[torch.Tensor, "n channels H W"]:
    """Apply two random operations to each image, one after the other, each of them with probability 1/2.

    Each image has its own operations, signs and strengths. kornia's RandAugment gives all images of a batch the same.

    Parameters
    ----------
    images : tensor, (n, channels, H, W)
        In [0, 1].
    magnitude : float
        0 to 10. A strength is normal with mean magnitude / 10 and standard deviation 1/20, clipped to [0, 1].

    Returns
    -------
    tensor, (n, channels, H, W)
        The changed images.
    """
    images = images.clone()
    for _ in range(2):
        chosen = torch.randint(2 * len(OPERATIONS), images.shape[:1])  # numbers in the second half stand for nothing
        strength = (torch.normal(magnitude, 0.5, images.shape[:1]) / LEVELS).clamp(0, 1).to(images)
        sign = (2 * torch.randint(2, images.shape[:1]) - 1).to(images)
        for i, operation in enumerate(OPERATIONS.values()):
            index = (chosen == i).nonzero()[:, 0].to(images.device)
            if len(index):
                images[index] = operation(images[index], strength[index], sign[index])
    return images


def _auto_contrast(x: torch.Tensor) -> torch.Tensor:
    constant = x.amax((-2, -1), keepdim=True) == x.amin((-2, -1), keepdim=True)
    return x.where(constant, enhance.normalize_min_max(x))  # kornia blackens a channel without contrast


def _move(method: Callable, x: torch.Tensor, amount: torch.Tensor) -> torch.Tensor:
    """A geometric operation that fills what it uncovers with grey."""
    return method(x - 0.5, amount) + 0.5


def _along(axis: int, amount: torch.Tensor) -> torch.Tensor:
    """Amounts (n,) along x or y, as vectors (n, 2)."""
    return amount[:, None] * F.one_hot(torch.tensor(axis), 2).to(amount)


# Images x (n, channels, H, W) in [0, 1], strengths m (n,) in [0, 1], signs s (n,), -1 or 1. A stronger operation always
# changes x more.
OPERATIONS: dict[str, Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "auto-contrast": lambda x, m, s: _auto_contrast(x),
    "equalize": lambda x, m, s: enhance.equalize(x),
    "invert": lambda x, m, s: 1 - x,
    "posterize": lambda x, m, s: enhance.posterize(x, 4 - (4 * m).long()),
    "solarize": lambda x, m, s: enhance.solarize(x, 1 - m),
    "solarize-add": lambda x, m, s: x.where(x >= 0.5, (x + 110 / 255 * m[:, None, None, None]).clamp_max(1)),
    "colour": lambda x, m, s: enhance.adjust_saturation_with_gray_subtraction(x, 1 + 0.9 * m * s),
    "contrast": lambda x, m, s: enhance.adjust_contrast_with_mean_subtraction(x, 1 + 0.9 * m * s),
    "brightness": lambda x, m, s: enhance.adjust_brightness_accumulative(x, 1 + 0.9 * m * s),
    "sharpness": lambda x, m, s: enhance.sharpness(x, 1 + 0.9 * m * s),
    "rotate": lambda x, m, s: _move(transform.rotate, x, 30 * m * s),
    "shear-x": lambda x, m, s: _move(transform.shear, x, _along(0, 0.3 * m * s)),
    "shear-y": lambda x, m, s: _move(transform.shear, x, _along(1, 0.3 * m * s)),
    "translate-x": lambda x, m, s: _move(transform.translate, x, _along(0, 0.45 * x.shape[-1] * m * s)),
    "translate-y": lambda x, m, s: _move(transform.translate, x, _along(1, 0.45 * x.shape[-2] * m * s)),
}
