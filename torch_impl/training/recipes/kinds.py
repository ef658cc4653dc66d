"""The recipes of each kind of data: time series, sequences of tokens, and images."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import torch

from primal_dual.io.text import printable
from primal_dual.types import Bool, Float, Num, UInt8
from torch_impl.data.arrays import images_of_array, series_of_arrays
from torch_impl.data.dataset import DataSet, Split
from torch_impl.data.images.augmentation import CROPS, ImageAugmentation
from torch_impl.data.images.loading import image_data_set, load_images, load_new_images, new_images
from torch_impl.data.images.pixels import standardised
from torch_impl.data.images.source import array_source
from torch_impl.data.long_range_arena.tasks import load_lra
from torch_impl.data.messages import Say
from torch_impl.data.sensors import noisy, oversampled
from torch_impl.data.series import load_new_series, load_series, new_series, series_data_set
from torch_impl.data.series_augmentation import augment_series
from torch_impl.models.encoder_block import NORMS
from torch_impl.models.encoders import POOLINGS, TimeSeriesEncoder, TokenEncoder
from torch_impl.models.vision_transformer import VisionTransformer
from torch_impl.training.recipes.attentions import Attention
from torch_impl.training.recipes.base_recipe import (
    AT_LEAST_ONE,
    AT_LEAST_ZERO,
    FRACTION,
    NO_CHANGE,
    ROUNDING_ALONE,
    Choices,
    Limits,
    Recipe,
    TrainingBatch,
)

ENCODER_FIELDS = ("layers", "width", "num_heads", "feedforward", "dropout", "norm", "stochastic_depth", "learn_beta")
TOKENISER_FIELDS = ("convolutions", "taps", "patch", "pooling")
VISION_FIELDS = ("convolutions", "patch", "layers", "width", "num_heads", "stochastic_depth", "learn_beta")
AUGMENTATION_FIELDS = ("warp", "scale", "mix", "jitter")
JOBS_OF_A_GPU = 8  # each takes about half a gigabyte of it, for itself
MOST_TOKENS = 32  # of a series, by default
TOKENS_OF_A_RUN = 4e6  # over all epochs, by default
PIXELS_AT_A_TIME = 2**22  # of all channels of the images that are augmented together


@dataclass(frozen=True)
class SeriesRecipe(Recipe):
    """Time series of the UEA archive, or your own in its format.

    Parameters
    ----------
    epochs : int
        0 for a number from 10 to 200 with which the model sees four million tokens in all.
    feedforward : int
        The number of hidden features of the feed-forward networks.
    dropout : float
        The probability of dropout on the tokens.
    norm : str
        "batch", "layer" or "pre-layer".
    convolutions : int
        The number of convolutions that each halve the number of time steps.
    taps : int
        The width of their kernels, odd.
    pooling : str
        How the tokens become one vector: "flatten", "mean" or "attention".
    patch : int
        The number of time steps, after the convolutions, that make a token; 0 for so many that there are at most 32
        tokens.
    warp : float
        How much the pace of a series varies in training; see `augment_series`.
    scale : float
        How much the size of each feature varies.
    mix : float
        How much the features are mixed.
    jitter : float
        How much every value varies.
    oversample : int
        How many steps both splits have for each of their steps, on the straight lines between these: a faster sensor,
        to compare models on.
    noise : float
        The standard deviation of noise that is then added to both splits, whose values have the deviation 1 without it:
        a worse sensor. New examples are taken as they are, as if this sensor had recorded them.
    """

    limits: ClassVar[Limits] = Recipe.limits | {
        "epochs": AT_LEAST_ZERO,
        "feedforward": AT_LEAST_ONE,
        "dropout": FRACTION,
        "convolutions": (0, 10),
        "taps": AT_LEAST_ONE,
        "patch": AT_LEAST_ZERO,
        "oversample": (1, 100),
        **dict.fromkeys((*AUGMENTATION_FIELDS, "noise"), (0, 100)),
    }
    choices: ClassVar[Choices] = Recipe.choices | {"norm": NORMS, "pooling": POOLINGS}

    epochs: int = 0
    feedforward: int = 256
    dropout: float = 0.3
    norm: str = "batch"
    convolutions: int = 0
    taps: int = 7
    patch: int = 0
    pooling: str = "flatten"
    warp: float = 0.2
    scale: float = 0.1
    mix: float = 0.0
    jitter: float = 0.1
    oversample: int = 1
    noise: float = 0.0

    def jobs(self, runs: int, gpu: bool) -> int:
        """As many as there are cores, and at most 8 on a GPU, most of which a small model would leave idle."""
        cores = super().jobs(runs, gpu=False)
        return min(cores, JOBS_OF_A_GPU) if gpu else cores

    def threads(self, jobs: int) -> int:
        """One: a small model is slower with more."""
        return 1

    @property
    def uses_onednn(self) -> bool:
        """If there are convolutions."""
        return self.convolutions > 0

    def load_files(self, folder: Path | str | None, say: Say) -> DataSet:
        """See `load_series`, `oversampled` and `noisy`."""
        return self._recorded(load_series(self.name, folder))

    def read_files(
        self, path: Path, description: dict[str, Any]
    ) -> tuple[Float[torch.Tensor, "n length features"], Bool[torch.Tensor, "n length"] | None, Sequence[object]]:
        """The examples of a .ts file, which are named by their numbers."""
        inputs, key_mask = load_new_series(path, description)
        return inputs, key_mask, range(len(inputs))

    def from_arrays(self, X: Any, labels: Sequence, X_test: Any, test_labels: Sequence, say: Say) -> DataSet:
        """The data set of series, (n, time) or (n, channels, time), or lists of (channels, time)."""
        train, test = series_of_arrays("X", X), series_of_arrays("X_test", X_test)
        return self._recorded(series_data_set(self.name, train, labels, test, test_labels))

    def new_arrays(
        self, X: Any, description: dict[str, Any]
    ) -> tuple[Float[torch.Tensor, "n length features"], Bool[torch.Tensor, "n length"] | None]:
        """New series."""
        return new_series("X", series_of_arrays("X", X), description)

    def resolve_defaults(self, data: DataSet) -> "SeriesRecipe":
        """Choose the patch and the number of epochs where they are 0."""
        assert isinstance(data.train, Split)
        n, length = data.train.inputs.shape[:2]
        steps = -(-length // 2**self.convolutions)
        patch = self.patch or -(-steps // MOST_TOKENS)
        tokens = -(-steps // patch)
        epochs = self.epochs or min(200, max(10, round(TOKENS_OF_A_RUN / (n * tokens))))
        return replace(self, patch=patch, epochs=epochs)

    def model(self, sizes: dict[str, Any], attention: Attention) -> TimeSeriesEncoder:
        """An encoder of time series."""
        options = self.some(ENCODER_FIELDS + TOKENISER_FIELDS)
        return TimeSeriesEncoder(**sizes, primal=self.primal(attention), **options)

    def augmented(self, batches: Iterable[Split], data: DataSet) -> Iterator[TrainingBatch]:
        """The series, changed at random, and their labels."""
        for batch in batches:
            inputs = augment_series(batch.inputs, batch.key_mask, **self.some(AUGMENTATION_FIELDS))
            yield TrainingBatch(inputs, batch.key_mask, batch.labels)

    def _recorded(self, data: DataSet) -> DataSet:
        """As the sensor of the recipe would have recorded it."""
        return noisy(oversampled(data, self.oversample), self.noise)


@dataclass(frozen=True)
class TokenRecipe(Recipe):
    """The tasks of the Long Range Arena (Tay et al., ICLR 2021).

    Parameters
    ----------
    feedforward : int
        The number of hidden features of the feed-forward networks.
    dropout : float
        The probability of dropout on the tokens.
    norm : str
        "batch", "layer" or "pre-layer".
    length : int
        The length of the sequences; 0 for that of the benchmark.
    cases : int
        The largest number of examples of a split; 0 for that of the benchmark.
    """

    limits: ClassVar[Limits] = Recipe.limits | {
        "feedforward": AT_LEAST_ONE,
        "dropout": FRACTION,
        "length": AT_LEAST_ZERO,
        "cases": AT_LEAST_ZERO,
    }
    choices: ClassVar[Choices] = Recipe.choices | {"norm": NORMS}

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

    @property
    def uses_onednn(self) -> bool:
        """There are no convolutions."""
        return False

    def load_files(self, folder: Path | str | None, say: Say) -> DataSet:
        """See `load_lra`."""
        return load_lra(self.name, folder, length=self.length or None, cases=self.cases or None, say=say)

    def model(self, sizes: dict[str, Any], attention: Attention) -> TokenEncoder:
        """An encoder of tokens."""
        return TokenEncoder(**sizes, primal=self.primal(attention), **self.some(ENCODER_FIELDS))


@dataclass(frozen=True)
class ImageRecipe(Recipe):
    """Images in folders, one a class, as ImageNet's are.

    Parameters
    ----------
    size : int
        The height and width of the images; 0 for those of the first one.
    convolutions : int
        How many pairs of convolutions make the tokens, each of which halves height and width; 0 for a linear map of
        each patch.
    patch : int
        The height and width of the patches that are the tokens.
    crop : str
        How an image is cut out in training: "shifted", "resized" or "none".
    flip : float
        The probability that it is mirrored.
    erasing : float
        The probability that a rectangle of it is erased.
    rand_augment : float
        The strength of RandAugment; 0 for none.
    mixup, cutmix : float
        The parameter of the beta distribution by which two images are mixed; 0 for none.
    skip_corrupt : bool
        Whether images that cannot be decoded are left out.
    """

    limits: ClassVar[Limits] = (
        Recipe.limits
        | {"size": AT_LEAST_ZERO, "convolutions": (0, 10), "patch": AT_LEAST_ONE}
        | ImageAugmentation.limits
    )
    choices: ClassVar[Choices] = Recipe.choices | {"crop": CROPS}

    batch: int = 128
    weight_decay: float = 0.05
    clip: float = 1.0
    layers: int = 6
    width: int = 192
    num_heads: int = 3
    size: int = 0
    convolutions: int = 0
    patch: int = 4
    crop: str = "shifted"
    flip: float = ImageAugmentation.flip
    rand_augment: float = ImageAugmentation.rand_augment
    mixup: float = ImageAugmentation.mixup
    cutmix: float = ImageAugmentation.cutmix
    erasing: float = ImageAugmentation.erasing
    skip_corrupt: bool = False

    def load_files(self, folder: Path | str | None, say: Say) -> DataSet:
        """See `load_images`."""
        return load_images(self.name, folder, size=self.size or None, skip_corrupt=self.skip_corrupt, say=say)

    def read_files(
        self, path: Path, description: dict[str, Any]
    ) -> tuple[UInt8[torch.Tensor, "n channels H W"], None, Sequence[object]]:
        """An image, or all images in a folder, which are named by their files."""
        pixels, names = load_new_images(path, description["sizes"])
        return pixels, None, names

    def from_arrays(self, X: Any, labels: Sequence, X_test: Any, test_labels: Sequence, say: Say) -> DataSet:
        """The data set of images, (n, height, width) or (n, height, width, 1 or 3)."""
        train = array_source("train", images_of_array("X", X), labels)
        test = array_source("test", images_of_array("X_test", X_test), test_labels)
        options: dict[str, Any] = dict(size=self.size or None, skip_corrupt=self.skip_corrupt, say=say)
        return image_data_set(self.name, train, test, **options)

    def new_arrays(self, X: Any, description: dict[str, Any]) -> tuple[UInt8[torch.Tensor, "n channels H W"], None]:
        """New images. Raises ValueError for another size than in training, unless the recipe has a size."""
        images, size = images_of_array("X", X), description["sizes"]["size"]
        if not self.size and images.shape[1:3] != (size, size):
            height, width = images.shape[1:3]
            raise ValueError(f"X: expected images of {size} x {size}, as in training; got {height} x {width}")
        return new_images(array_source("X", images, range(len(images))), description["sizes"]), None

    def model(self, sizes: dict[str, Any], attention: Attention) -> VisionTransformer:
        """A vision transformer."""
        return VisionTransformer(self.primal(attention), **sizes, **self.some(VISION_FIELDS))

    def prepare(
        self, inputs: Num[torch.Tensor, "n channels H W"], mean: Sequence[float], deviation: Sequence[float]
    ) -> Float[torch.Tensor, "n channels H W"]:
        """The images, standardised."""
        return standardised(inputs, mean, deviation)

    def augmented(self, batches: Iterable[Split], data: DataSet) -> Iterator[TrainingBatch]:
        """The images, changed at random, and the probabilities of their classes.

        Small images are changed several batches at a time: most operations take as long for a few of them as for many.
        """
        augmentation = ImageAugmentation(**self.some(field.name for field in fields(ImageAugmentation)))
        for group in _groups(batches, PIXELS_AT_A_TIME):
            changed = augmentation.change_each(torch.cat([batch.inputs for batch in group]))
            for batch, images in zip(group, changed.split([len(batch) for batch in group]), strict=True):
                pixels, targets = augmentation.mix(images, batch.labels, len(data.classes))
                yield TrainingBatch(self.prepare(pixels, data.mean, data.deviation), None, targets)


def _groups(batches: Iterable[Split], numbers: int) -> Iterator[list[Split]]:
    """Batches that come one after the other, in groups of so many numbers, or of one batch that has more."""
    group: list[Split] = []
    for batch in batches:
        group.append(batch)
        if sum(each.inputs.numel() for each in group) >= numbers:
            yield group
            group = []
    if group:
        yield group


KINDS = {kind.__name__: kind for kind in (SeriesRecipe, ImageRecipe, TokenRecipe)}


def to_config(recipe: Recipe) -> dict[str, Any]:
    """A recipe as a dictionary for JSON: the kind of its data, and its fields.

    Examples
    --------
    >>> config = to_config(SeriesRecipe("BasicMotions", patch=3))
    >>> config["kind"], config["patch"], from_config(config) == SeriesRecipe("BasicMotions", patch=3)
    ('SeriesRecipe', 3, True)
    """
    kind = next(name for name, kind in KINDS.items() if isinstance(recipe, kind))
    return {"kind": kind} | asdict(recipe)


def deciding_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a recipe's dictionary that decide a result; one that is missing, being younger, has its default.

    Examples
    --------
    >>> config = to_config(SeriesRecipe("mine", tensorboard=True))
    >>> deciding_fields(config) == deciding_fields(to_config(SeriesRecipe("mine")))
    True
    """
    whole = to_config(from_config(dict(config)))
    return {name: value for name, value in whole.items() if name not in (*NO_CHANGE, *ROUNDING_ALONE)}


def from_config(config: dict[str, Any], source: Path | str = "recipe") -> Recipe:
    """The recipe of a dictionary that `to_config` made; `source` is what messages call it.

    Raises
    ------
    ValueError
        For another dictionary, and for values of other types or outside their limits.
    """
    kind = KINDS.get(config.get("kind", ""))
    if kind is None:
        raise ValueError(f"{source}: kind: expected one of {', '.join(KINDS)}; got {config.get('kind')!r}")
    values = {name: value for name, value in config.items() if name != "kind"}
    unknown = values.keys() - {field.name for field in fields(kind)}
    if unknown:
        raise ValueError(f"{source}: {kind.__name__}: expected no {printable(', '.join(sorted(unknown)))}")
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise ValueError(f"{source}: {kind.__name__}: {error}") from error
