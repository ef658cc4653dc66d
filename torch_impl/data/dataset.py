"""Data sets as tensors: a training split and a test split of any kind of input; and folds of the training split."""

import hashlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch.utils.data import DataLoader

from primal_dual.types import Bool, Int, Num
from torch_impl.data.messages import first_names


@runtime_checkable
class Examples(Protocol):
    """What the training or test split of a data set offers, in memory (`Split`) or on disk (`images.ImageStream`)."""

    @property
    def labels(self) -> Int[torch.Tensor, " n"]:
        """The index of each example's class."""
        ...

    def __len__(self) -> int:
        """The number of examples, n."""
        ...

    def take(self, index: Int[torch.Tensor, " m"]) -> "Split":
        """The examples of an index, in memory."""
        ...

    def subset(self, index: Int[torch.Tensor, " m"]) -> "Examples":
        """The examples of an index, where they are: those of a split on disk stay there."""
        ...

    def digest(self) -> bytes:
        """A hash that tells these examples apart from others."""
        ...


class Split(NamedTuple):
    """Examples in memory.

    Parameters
    ----------
    inputs : tensor, (n, ...)
        One example a row.
    key_mask : tensor of booleans, (n, N), or None
        The padding mask: True for a token, False for padding. None if no example is padded.
    labels : tensor of integers, (n,)
        The index of each example's class.

    Examples
    --------
    >>> split = Split(torch.zeros(3, 4, 2), None, torch.tensor([0, 1, 1]))
    >>> len(split), split.take(torch.tensor([2])).inputs.shape
    (3, torch.Size([1, 4, 2]))
    """

    inputs: Num[torch.Tensor, "n ..."]
    key_mask: Bool[torch.Tensor, "n N"] | None
    labels: Int[torch.Tensor, " n"]

    def __len__(self) -> int:
        """The number of examples, n."""
        return len(self.labels)

    def take(self, index: Int[torch.Tensor, " m"]) -> "Split":
        """The examples of an index."""
        key_mask = None if self.key_mask is None else self.key_mask[index]
        return Split(self.inputs[index], key_mask, self.labels[index])

    def subset(self, index: Int[torch.Tensor, " m"]) -> "Split":
        """The same as `take`: what is in memory stays there."""
        return self.take(index)

    def digest(self) -> bytes:
        """The SHA-256 of inputs, padding mask and labels, with their types and shapes."""
        sha = hashlib.sha256()
        for x in self:
            if x is not None:
                sha.update(f"{x.dtype} {tuple(x.shape)}".encode())
                sha.update(x.contiguous().numpy().data)
        return sha.digest()

    def to(self, device: torch.device | str) -> "Split":
        """The same examples on another device."""
        key_mask = None if self.key_mask is None else self.key_mask.to(device, non_blocking=True)
        return Split(self.inputs.to(device, non_blocking=True), key_mask, self.labels.to(device, non_blocking=True))


class DataSet(NamedTuple):
    """A data set for classification.

    Parameters
    ----------
    name : str
        Its name, which is that of the folder of its runs.
    train, test : Split or ImageStream
        Its examples.
    classes : tuple
        The names of the classes, sorted.
    sizes : dict
        The sizes that a model needs to know, such as the number of features: arguments of the model by name.
    mean, deviation : list of float
        The mean and the standard deviation of each feature in the training split, by which inputs are standardised;
        empty where inputs are whole numbers.
    """

    name: str
    train: Examples
    test: Examples
    classes: Sequence
    sizes: dict
    mean: list
    deviation: list

    def described(self) -> dict[str, Any]:
        """What a trained model must know about its data set, as a dictionary for JSON."""
        return {"classes": list(self.classes), "sizes": self.sizes, "mean": self.mean, "deviation": self.deviation}

    def fingerprint(self) -> str:
        """What tells this data apart from other data of the same name: the sizes of its splits, and a hash of both.

        Examples
        --------
        >>> split = Split(torch.zeros(3, 4, 2), None, torch.tensor([0, 1, 1]))
        >>> DataSet("mine", split, split, ("a", "b"), {}, [], []).fingerprint()
        '3 + 3 examples, SHA-256 dad5f4d251c406e6'
        """
        sha = hashlib.sha256(self.train.digest() + self.test.digest()).hexdigest()
        return f"{len(self.train)} + {len(self.test)} examples, SHA-256 {sha[:16]}"


