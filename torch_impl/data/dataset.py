"""Data sets as tensors: a training and a test split, whatever the inputs are; folds inside the training split."""

import warnings
from typing import NamedTuple

import torch
from torch.utils.data import DataLoader


class Split(NamedTuple):
    """inputs (n, ...); key_mask (n, N), True = a real token, or None where all are; labels (n,)."""

    inputs: torch.Tensor
    key_mask: torch.Tensor | None
    labels: torch.Tensor

    def __len__(self):
        return len(self.labels)

    def take(self, index):
        """The cases of an index."""
        return Split(*(None if x is None else x[index] for x in self))

    subset = take  # of a split on disk it is one on disk

    def to(self, device):
        """The same on a device."""
        return Split(*(None if x is None else x.to(device, non_blocking=True) for x in self))


class DataSet(NamedTuple):
    """train and test; the names of the classes; sizes: what a model needs to know; mean and deviation of the training
    split, by which inputs are standardised, lists with a number a feature."""

    name: str
    train: Split
    test: Split
    classes: tuple
    sizes: dict
    mean: list
    deviation: list

    def described(self):
        """What a trained model must know of it, for JSON."""
        return {"classes": list(self.classes), "sizes": self.sizes, "mean": self.mean, "deviation": self.deviation}


def batches(split, parts, device, workers=0):
    """The cases of each of `parts`, a list of indices, on a device. workers: processes that read, where a split is not
    in memory but has a take(index) of its own."""
    if isinstance(split, Split):
        yield from (split.take(index).to(device) for index in parts)
        return
    options = dict(batch_size=None, num_workers=workers, pin_memory=device.type == "cuda")
    for part in DataLoader(split, sampler=parts, **options):
        yield part.to(device)


def folds(data, count, seed=0):
    """`count` data sets inside the training split, stratified: test is the fold, train the others.

    A class of fewer cases than folds is missing in some tests. Raises ValueError for fewer than two folds, more than
    the cases of the largest class, and a class of one case, of which a fold would leave none to train on.
    """
    from sklearn.model_selection import StratifiedKFold

    sizes = data.train.labels.bincount().tolist()
    if not 2 <= count <= max(sizes):
        raise ValueError(f"folds: expected 2 to {max(sizes)}, the cases of the largest class; got {count}")
    if min(sizes) < 2:
        raise ValueError(f"folds: expected two cases or more of each class; got one of {data.classes[sizes.index(1)]}")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class")
        kept_apart = StratifiedKFold(count, shuffle=True, random_state=seed)
        parts = list(kept_apart.split(data.train.labels, data.train.labels))
    for train, fold in parts:
        yield data._replace(train=data.train.subset(torch.tensor(train)), test=data.train.subset(torch.tensor(fold)))


def label_indices(name, labels, test_labels):
    """Names of labels -> the classes, sorted, and the index of each label among them, for both splits.

    Raises ValueError for fewer than two classes and for labels that the training split has not.
    """
    classes = tuple(sorted(set(labels)))
    unseen = sorted(set(test_labels) - set(classes))
    if unseen:
        raise ValueError(
            f"{name}: expected the labels of the training split, {few(classes)}; got {few(unseen)} in test"
        )
    if len(classes) < 2:
        raise ValueError(f"{name}: expected two classes or more; got {few(classes)}")
    index = {label: i for i, label in enumerate(classes)}
    return classes, *(torch.tensor([index[label] for label in each]) for each in (labels, test_labels))


def silent(line):
    """Say nothing."""


def one_line(error):
    """What an error says, in one line that is not long; its type if it says nothing."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def few(names):
    """The first five names, for a message."""
    return ", ".join(map(str, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
