"""The recipes of the benchmarks."""

from dataclasses import dataclass, fields
from pathlib import Path

from torch_impl.training.recipes import ImageRecipe, SeriesRecipe, TokenRecipe


@dataclass(frozen=True)
class JapaneseVowels(SeriesRecipe):
    """Nine speakers, utterances of two vowels.

    Test accuracy of the last epoch, %: softmax 98.2 ± 0.3, bn 97.8 ± 0.3, sh 98.3 ± 0.1, bn+sh 97.8 ± 0.4; 5 seeds,
    26 to 33 s each on one core of an Intel Xeon.
    """

    name: str = "JapaneseVowels"
    epochs: int = 150
    patch: int = 3
    dropout: float = 0.5
    warp: float = 0.4
    jitter: float = 0.2
    scales: str = "1 2"


@dataclass(frozen=True)
class Handwriting(SeriesRecipe):
    """The alphabet, written with a smartwatch.

    Test accuracy of the last epoch, %: softmax 55.8 ± 0.8, bn 55.9 ± 1.0, sh 55.7 ± 1.2, bn+sh 56.4 ± 0.6; 5 seeds,
    32 to 40 s each on one core of an AMD EPYC.
    """

    name: str = "Handwriting"
    epochs: int = 200
    patch: int = 16
    lr: float = 2e-3
    dropout: float = 0.1
    warp: float = 0.4
    beta: float = 0.0
    scales: str = "1 2"


@dataclass(frozen=True)
class UWaveGestureLibrary(SeriesRecipe):
    """Eight gestures, by an accelerometer.

    Test accuracy of the last epoch, %: softmax 89.7 ± 1.1, bn 90.0 ± 1.2, sh 90.2 ± 0.6, bn+sh 90.2 ± 1.0; 5 seeds,
    27 to 31 s each on one core of an AMD EPYC.
    """

    name: str = "UWaveGestureLibrary"
    epochs: int = 150
    patch: int = 16
    warp: float = 0.3
    beta: float = 0.0
    scales: str = "1 2"


@dataclass(frozen=True)
class SelfRegulationSCP1(SeriesRecipe):
    """Slow cortical potentials: up or down.

    Test accuracy of the last epoch, %: softmax 89.6 ± 1.8, bn 90.6 ± 1.0, sh 89.7 ± 1.7, bn+sh 89.7 ± 1.0; 5 seeds,
    29 to 35 s each on one core of an Intel Xeon.
    """

    name: str = "SelfRegulationSCP1"
    epochs: int = 20
    patch: int = 8
    dropout: float = 0.5
    scale: float = 0.3
    jitter: float = 0.5
    beta: float = 0.0
    scales: str = "1 2"


@dataclass(frozen=True)
class SpokenArabicDigits(SeriesRecipe):
    """Ten digits, spoken by 88 people.

    Test accuracy of the last epoch, %: softmax 99.3 ± 0.1, bn 99.2 ± 0.1, sh 99.3 ± 0.2, bn+sh 99.2 ± 0.2; 5 seeds,
    101 to 108 s each on one core of an AMD EPYC.
    """

    name: str = "SpokenArabicDigits"
    epochs: int = 15
    batch: int = 64
    patch: int = 4
    scales: str = "1 2"


@dataclass(frozen=True)
class Digits(ImageRecipe):
    """scikit-learn's 8 x 8 digits, which need no download."""

    name: str = "digits"
    epochs: int = 60
    batch: int = 64
    layers: int = 3
    width: int = 64
    num_heads: int = 4
    patch: int = 2
    flip: float = 0.0
    rand_augment: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    erasing: float = 0.0


@dataclass(frozen=True)
class CIFAR10(ImageRecipe):
    """A small vision transformer on CIFAR-10: 64 tokens of 4 x 4 pixels, 2.7 million weights.

    Not run at full length: that takes a GPU.
    """

    name: str = "cifar10"
    bf16: bool = True


@dataclass(frozen=True)
class ImageNet(ImageRecipe):
    """DeiT-tiny/16 on ImageNet-1k, by the recipe of Touvron et al. (ICML 2021), without distillation.

    Not run here: it takes days of a GPU. --accumulate or torchrun share out the batch.
    """

    name: str = "imagenet"
    epochs: int = 300
    batch: int = 1024
    warm_up: float = 1 / 60
    ema: float = 0.99996
    layers: int = 12
    stochastic_depth: float = 0.1
    size: int = 224
    patch: int = 16
    crop: str = "resized"
    bf16: bool = True
    workers: int = 16


@dataclass(frozen=True)
class ListOps(TokenRecipe):
    """Nested operations on lists of digits, ten classes, 500 to 2,000 tokens. Not run at full length."""

    name: str = "ListOps"
    epochs: int = 10


@dataclass(frozen=True)
class Text(TokenRecipe):
    """IMDb reviews, byte by byte, two classes, up to 4,000 tokens. Not run at full length."""

    name: str = "Text"
    epochs: int = 20


@dataclass(frozen=True)
class PixelCIFAR10(TokenRecipe):
    """CIFAR-10, grey pixel by grey pixel, ten classes, 1,024 tokens. Not run at full length."""

    name: str = "PixelCIFAR10"
    epochs: int = 50


RECIPES = {
    kind.name: kind
    for kind in (
        JapaneseVowels,
        Handwriting,
        UWaveGestureLibrary,
        SelfRegulationSCP1,
        SpokenArabicDigits,
        Digits,
        CIFAR10,
        ImageNet,
        ListOps,
        Text,
        PixelCIFAR10,
    )
}


def recipe(name, folder=None, **changes):
    """The recipe of a name, with some fields changed.

    Without one of that name: the default for time series if folder/name has .ts files or `folder` is None, and for
    images otherwise. Raises ValueError for a field that the recipe has not, or a value of another type.
    """
    kind = RECIPES.get(name) or _kind_of(name, folder)
    types = {field.name: field.type for field in fields(kind) if field.name != "name"}
    for field, value in changes.items():
        if field not in types:
            raise ValueError(f"{field}: expected a field of the recipe, one of {', '.join(types)}")
        try:
            changes[field] = _converted(value, types[field])
        except ValueError as error:
            raise ValueError(f"{field}: expected {types[field].__name__}; got {value!r}") from error
    return kind(name=name, **changes)


def _kind_of(name, folder):
    images_there = (
        folder is not None and any(Path(folder, name).glob("train*")) and not any(Path(folder, name).glob("*.ts"))
    )
    return ImageRecipe if images_there else SeriesRecipe


def _converted(value, type_):
    if type_ is bool and isinstance(value, str):
        if value.lower() not in ("true", "false"):
            raise ValueError
        return value.lower() == "true"
    return type_(value)
