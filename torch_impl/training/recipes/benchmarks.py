"""The recipes of the benchmarks. What they reach stands in RESULTS.md, from results/runs.json.

A field that is missing here has the default of its kind, `SeriesRecipe`, `ImageRecipe` or `TokenRecipe`.
"""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from torch_impl.data.array_files import read_splits, split_files
from torch_impl.training.recipes.base_recipe import Recipe
from torch_impl.training.recipes.kinds import ImageRecipe, SeriesRecipe, TokenRecipe


@dataclass(frozen=True)
class JapaneseVowels(SeriesRecipe):
    """Which of nine speakers says two Japanese vowels, from cepstrum coefficients."""

    name: str = "JapaneseVowels"
    epochs: int = 60
    dropout: float = 0.5
    norm: str = "pre-layer"
    convolutions: int = 1
    patch: int = 1
    pooling: str = "attention"
    warp: float = 0.4
    jitter: float = 0.2
    scales: str = "1 2"


@dataclass(frozen=True)
class Handwriting(SeriesRecipe):
    """Which letter of the alphabet is written, by the motion of a smartwatch."""

    name: str = "Handwriting"
    epochs: int = 150
    lr: float = 2e-3
    layers: int = 2
    dropout: float = 0.0
    norm: str = "pre-layer"
    convolutions: int = 3
    patch: int = 1
    pooling: str = "attention"
    warp: float = 0.4
    mix: float = 0.5
    beta: float = 0.0
    scales: str = "1 2"


@dataclass(frozen=True)
class UWaveGestureLibrary(SeriesRecipe):
    """Which of eight gestures is made, by an accelerometer."""

    name: str = "UWaveGestureLibrary"
    epochs: int = 100
    layers: int = 2
    dropout: float = 0.1
    norm: str = "pre-layer"
    convolutions: int = 4
    patch: int = 1
    pooling: str = "attention"
    warp: float = 0.3
    mix: float = 0.5
    beta: float = 0.0
    scales: str = "1 2"


@dataclass(frozen=True)
class SelfRegulationSCP1(SeriesRecipe):
    """Whether a cursor is moved up or down, by slow cortical potentials."""

    name: str = "SelfRegulationSCP1"
    epochs: int = 40
    patch: int = 32
    dropout: float = 0.5
    warp: float = 0.0
    mix: float = 0.3
    scale: float = 0.3
    jitter: float = 0.5
    beta: float = 0.0
    scales: str = "1 2"


@dataclass(frozen=True)
class SpokenArabicDigits(SeriesRecipe):
    """Which of ten digits is said, by 88 speakers, from cepstrum coefficients."""

    name: str = "SpokenArabicDigits"
    epochs: int = 15
    batch: int = 64
    norm: str = "pre-layer"
    convolutions: int = 2
    patch: int = 1
    pooling: str = "attention"
    warp: float = 0.4
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
class SmallImageRecipe(ImageRecipe):
    """Images on a CPU: 16 tokens or so, made by convolutions, and nothing at random but their flips."""

    batch: int = 64
    lr: float = 2e-3
    layers: int = 2
    width: int = 96
    num_heads: int = 4
    convolutions: int = 3
    patch: int = 1
    scales: str = "1 2"
    crop: str = "none"
    rand_augment: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    erasing: float = 0.0


@dataclass(frozen=True)
class FashionMNIST(SmallImageRecipe):
    """Fashion-MNIST (Xiao et al., 2017): 16 tokens, made by convolutions. It fits a CPU."""

    name: str = "fashion_mnist"
    epochs: int = 16


@dataclass(frozen=True)
class CIFAR10(ImageRecipe):
    """CIFAR-10 by a small vision transformer: 64 tokens, made by convolutions, 3.3 million weights.

    It was not run at full length, for which a GPU is needed. `primal-dual reproduce --only "cifar10, short"` trains a
    smaller one.
    """

    name: str = "cifar10"
    convolutions: int = 2
    patch: int = 1
    bf16: bool = True


@dataclass(frozen=True)
class TinyImageNet(SmallImageRecipe):
    """The first 50 classes of Tiny ImageNet, 64 x 64 pixels: 16 tokens, made by convolutions. It fits a CPU.

    It was not tuned: but for the number of convolutions and the width, it is the short training on CIFAR-10.
    """

    name: str = "tiny_imagenet_50"
    epochs: int = 10
    width: int = 128
    convolutions: int = 4


