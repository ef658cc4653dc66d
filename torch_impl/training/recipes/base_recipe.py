"""What the recipes of all kinds of data have: the fields of a run, their limits, and what a recipe must offer."""

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch

from primal_dual.io.text import printable
from primal_dual.primal import Heads, Primal, heads, is_built_in, members_of
from primal_dual.protocols import Transform
from primal_dual.transforms import BatchNorm, split_convolutions
from primal_dual.types import Bool, Num
from torch_impl import checks
from torch_impl.data.array_files import SUFFIXES, read_examples, read_splits, split_files
from torch_impl.data.arrays import labels_of_array
from torch_impl.data.dataset import DataSet, Split
from torch_impl.data.messages import Say
from torch_impl.training.recipes.attentions import Attention

Limits = dict[str, tuple[float, float]]
Choices = dict[str, Collection[str]]

AT_LEAST_ZERO, AT_LEAST_ONE, FRACTION = (0, 10**9), (1, 10**9), (0, 1)
NO_CHANGE = ("workers", "tensorboard")  # fields that do not change a result
ROUNDING_ALONE = ("compile",)  # fields that change it by no more than rounding
BELOW_ONE = (0, 0.9999999)
FINITE = (0, 3e38)  # what a float of 32 bits can hold
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {"adamw": torch.optim.AdamW, "radam": torch.optim.RAdam}


