"""Augmentation of images in training, in batches, on their device: that of DeiT (Touvron et al., ICML 2021)."""

from dataclasses import dataclass
from math import inf
from typing import ClassVar

import torch
import torch.nn.functional as F

from primal_dual.types import Float, Int, Num
from torch_impl import checks
from torch_impl.data.images.mixing import Batch, cutmix, mixup
from torch_impl.data.images.pixels import scaled

CROPS = ("none", "resized", "shifted")


@dataclass(frozen=True)
class ImageAugmentation:
    """Change each image at random, in this order. Random numbers come from torch's generators.

    Parameters
    ----------
    crop : str
        "resized": a random rectangle of 8 to 100 % of the area, whose aspect ratio is between 3/4 and 4/3, resized to
        the old size. "shifted": moved by up to an eighth of the size in each direction, zeros moving in, for small
        images. "none": the image as it is.
    flip : float
        The probability that left and right are exchanged.
    rand_augment : float
        The magnitude, 0 to 10, of two random operations, see `operations.rand_augment`; 0 for none.
    erasing : float
        The probability of noise in a random rectangle of 2 to 33 % of the area (Zhong et al., AAAI 2020).
    mixup, cutmix : float
        The parameter a of `mixing.mixup` and `cutmix`; 0 for none. If both are given, a batch is mixed by one of
        them, at random.

    Raises
    ------
    ValueError
        For values outside these ranges; when called, if kornia is not installed.

    Examples
    --------
    >>> augmentation = ImageAugmentation("none", flip=0.0, rand_augment=0.0, erasing=0.0, mixup=0.0, cutmix=0.0)
    >>> images, targets = augmentation(torch.full((1, 3, 8, 8), 51, dtype=torch.uint8), torch.tensor([1]), 2)
    >>> images.unique(), targets
    (tensor([0.2000]), tensor([[0., 1.]]))
    """

    limits: ClassVar[dict[str, tuple[float, float]]] = {
        "flip": (0, 1),
        "rand_augment": (0, 10),
        "erasing": (0, 1),
        "mixup": (0, inf),
        "cutmix": (0, inf),
    }

    crop: str = "resized"
    flip: float = 0.5
    rand_augment: float = 9.0
    erasing: float = 0.25
    mixup: float = 0.8
    cutmix: float = 1.0

    def __post_init__(self) -> None:
        checks.one_of("crop", self.crop, CROPS)
        for name, (least, most) in self.limits.items():
            checks.between(name, getattr(self, name), least, most)

    @torch.no_grad()
    def __call__(
        self, images: Num[torch.Tensor, "n channels H W"], labels: Int[torch.Tensor, " n"], classes: int
    ) -> Batch:
        """Augment a batch.

        Parameters
        ----------
        images : tensor, (n, channels, H, W)
            Bytes, or floats in [0, 1].
        labels : tensor of integers, (n,)
            The index of each image's class.
        classes : int
            The number of classes.

        Returns
        -------
        images : tensor, (n, channels, H, W)
            Floats in [0, 1].
        targets : tensor, (n, classes)
            Probabilities of the classes, which are mixed as the images are.
        """
        return self.mix(self.change_each(images), labels, classes)

    @torch.no_grad()
    def mix(
        self, images: Float[torch.Tensor, "n channels H W"], labels: Int[torch.Tensor, " n"], classes: int
    ) -> Batch:
        """What is done to the images of a batch together, and its targets."""
        targets = F.one_hot(labels, classes).to(torch.float32)
        if self.cutmix and (not self.mixup or torch.rand(()) < 0.5):
            return cutmix(images, targets, self.cutmix)
        if self.mixup:
            return mixup(images, targets, self.mixup)
        return images, targets

    @torch.no_grad()
    def change_each(self, images: Num[torch.Tensor, "n channels H W"]) -> Float[torch.Tensor, "n channels H W"]:
        """What is done to each image without the others, of bytes or of floats in [0, 1]."""
        images = scaled(images)
        try:
            import kornia.augmentation as K

            from torch_impl.data.images.operations import rand_augment
        except ImportError as error:
            raise ValueError('images need kornia: pip install ".[train]" in the checkout') from error
        H, W = images.shape[-2:]
        if self.crop == "resized":
            images = K.RandomResizedCrop((H, W), cropping_mode="resample")(images)
        if self.crop == "shifted":
            images = K.RandomCrop((H, W), padding=(W // 8, H // 8))(images)
        if self.flip:
            images = K.RandomHorizontalFlip(p=self.flip)(images)
        if self.rand_augment:
            images = rand_augment(images, self.rand_augment)
        if self.erasing:
            kept = K.RandomErasing(p=self.erasing)(torch.ones_like(images[:, :1]))
            images = images.where(kept.bool(), torch.rand_like(images))
        return images
