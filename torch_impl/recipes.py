"""Recipes: everything that decides a run but the attention and the seed, for each kind of input and each benchmark."""

from dataclasses import asdict, dataclass, fields, replace
from math import inf
from pathlib import Path
from typing import ClassVar

from primal_dual.primal import Heads, heads
from primal_dual.transforms import BatchNorm, parts
from torch_impl import checks, images, lra, series
from torch_impl.models import TimeSeriesEncoder, TokenEncoder, VisionTransformer

ENCODER = ("layers", "width", "num_heads", "feedforward", "dropout", "norm", "stochastic_depth")
TOKENS, MOST_TOKENS = 4e6, 32  # of a training, and of a series, on a set without a recipe of its own
AT_LEAST_ONE = ("epochs", "batch", "accumulate", "layers", "width", "num_heads", "feedforward", "patch")
NOT_NEGATIVE = ("lr", "weight_decay", "clip", "folds", "workers", "warp", "scale", "jitter", "length", "cases", "size")
SHARES = ("warm_up", "label_smoothing", "ema", "stochastic_depth", "dropout", "flip", "erasing")
LIMITS = {
    **dict.fromkeys(AT_LEAST_ONE, (1, inf)),
    **dict.fromkeys((*NOT_NEGATIVE, "mixup", "cutmix"), (0, inf)),
    **dict.fromkeys(SHARES, (0, 1)),
    "beta": (-1e6, 1e6),
    "rand_augment": (0, 10),
}