class TrainingBatch(NamedTuple):
    """What a step of training takes: inputs, a padding mask or None, and targets, labels (n,) or probabilities."""

    inputs: Num[torch.Tensor, "n ..."]
    key_mask: Bool[torch.Tensor, "n N"] | None
    targets: Num[torch.Tensor, "n ..."]


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run but the attention and the seed. It is the same for every attention.

    Parameters
    ----------
    name : str
        Of the data set.
    epochs : int
        The number of passes over the training split.
    batch : int
        The number of examples in a batch.
    accumulate : int
        A batch is computed in so many parts, one after the other.
    optimizer : str
        "adamw" or "radam".
    lr : float
        The peak learning rate.
    weight_decay : float
        The weight decay of matrices; other weights have none.
    warm_up : float
        The fraction of the steps in which the learning rate rises.
    label_smoothing : float
        Of the cross-entropy.
    clip : float
        The largest norm of the gradient; 0 for no limit.
    ema : float
        The decay of an exponential moving average of the weights, which is then tested and kept; 0 for none.
    layers : int
        The number of layers.
    width : int
        The number of features of a token.
    num_heads : int
        The number of heads of each layer.
    stochastic_depth : float
        The probability that a branch of the last layer is dropped.
    beta : float
        Of Attention-BN.
    learn_beta : bool
        Whether the heads of Attention-BN learn their beta, which starts at that of the primal.
    scales : str
        Of Attention-SH, such as "1 2 4 8": head s of H, from 0, has the one at place floor(n s / H), from 0, of the n;
        so with fewer heads than scales, some scales are left out.
    folds : int
        With k folds, seed s is trained on the training split without its fold s mod k and tested on that fold, so that
        a recipe is tuned without the test split. 0 for the test split.
    bf16 : bool
        Whether the model computes in bfloat16.
    compile : bool
        Whether it is compiled by torch.
    tensorboard : bool
        Whether the log is written for TensorBoard, too.
    workers : int
        The number of processes that read a data set which is not in memory.

    Raises
    ------
    ValueError
        For a number outside its limits, for a word that is no choice, and for a name that is no name of one folder.
    """

    limits: ClassVar[Limits] = {
        "epochs": AT_LEAST_ONE,
        "batch": AT_LEAST_ONE,
        "accumulate": AT_LEAST_ONE,
        "lr": FINITE,
        "weight_decay": FINITE,
        "warm_up": FRACTION,
        "label_smoothing": FRACTION,
        "clip": FINITE,
        "ema": BELOW_ONE,
        "layers": (1, 1000),
        "width": AT_LEAST_ONE,
        "num_heads": (1, 10_000),
        "stochastic_depth": BELOW_ONE,
        "beta": (-1e6, 1e6),
        "folds": AT_LEAST_ZERO,
        "workers": AT_LEAST_ZERO,
    }
    choices: ClassVar[Choices] = {"optimizer": OPTIMIZERS}

    name: str
    epochs: int = 100
    batch: int = 16
    accumulate: int = 1
    optimizer: str = "adamw"
    lr: float = 1e-3
    weight_decay: float = 1e-2
    warm_up: float = 0.1
    label_smoothing: float = 0.1
    clip: float = 4.0
    ema: float = 0.0
    layers: int = 3
    width: int = 128
    num_heads: int = 8
    stochastic_depth: float = 0.0
    beta: float = 1.0
    learn_beta: bool = False
    scales: str = "1 2 4 8"
    folds: int = 0
    bf16: bool = False
    compile: bool = False
    workers: int = 0
    tensorboard: bool = False

    def __post_init__(self) -> None:
        if self.name in ("", ".", "..") or printable(self.name) != self.name or {"/", "\\"} & set(self.name):
            raise ValueError(f"data set: expected the name of one folder, inside --data; got {self.name!r}")
        for name, (least, most) in self.limits.items():
            checks.between(name, getattr(self, name), least, most)
        for name, words in self.choices.items():
            checks.one_of(name, getattr(self, name), words)
        self._scales()

    def jobs(self, runs: int, gpu: bool) -> int:
        """How many of some runs are trained at a time: on a CPU as many as there are cores, on a GPU one."""
        return 1 if gpu else min(os.cpu_count() or 1, runs)

    def threads(self, jobs: int) -> int:
        """The number of threads of each of some runs that are trained at a time: its share of the cores."""
        return max(1, (os.cpu_count() or 1) // jobs)

    @property
    def uses_onednn(self) -> bool:
        """Whether training on a CPU takes oneDNN's kernels, which make convolutions fast.

        Of GELU, it keeps one for each number of tokens in a batch, and memory grows, to several GB on texts.
        """
        return True

    def load(self, folder: Path | str | None, say: Say) -> DataSet:
        """The data set; `folder` is the folder of those that do not come with a package.

        Arrays in files, as `split_files` finds them, take precedence over a folder of the data set's name.

        Raises
        ------
        ValueError
            For what is missing, empty or malformed.
        """
        files = split_files(folder, self.name)
        if not files:
            return self.load_files(folder, say)
        X, y, X_test, y_test = read_splits(files)
        try:
            labels = labels_of_array("y_train", y, len(X))
            return self.from_arrays(X, labels, X_test, labels_of_array("y_test", y_test, len(X_test)), say)
        except ValueError as error:
            raise ValueError(f"{' and '.join(map(str, files))}: {error}") from error

    def load_files(self, folder: Path | str | None, say: Say) -> DataSet:
        """The data set that is not in files of arrays; see `load`."""
        raise NotImplementedError

    def read(
        self, path: Path, description: dict[str, Any]
    ) -> tuple[Num[torch.Tensor, "n ..."], Bool[torch.Tensor, "n N"] | None, Sequence[object]]:
        """New examples for a model that was trained: their inputs, their padding mask, and their names.

        Parameters
        ----------
        path : path
            A file or a folder. A .npz file has the array X, a .csv file one case a row, without labels.
        description : dict
            `DataSet.described()` of the data set that the model was trained on.

        Raises
        ------
        ValueError
            For malformed files, and for a kind of data that is not read from files.
        """
        if path.suffix not in SUFFIXES or not path.exists():
            return self.read_files(path, description)
        X = read_examples(path)
        try:
            return *self.new_arrays(X, description), range(len(X))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def read_files(
        self, path: Path, description: dict[str, Any]
    ) -> tuple[Num[torch.Tensor, "n ..."], Bool[torch.Tensor, "n N"] | None, Sequence[object]]:
        """New examples that are not in a file of arrays; see `read`."""
        raise ValueError(f"{path}: expected a run on time series or images; one on {self.name} reads no files")

    def from_arrays(self, X: Any, labels: Sequence, X_test: Any, test_labels: Sequence, say: Say) -> DataSet:
        """The data set of examples in arrays; for shapes see `data.arrays`.

        Raises
        ------
        ValueError
            For other shapes, and for a kind of data that is not read from arrays.
        """
        raise ValueError(f"{self.name}: expected a recipe for time series or images, which are read from arrays")

    def new_arrays(
        self, X: Any, description: dict[str, Any]
    ) -> tuple[Num[torch.Tensor, "n ..."], Bool[torch.Tensor, "n N"] | None]:
        """New examples in arrays: their inputs and their padding mask; see `read`."""
        raise ValueError(f"{self.name}: expected a run on time series or images, which are read from arrays")

    def resolve_defaults(self, data: DataSet) -> "Recipe":
        """The recipe with the defaults that depend on the size of the data set."""
        return self

    def model(self, sizes: dict[str, Any], attention: Attention) -> torch.nn.Module:
        """A new model for the `sizes` of a data set and an attention."""
        raise NotImplementedError

    def prepare(
        self, inputs: Num[torch.Tensor, "n ..."], mean: Sequence[float], deviation: Sequence[float]
    ) -> Num[torch.Tensor, "n ..."]:
        """Inputs of a data set as the model takes them, on their device."""
        return inputs

    def augmented(self, batches: Iterable[Split], data: DataSet) -> Iterator[TrainingBatch]:
        """Batches of the training split as the model is trained on them: prepared, and changed at random."""
        for batch in batches:
            yield TrainingBatch(self.prepare(batch.inputs, data.mean, data.deviation), batch.key_mask, batch.labels)

    def some(self, names: Iterable[str]) -> dict[str, Any]:
        """Some fields by their names, as arguments of what takes them."""
        return {name: getattr(self, name) for name in names}

    def primal(self, attention: Attention) -> Heads:
        """The primal of each head. For a built-in name, it has the beta and the scales of the recipe.

        Every BatchNorm has the recipe's beta. If the attention scales some head, the heads have the recipe's scales.
        A Primal or Heads, and what `register_attention` gave a name to, are taken as they are.

        Raises
        ------
        ValueError
            For an unknown name, for so few heads that none of them is scaled, and for Heads of another number.

        Examples
        --------
        >>> [primal.scale for primal in Recipe("mine", num_heads=4, scales="1 2").primal("sh")]
        [1, 1, 2, 2]
        """
        scales = self._scales()
        members = heads(attention, self.num_heads, scales)
        if not is_built_in(attention):
            return members
        is_scaled = any(member.scale > 1 for member in members_of(attention))
        if is_scaled and max(member.scale for member in members) == 1 < max(scales):
            expected = f"expected a head with a scale above 1 of {self.scales!r}"
            raise ValueError(f"num_heads: {expected}; got {len(members)}")
        return Heads(*(replace(member, transform=self._with_beta(member)) for member in members))

    def _with_beta(self, member: Primal) -> tuple[Transform, ...]:
        convolutions, others = split_convolutions(member.transform)
        parts: tuple[Any, ...] = (*convolutions, *others)
        return tuple(replace(part, beta=self.beta) if isinstance(part, BatchNorm) else part for part in parts)

    def _scales(self) -> list[int]:
        words = self.scales.split()
        if not words or not all(word.isdecimal() and int(word) for word in words):
            raise ValueError(f'scales: expected whole numbers above 0, such as "1 2 4 8"; got {self.scales!r}')
        return [int(word) for word in words]