@dataclass(frozen=True)
class ImageNet(ImageRecipe):
    """ImageNet-1k by DeiT-tiny/16, by the recipe of Touvron et al. (ICML 2021), without distillation.

    It was not run: it takes days on a GPU. A batch that does not fit can be split by --accumulate or by torchrun.
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
    """The value, 0 to 9, of nested operations on lists of digits, 500 to 2,000 tokens. Not run at full length."""

    name: str = "ListOps"
    epochs: int = 10


@dataclass(frozen=True)
class Text(TokenRecipe):
    """Whether a review of IMDb is positive, byte by byte, up to 4,000 tokens. Not run at full length.

    `primal-dual reproduce --only "Text, short"` reads the first 512 bytes.
    """

    name: str = "Text"
    epochs: int = 20


@dataclass(frozen=True)
class PixelCIFAR10(TokenRecipe):
    """CIFAR-10, grey pixel by grey pixel, 1,024 tokens. Not run at full length."""

    name: str = "PixelCIFAR10"
    epochs: int = 50


RECIPES: dict[str, type[Recipe]] = {
    kind.name: kind
    for kind in (
        JapaneseVowels,
        Handwriting,
        UWaveGestureLibrary,
        SelfRegulationSCP1,
        SpokenArabicDigits,
        Digits,
        FashionMNIST,
        CIFAR10,
        TinyImageNet,
        ImageNet,
        ListOps,
        Text,
        PixelCIFAR10,
    )
}

WORDS = {int: "a whole number", float: "a number", str: "a word", bool: "true or false"}


def recipe(name: str, folder: Path | str | None = None, **changes: Any) -> Recipe:
    """The recipe of a data set, with some fields changed.

    Parameters
    ----------
    name : str
        Of the data set. One without a recipe of its own has the default for images if `folder`/`name` has a training
        split of images or arrays of four axes, and else that for time series.
    folder : path, optional
        The folder of data sets.
    **changes
        Fields of the recipe, as values or as the words of a command line.

    Raises
    ------
    ValueError
        For an unknown field, a value of another type, and a number outside its limits; and for the name of another
        recipe in other case, where that recipe's data are found by it.

    Examples
    --------
    >>> recipe("JapaneseVowels", epochs="7").epochs, recipe("mine").dropout
    (7, 0.3)
    """
    known = {each.lower(): each for each in RECIPES}.get(name.lower(), name)
    if known != name and folder is not None and _share_data(folder, known, name):
        raise ValueError(f"data set: expected {known}, the name of its recipe; got {name}")
    kind = RECIPES.get(name) or _default_kind(name, folder)
    return changed(kind(name=name), **changes)


def changed(recipe: Recipe, **changes: Any) -> Recipe:
    """A recipe with some fields changed, as `recipe` takes and refuses them.

    Examples
    --------
    >>> changed(Digits(), epochs=3.0).epochs
    3
    """
    types: dict[str, Any] = {field.name: field.type for field in fields(recipe) if field.name != "name"}
    converted = {}
    for field, value in changes.items():
        if field not in types:
            raise ValueError(f"{field}: expected a field of the recipe, one of {', '.join(types)}")
        try:
            converted[field] = _converted(value, types[field])
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"{field}: expected {WORDS[types[field]]}; got {value!r}") from error
    return replace(recipe, **converted)


def _share_data(folder: Path | str, one: str, other: str) -> bool:
    """Whether two names are of the same data, as where the file system does not tell upper from lower case."""
    places = [[Path(folder, name), *split_files(folder, name)] for name in (one, other)]
    return any(a.exists() and b.exists() and a.samefile(b) for a, b in zip(*places, strict=False))


def _default_kind(name: str, folder: Path | str | None) -> type[Recipe]:
    if folder is None:
        return SeriesRecipe
    files, arrays = Path(folder, name), split_files(folder, name)
    if arrays:
        return ImageRecipe if read_splits(arrays).X_train.ndim == 4 else SeriesRecipe
    has_images = any(files.glob("train*")) and not any(files.glob("*.ts"))
    return ImageRecipe if has_images else SeriesRecipe


def _converted(value: Any, type_: type) -> Any:
    """A value, or the word for it, as a value of a type. ValueError for another word, a part of a number, or True."""
    if type_ is bool and isinstance(value, str):
        if value.lower() not in ("true", "false"):
            raise ValueError
        return value.lower() == "true"
    if type_ is int and isinstance(value, float) and value != int(value):
        raise ValueError
    if type_ is not bool and isinstance(value, bool):
        raise ValueError
    return type_(value)
