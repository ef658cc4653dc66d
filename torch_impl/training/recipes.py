"""Recipes: everything that decides a run but the attention and the seed, for each kind of input and each benchmark."""

from dataclasses import asdict, dataclass, fields, replace
from math import inf
from typing import ClassVar

from primal_dual.primal import Heads, heads
from primal_dual.transforms import BatchNorm, split_convolutions
from torch_impl import checks
from torch_impl.data import images, long_range_arena, series
from torch_impl.models.encoders import TimeSeriesEncoder, TokenEncoder
from torch_impl.models.vision_transformer import VisionTransformer

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

    def resolve_defaults(self, data):
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
            transform = tuple(map(with_beta, sum(split_convolutions(member.transform), ())))
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

    def resolve_defaults(self, data):
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
        return long_range_arena.load_lra(
            self.name, folder, length=self.length or None, cases=self.cases or None, say=say
        )

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
            from torch_impl.data.image_augmentation import ImageAugmentation
        except ImportError as error:
            raise ValueError("images need kornia: pip install 'primal-dual-attention[train]'") from error
        names = (field.name for field in fields(ImageAugmentation))
        augmentation = ImageAugmentation(**{name: getattr(self, name) for name in names})
        pixels, targets = augmentation(batch.inputs, batch.labels, len(data.classes))
        return self.prepare(pixels, data.mean, data.deviation), targets


KINDS = {kind.__name__: kind for kind in (SeriesRecipe, ImageRecipe, TokenRecipe)}


def to_config(chosen):
    """A recipe for JSON."""
    return {"kind": next(kind for kind in KINDS if isinstance(chosen, KINDS[kind]))} | asdict(chosen)


def from_config(config):
    """The recipe of a config. Raises TypeError and KeyError for what is none."""
    return KINDS[config["kind"]](**{name: value for name, value in config.items() if name != "kind"})