@dataclass(frozen=True)
class Recipe:
    """What all recipes have; the same for every attention.

    With folds = k, seed s trains on the training split without its fold s mod k, and is tested on that fold: so a
    recipe is tuned without the test split. Raises ValueError for a number outside the limits.
    """

    limits: ClassVar = LIMITS

    name: str
    epochs: int = 100
    batch: int = 16
    accumulate: int = 1  # parts of a batch, one after the other
    optimizer: str = "adamw"  # or radam
    lr: float = 1e-3
    weight_decay: float = 1e-2  # of matrices
    warm_up: float = 0.1  # share of the steps
    label_smoothing: float = 0.1
    clip: float = 4.0  # largest norm of the gradient
    ema: float = 0.0  # decay of the average of the weights, which is then tested; 0: none
    layers: int = 3
    width: int = 128
    num_heads: int = 8
    stochastic_depth: float = 0.0  # rate of the last layer
    beta: float = 1.0  # of Attention-BN
    scales: str = "1 2 4 8"  # of Attention-SH, the heads in equal shares
    folds: int = 0
    bf16: bool = False
    compile: bool = False
    workers: int = 0  # processes that read a set that is not in memory
    tensorboard: bool = False

    def __post_init__(self):
        for name, (least, most) in self.limits.items():
            checks.between(name, getattr(self, name, least), least, most)

    def load(self, folder, say):
        """The data set; `folder` holds those that are not embedded."""
        raise NotImplementedError

    def read(self, path, data):
        """New cases from a file -> inputs, key_mask, and their names. data: what a run knows of its data set."""
        raise ValueError(f"{path}: expected a run on time series or images; one on {self.name} reads no files")

    def fitted(self, data):
        """The recipe with whatever depends on the size of the data set."""
        return self

    def model(self, sizes, attention):
        """The model, for the sizes of a data set and the name of an attention."""
        raise NotImplementedError

    def prepare(self, inputs, mean, deviation):
        """The model's input, on the device."""
        return inputs

    def augment(self, batch, data):
        """Input and target of a step of training, on the device -> the model's input, and labels or probabilities."""
        return self.prepare(batch.inputs, data.mean, data.deviation), batch.labels

    def primal(self, attention):
        """The heads of a catalog name: the recipe's beta in every BatchNorm, its scales where one is above 1."""
        members, scales = heads(attention, self.num_heads), self._scales()
        scaled = any(member.scale > 1 for member in members)

        def with_beta(part):
            return replace(part, beta=self.beta) if isinstance(part, BatchNorm) else part

        def tuned(s, member):
            transform = tuple(map(with_beta, sum(parts(member.transform), ())))
            scale = scales[len(scales) * s // len(members)] if scaled else member.scale
            return replace(member, transform=transform, scale=scale)

        return Heads(*(tuned(s, member) for s, member in enumerate(members)))

    def _scales(self):
        words = self.scales.split()
        if not words or not all(word.isdecimal() for word in words):
            raise ValueError(f'scales: expected whole numbers, such as "1 2 4 8"; got {self.scales!r}')
        return [int(word) for word in words]


@dataclass(frozen=True)
class SeriesRecipe(Recipe):
    """Time series of the UEA archive, or of one's own in its format."""

    limits: ClassVar = LIMITS | dict.fromkeys(("epochs", "patch"), (0, inf))

    epochs: int = 0  # 0: from 10 to 200, four million tokens in all
    feedforward: int = 256
    dropout: float = 0.3
    norm: str = "batch"
    patch: int = 0  # time steps a token; 0: so many that there are at most 32 tokens
    warp: float = 0.2
    scale: float = 0.1
    jitter: float = 0.1

    def load(self, folder, say):
        return series.load_series(self.name, folder)

    def read(self, path, data):
        inputs, key_mask = series.load_cases(path, data)
        return inputs, key_mask, range(len(inputs))

    def fitted(self, data):
        n, length = data.train.inputs.shape[:2]
        patch = self.patch or -(-length // MOST_TOKENS)
        epochs = self.epochs or min(200, max(10, round(TOKENS / (n * -(-length // patch)))))
        return replace(self, patch=patch, epochs=epochs)

    def model(self, sizes, attention):
        options = {name: getattr(self, name) for name in ENCODER}
        return TimeSeriesEncoder(**sizes, primal=self.primal(attention), patch=self.patch, **options)

    def augment(self, batch, data):
        x = series.augment(batch.inputs, batch.key_mask, warp=self.warp, scale=self.scale, jitter=self.jitter)
        return x, batch.labels


@dataclass(frozen=True)
class TokenRecipe(Recipe):
    """The Long Range Arena (Tay et al., ICLR 2021). length and cases: less than the benchmark's where not zero."""

    batch: int = 32
    lr: float = 5e-4
    label_smoothing: float = 0.0
    clip: float = 1.0
    layers: int = 2
    width: int = 64
    num_heads: int = 4
    feedforward: int = 128
    dropout: float = 0.1
    norm: str = "pre-layer"
    length: int = 0
    cases: int = 0

    def load(self, folder, say):
        return lra.load_lra(self.name, folder, length=self.length or None, cases=self.cases or None, say=say)

    def model(self, sizes, attention):
        options = {name: getattr(self, name) for name in ENCODER}
        return TokenEncoder(**sizes, primal=self.primal(attention), **options)


@dataclass(frozen=True)
class ImageRecipe(Recipe):
    """Images in folders, one a class, as ImageNet's. size: of the images, 0 = that of the first one."""

    batch: int = 128
    weight_decay: float = 0.05
    clip: float = 1.0
    layers: int = 6
    width: int = 192
    num_heads: int = 3
    size: int = 0
    patch: int = 4
    crop: str = "shifted"  # or resized, or none
    flip: float = 0.5  # probability
    rand_augment: float = 9.0  # magnitude; 0: none
    mixup: float = 0.8  # of the Beta distribution; 0: none
    cutmix: float = 1.0
    erasing: float = 0.25  # probability
    skip_corrupt: bool = False

    def load(self, folder, say):
        return images.load_images(self.name, folder, size=self.size or None, skip_corrupt=self.skip_corrupt, say=say)

    def read(self, path, data):
        pixels, names = images.load_files(path, data["sizes"])
        return pixels, None, names

    def model(self, sizes, attention):
        return VisionTransformer(
            self.primal(attention),
            **sizes,
            patch=self.patch,
            layers=self.layers,
            width=self.width,
            num_heads=self.num_heads,
            stochastic_depth=self.stochastic_depth,
        )

    def prepare(self, inputs, mean, deviation):
        return images.standardised(inputs, mean, deviation)

    def augment(self, batch, data):
        try:
            from torch_impl.augmentation import ImageAugmentation
        except ImportError as error:
            raise ValueError("images need kornia: pip install 'primal-dual-attention[train]'") from error
        names = (field.name for field in fields(ImageAugmentation))
        augmentation = ImageAugmentation(**{name: getattr(self, name) for name in names})
        pixels, targets = augmentation(batch.inputs, batch.labels, len(data.classes))
        return self.prepare(pixels, data.mean, data.deviation), targets


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


KINDS = {kind.__name__: kind for kind in (SeriesRecipe, ImageRecipe, TokenRecipe)}
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


def to_config(chosen):
    """A recipe for JSON."""
    return {"kind": next(kind for kind in KINDS if isinstance(chosen, KINDS[kind]))} | asdict(chosen)


def from_config(config):
    """The recipe of a config. Raises TypeError and KeyError for what is none."""
    return KINDS[config["kind"]](**{name: value for name, value in config.items() if name != "kind"})


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
