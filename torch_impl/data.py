"""Time series of the UEA archive as tensors, and their augmentation.

JapaneseVowels and BasicMotions come with aeon; any other set is a folder NAME of NAME_TRAIN.ts and NAME_TEST.ts.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

EMBEDDED = ("JapaneseVowels", "BasicMotions")


class Split(NamedTuple):
    """series (n, N, features), key_mask (n, N), True = a real token, or None where all are; labels (n,)."""

    series: torch.Tensor
    key_mask: torch.Tensor | None
    labels: torch.Tensor

    def __len__(self):
        return len(self.labels)

    def take(self, index):
        """The cases of an index."""
        return Split(*(None if x is None else x[index] for x in self))


class Series(NamedTuple):
    """A data set: train, test, and the names of the classes."""

    name: str
    train: Split
    test: Split
    classes: tuple

    @property
    def sizes(self):
        """What a model needs to know: features, length, classes."""
        return dict(features=self.train.series.shape[2], length=self.train.series.shape[1], classes=len(self.classes))


def load_series(name, folder=None):
    """A set of the UEA archive -> Series: standardised by the training split alone, missing values at its mean.

    name: one of aeon's own, or that of a folder inside `folder`. Series of unequal length are padded at their end to
    the longest of both splits. Raises ValueError for what is missing, empty or malformed, and for labels that the
    training split has not.
    """
    splits = [_read(name, folder, split) for split in ("train", "test")]
    (train, labels), (_, test_labels) = splits
    classes = tuple(sorted(set(labels)))
    unseen = sorted(set(test_labels) - set(classes))
    if unseen:
        raise ValueError(
            f"{name}: expected the labels of the training split, {_few(classes)}; got {_few(unseen)} in test"
        )
    if len(classes) < 2:
        raise ValueError(f"{name}: expected two classes or more; got {_few(classes)}")
    tokens = np.concatenate(train)
    present = ~np.isnan(tokens)
    mean = np.where(present, tokens, 0).sum(axis=0) / present.sum(axis=0).clip(1)
    deviation = np.sqrt((np.where(present, tokens - mean, 0) ** 2).sum(axis=0) / present.sum(axis=0).clip(1))
    if not present.any(axis=0).all():
        raise ValueError(
            f"{name}: expected some value of each feature in training; got none of {np.argmin(present.any(axis=0))}"
        )
    features, length = len(mean), max(len(x) for series, _ in splits for x in series)

    def split(series, labels):
        x, key_mask = np.zeros((len(series), length, features), np.float32), np.zeros((len(series), length), bool)
        for i, each in enumerate(series):
            if each.shape[1] != features:
                raise ValueError(f"{name}: expected {features} features in each case; got {each.shape[1]}")
            x[i, : len(each)] = np.nan_to_num((each - mean) / np.where(deviation > 0, deviation, 1))
            key_mask[i, : len(each)] = True
        labels = torch.tensor([classes.index(label) for label in labels])
        return Split(torch.tensor(x), None if key_mask.all() else torch.tensor(key_mask), labels)

    return Series(name, *(split(*each) for each in splits), classes)


def folds(data, count, seed=0):
    """`count` pairs of training and validation splits inside the training split, stratified."""
    generator = np.random.default_rng(seed)
    fold = np.zeros(len(data.train), int)
    labels = data.train.labels.numpy()
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        fold[members] = (np.arange(len(members)) + generator.integers(count)) % count
    for i in range(count):
        train, validation = (torch.tensor(np.flatnonzero(chosen)) for chosen in (fold != i, fold == i))
        yield data._replace(train=data.train.take(train), test=data.train.take(validation))


def augment(series, key_mask, *, warp=0.0, scale=0.0, jitter=0.0, knots=5):
    """Random smooth time warping, scaling of each feature, and noise, on the series' device.

    warp: the logarithm of the speed at `knots` points in time is warp N(0, 1); the series keeps its length. scale and
    jitter: deviations of a factor exp(scale N(0, 1)) for each feature and of N(0, jitter^2) for each value.
    """
    n, N, features = series.shape
    if warp:
        length = torch.full((n,), N, device=series.device) if key_mask is None else key_mask.sum(-1)
        speed = (warp * torch.randn(n, 1, knots, device=series.device)).exp()
        speed = torch.nn.functional.interpolate(speed, N, mode="linear", align_corners=True)[:, 0]
        real = torch.arange(N, device=series.device) < length[:, None]
        moved = (speed * real).cumsum(-1)
        moved = (moved - moved[:, :1]) / (moved[:, -1:] - moved[:, :1]).clamp_min(1e-6)
        position = (moved * (length[:, None] - 1)).clamp(0, N - 1)
        left = position.floor().long().clamp_max(max(N - 2, 0))
        right, share = (left + 1).clamp_max(N - 1), (position - left)[..., None]
        a, b = (series.gather(1, i[..., None].expand(-1, -1, features)) for i in (left, right))
        series = (a + share * (b - a)) * real[..., None]
    if scale:
        series = series * (scale * torch.randn(n, 1, features, device=series.device)).exp()
    if jitter:
        series = series + jitter * torch.randn_like(series)
    return series


def _read(name, folder, split):
    """Cases (n_i, features) in float64 and their labels."""
    try:
        from aeon import datasets
    except ImportError as error:
        raise ValueError("time series need aeon: pip install 'primal-dual-attention[data]'") from error
    path = None if folder is None else Path(folder) / name / f"{name}_{split.upper()}.ts"
    if path is None or (not path.exists() and name in EMBEDDED):
        if name not in EMBEDDED:
            raise ValueError(f"{name}: expected a folder of the archive with --data, or one of {', '.join(EMBEDDED)}")
        load = datasets.load_japanese_vowels if name == "JapaneseVowels" else datasets.load_basic_motions
        series, labels = load(split=split)
    else:
        series, labels = _read_file(datasets.load_from_ts_file, path)
    series = [np.asarray(x, float).T for x in series]
    if not series or min(len(x) for x in series) == 0:
        raise ValueError(f"{path or name}: expected cases with one time step or more; got none or an empty one")
    return series, [str(label) for label in labels]


def _read_file(load, path):
    if not path.exists():
        raise ValueError(f"{path}: no such file; expected NAME/NAME_TRAIN.ts and NAME/NAME_TEST.ts under --data")
    for encoding in ("utf-8", "latin-1"):  # comments may be in either
        try:
            return load(str(path), encoding=encoding)
        except UnicodeDecodeError:
            continue
        except Exception as error:  # the reader raises what its parsing happens to: any of it is a malformed file
            raise ValueError(f"{path}: expected a .ts file of the UEA archive; got {_one_line(error)}") from error
    raise AssertionError("latin-1 decodes anything")


def _one_line(error):
    return " ".join(str(error).split())[:200] or type(error).__name__


def _few(names):
    return ", ".join(map(str, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
