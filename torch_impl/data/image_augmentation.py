"""Augmentation of images in batches, on their device: the recipe of DeiT (Touvron et al., ICML 2021), by kornia."""

from dataclasses import dataclass
from math import inf

import kornia.augmentation as K
import torch
import torch.nn.functional as F
from kornia import enhance
from kornia.geometry import transform
from torch.distributions import Beta

from torch_impl import checks
from torch_impl.data.images import scaled

CROPS = ("none", "resized", "shifted")
LEVELS = 10  # of the magnitude of RandAugment


@dataclass(frozen=True)
class ImageAugmentation:
    """Images and labels -> images and the probabilities of the classes, each image in another way, in this order:

    crop: "resized", a random 8 to 100% of the area at a random aspect ratio of 3/4 to 4/3, in the old size; "shifted",
        by up to an eighth of the size in each direction, zeros moving in, for small images; or "none";
    flip: the probability of left for right;
    rand_augment: the magnitude, 0 to 10, of two random operations (see `rand_augment`), or 0 for none;
    erasing: the probability of noise in a random rectangle of 2 to 33% of the area (Zhong et al., AAAI 2020);
    mixup, cutmix: parameters a of the share s ~ Beta(a, a) of another image of the batch, or 0 for none. mixup takes
        (1 - s) x + s x' (Zhang et al., ICLR 2018), cutmix a rectangle of x' in x (Yun et al., ICCV 2019), and the
        targets mix as the pixels do. If both are given, a batch is mixed by one of them, at random.

    Random numbers come from torch's generators: the same after the same torch.manual_seed. Raises ValueError for
    values outside these ranges.
    """

    crop: str = "resized"
    flip: float = 0.5
    rand_augment: float = 9.0
    erasing: float = 0.25
    mixup: float = 0.8
    cutmix: float = 1.0

    def __post_init__(self):
        if self.crop not in CROPS:
            raise ValueError(f"crop: expected one of {', '.join(CROPS)}; got {self.crop!r}")
        for name, most in (("flip", 1), ("rand_augment", LEVELS), ("erasing", 1), ("mixup", inf), ("cutmix", inf)):
            checks.between(name, getattr(self, name), 0, most)

    @torch.no_grad()
    def __call__(self, images, labels, classes):
        """images (B, channels, H, W), of uint8 or of floats in [0, 1], and labels (B,) -> images, floats in [0, 1], and
        targets (B, classes)."""
        images, targets = scaled(images), F.one_hot(labels, classes).to(torch.float32)
        size = images.shape[-2:]
        if self.crop == "resized":
            images = K.RandomResizedCrop(size, cropping_mode="resample")(images)
        if self.crop == "shifted":
            images = K.RandomCrop(size, padding=(size[1] // 8, size[0] // 8))(images)
        if self.flip:
            images = K.RandomHorizontalFlip(p=self.flip)(images)
        if self.rand_augment:
            images = rand_augment(images, self.rand_augment)
        if self.erasing:
            kept = K.RandomErasing(p=self.erasing)(torch.ones_like(images[:, :1]))
            images = images.where(kept.bool(), torch.rand_like(images))
        if self.cutmix and (not self.mixup or torch.rand(()) < 0.5):
            return _cutmix(images, targets, self.cutmix)
        if self.mixup:
            return _mixup(images, targets, self.mixup)
        return images, targets


def rand_augment(images, magnitude, count=2):
    """RandAugment (Cubuk et al., NeurIPS 2020): `count` times, one of OPERATIONS with probability 1/2.

    Each image has its own operations, signs and strengths: N(magnitude, 1/2) / 10, clipped to [0, 1]. kornia's own
    RandAugment gives all images of a batch the same ones.
    """
    images = images.clone()
    for _ in range(count):
        chosen = torch.randint(2 * len(OPERATIONS), images.shape[:1])  # the second half: nothing
        strength = (torch.normal(magnitude, 0.5, images.shape[:1]) / LEVELS).clamp(0, 1).to(images)
        sign = (2 * torch.randint(2, images.shape[:1]) - 1).to(images)
        for i, operation in enumerate(OPERATIONS.values()):
            index = (chosen == i).nonzero()[:, 0].to(images.device)
            if len(index):
                images[index] = operation(images[index], strength[index], sign[index])
    return images


def _auto_contrast(x):
    flat = x.amax((-2, -1), keepdim=True) == x.amin((-2, -1), keepdim=True)
    return x.where(flat, enhance.normalize_min_max(x))  # kornia blackens a channel without contrast


def _move(method, x, amount):
    """A geometric operation; what moves in is grey."""
    return method(x - 0.5, amount) + 0.5


def _along(axis, amount):
    """(n,) -> (n, 2), x and y."""
    return amount[:, None] * F.one_hot(torch.tensor(axis), 2).to(amount)


# x (n, channels, H, W) in [0, 1], strengths m (n,) in [0, 1], signs s (n,): stronger is always further from x
OPERATIONS = {
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


def _mixup(images, targets, a):
    """kornia's draws its shares uniformly."""
    other = torch.randperm(len(images)).to(images.device)
    share = Beta(a, a).sample((len(images), 1)).to(images)
    return images.lerp(images[other], share[..., None, None]), targets.lerp(targets[other], share)


def _cutmix(images, targets, a):
    """kornia's takes the pixels by a mask on the CPU, which a GPU would wait for."""
    other = torch.randperm(len(images)).to(images.device)
    side = (1 - Beta(a, a).sample((len(images), 1))).sqrt()

    def interval(length):
        """A random one for each image, (B, length)."""
        width = (side * length).round()
        start = (torch.rand_like(side) * (length - width + 1)).floor()
        at = torch.arange(length)
        return ((start <= at) & (at < start + width)).to(images.device)

    rows, columns = (interval(length) for length in images.shape[-2:])
    cut = rows[:, None, :, None] & columns[:, None, None, :]
    share = cut.mean((-2, -1), dtype=targets.dtype)
    return images[other].where(cut, images), targets.lerp(targets[other], share)