def batches(
    split: Examples, indices: Sequence[Int[torch.Tensor, " _"]], device: torch.device, workers: int = 0
) -> Iterator[Split]:
    """The examples of each of several indices, one batch after the other.

    Parameters
    ----------
    split : Split or ImageStream
        Where the examples are taken from.
    indices : sequence of tensors
        One index a batch.
    device : torch.device
        Where the batches are needed.
    workers : int
        How many processes read the batches of a split that is not in memory.

    Yields
    ------
    Split
        A batch, on the device.

    Examples
    --------
    >>> split = Split(torch.arange(5.0), None, torch.zeros(5, dtype=torch.int64))
    >>> [batch.inputs.tolist() for batch in batches(split, torch.arange(5).split(3), torch.device("cpu"))]
    [[0.0, 1.0, 2.0], [3.0, 4.0]]
    """
    if isinstance(split, Split):
        yield from (split.take(index).to(device) for index in indices)
        return
    options: dict[str, Any] = dict(batch_size=None, num_workers=workers, pin_memory=device.type == "cuda")
    for batch in DataLoader(split, sampler=indices, **options):  # type: ignore[arg-type]
        yield batch.to(device)


def folds(data: DataSet, count: int) -> Iterator[DataSet]:
    """Split the training split into folds, stratified by class, to tune a recipe without the test split.

    The division is random, but always the same.

    Parameters
    ----------
    data : DataSet
        Whose training split is divided. Its test split is not used.
    count : int
        The number of folds. A class with fewer examples than folds is missing in some of them.

    Yields
    ------
    DataSet
        One a fold: `test` is the fold, `train` the rest of the training split.

    Raises
    ------
    ValueError
        For fewer than two folds, for more folds than the largest class has examples, and for a class of one example,
        which some fold would leave without an example to train on.
    """
    from sklearn.model_selection import StratifiedKFold

    sizes = data.train.labels.bincount().tolist()
    if not 2 <= count <= max(sizes):
        raise ValueError(f"folds: expected 2 to {max(sizes)}, the cases of the largest class; got {count}")
    if min(sizes) < 2:
        raise ValueError(f"folds: expected two cases or more of each class; got one of {data.classes[sizes.index(1)]}")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class")
        splitter = StratifiedKFold(count, shuffle=True, random_state=0)
        parts = list(splitter.split(data.train.labels, data.train.labels))
    for train, fold in parts:
        yield data._replace(train=data.train.subset(torch.tensor(train)), test=data.train.subset(torch.tensor(fold)))


def label_indices(
    name: str, labels: Sequence, test_labels: Sequence
) -> tuple[tuple, Int[torch.Tensor, " n"], Int[torch.Tensor, " n_test"]]:
    """The classes of a data set, and its labels as indices into them.

    Parameters
    ----------
    name : str
        Of the data set, for messages.
    labels, test_labels : sequence
        The label of each example of the training and the test split; labels can be sorted.

    Returns
    -------
    classes : tuple
        The different labels of the training split, sorted.
    train_index, test_index : tensors of integers, (n,) and (n_test,)
        The position of each label in `classes`.

    Raises
    ------
    ValueError
        For fewer than two classes, and for a test label that does not occur in the training split.

    Examples
    --------
    >>> label_indices("pets", ["dog", "cat", "dog"], ["cat"])
    (('cat', 'dog'), tensor([1, 0, 1]), tensor([0]))
    """
    classes = tuple(sorted(set(labels)))
    unseen = sorted(set(test_labels) - set(classes))
    if unseen:
        expected = f"expected the labels of the training split, {first_names(classes)}"
        raise ValueError(f"{name}: {expected}; got {first_names(unseen)} in test")
    if len(classes) < 2:
        raise ValueError(f"{name}: expected two classes or more; got {first_names(classes)}")
    position = {label: i for i, label in enumerate(classes)}
    train_index = torch.tensor([position[label] for label in labels])
    test_index = torch.tensor([position[label] for label in test_labels])
    return classes, train_index, test_index
