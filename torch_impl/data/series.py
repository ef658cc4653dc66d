"""Time series of the UEA archive, and their augmentation.

JapaneseVowels and BasicMotions come with aeon; any other set is a folder NAME of NAME_TRAIN.ts and NAME_TEST.ts.
"""

from pathlib import Path

import numpy as np
import torch

from torch_impl.data.dataset import DataSet, Split, label_indices, one_line

EMBEDDED = ("JapaneseVowels", "BasicMotions")
NUMBERS = frozenset("0123456789+-.e,: \t?nan")  # what the numbers of a case are written with; ? and nan are missing
LARGEST_VALUE = 1e20  # squares and standardised values of larger ones might overflow in float32


def load_series(name, folder=None):
    """A set of the UEA archive -> DataSet: standardised by the training split alone, missing values at its mean.

    name: one of aeon's own, or that of a folder inside `folder`. Series of unequal length are padded at their end to
    the longest of both splits. Raises ValueError for what is missing, empty or malformed, and for labels that the
    training split has not.
    """
    (train, labels), (test, test_labels) = (_read(name, folder, split) for split in ("train", "test"))
    classes, labels, test_labels = label_indices(name, labels, test_labels)
    features, length = train[0].shape[1], max(len(x) for x in train + test)
    for each in train + test:
        _check_features(name, each, features)
    tokens = np.concatenate(train)
    present = ~np.isnan(tokens)
    if not present.any(axis=0).all():
        missing = np.argmin(present.any(axis=0))
        raise ValueError(f"{name}: expected some value of each feature in training; got none of {missing}")
    mean = np.nanmean(tokens, axis=0).tolist()
    constant = np.nanmin(tokens, axis=0) == np.nanmax(tokens, axis=0)  # whose deviation is rounding
    deviation = np.where(constant, 0.0, np.nanstd(tokens, axis=0)).tolist()
    splits = (
        Split(*padded(series, length, mean, deviation), indices)
        for series, indices in ((train, labels), (test, test_labels))
    )
    return DataSet(
        name, *splits, classes, dict(features=features, length=length, classes=len(classes)), mean, deviation
    )


def load_cases(path, data):
    """The cases of a .ts file, standardised as a data set was: inputs, key_mask.

    data: its sizes, mean and deviation. Raises ValueError for other features and for series that are longer.
    """
    series, _ = _read_file(Path(path))
    for each in series:
        _check_features(path, each, data["sizes"]["features"])
    longest, length = max(map(len, series)), data["sizes"]["length"]
    if longest > length:
        raise ValueError(f"{path}: expected at most {length} time steps, as in training; got {longest}")
    return padded(series, length, data["mean"], data["deviation"])


def padded(series, length, mean, deviation):
    """Cases (n_i, features) -> inputs (n, length, features) and key_mask (n, length), or None if none is shorter."""
    inputs = np.zeros((len(series), length, len(mean)), np.float32)
    key_mask = np.arange(length) < np.array([len(each) for each in series])[:, None]
    for x, each in zip(inputs, series, strict=True):
        x[: len(each)] = np.nan_to_num((each - mean) / np.where(np.array(deviation) > 0, deviation, 1))
    return torch.tensor(inputs), None if key_mask.all() else torch.tensor(key_mask)


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
        valid = torch.arange(N, device=series.device) < length[:, None]
        moved = (speed * valid).cumsum(-1)
        moved = (moved - moved[:, :1]) / (moved[:, -1:] - moved[:, :1]).clamp_min(1e-6)
        position = (moved * (length[:, None] - 1)).clamp(0, N - 1)
        left = position.floor().long().clamp_max(max(N - 2, 0))
        right, share = (left + 1).clamp_max(N - 1), (position - left)[..., None]
        a, b = (series.gather(1, i[..., None].expand(-1, -1, features)) for i in (left, right))
        series = (a + share * (b - a)) * valid[..., None]
    if scale:
        series = series * (scale * torch.randn(n, 1, features, device=series.device)).exp()
    if jitter:
        series = series + jitter * torch.randn_like(series)
    return series


def _read(name, folder, split):
    """Cases (n_i, features) in float64 and their labels."""
    path = None if folder is None else Path(folder) / name / f"{name}_{split.upper()}.ts"
    if path is not None and (path.exists() or name not in EMBEDDED):
        return _read_file(path)
    if name not in EMBEDDED:
        raise ValueError(f"{name}: expected a folder of the archive with --data, or one of {', '.join(EMBEDDED)}")
    datasets = _aeon()
    load = datasets.load_japanese_vowels if name == "JapaneseVowels" else datasets.load_basic_motions
    return _cases(name, *load(split=split))


def _read_file(path):
    if not path.is_file():
        raise ValueError(f"{path}: no such file; expected NAME/NAME_TRAIN.ts and NAME/NAME_TEST.ts under --data")
    try:
        encoding, labels = "utf-8-sig", _labels(path, "utf-8-sig")
    except UnicodeDecodeError:
        encoding, labels = "latin-1", _labels(path, "latin-1")  # decodes anything
    load = _aeon().load_from_ts_file
    try:
        series, _ = load(str(path), encoding=encoding)
    except Exception as error:  # the reader raises what its parsing happens to: any of it is a malformed file
        raise ValueError(f"{path}: expected a .ts file of the UEA archive; got {one_line(error)}") from error
    return _cases(path, series, labels)


def _labels(path, encoding):
    """The label of each case of a .ts file, in lower case, or "?" where its header says that there are none.

    Raises ValueError for what aeon's reader would take for something else: cases before @data, no @classLabel (it
    would take the last feature for labels), time stamps (it drops their signs), targets of a regression, numbers such
    as 1_0 or inf, and labels that the header does not name.
    """
    header, labels = {}, []
    with open(path, encoding=encoding) as file:
        lines = enumerate((line.strip().lower() for line in file), 1)
        for number, line in lines:
            if line == "@data":
                break
            tag, *words = line.split() or "#"
            if tag[0] == "@":
                header[tag] = words
            elif header and tag[0] != "#":  # above the first tag a description may stand
                raise ValueError(f"{path}: expected tags up to @data; got {_ends(line)!r} in line {number}")
        if "true" in header.get("@timestamps", []) + header.get("@targetlabel", []):
            raise ValueError(f"{path}: expected @timeStamps false and no @targetLabel; got true")
        if not header.get("@classlabel"):
            raise ValueError(f"{path}: expected @classLabel true and the classes, or @classLabel false; got none")
        labelled, *classes = header["@classlabel"]
        for number, line in lines:
            values, _, label = line.rpartition(":") if labelled == "true" else (line, ":", "?")
            label = label.strip()
            if not set(values) <= NUMBERS or (labelled == "true" and label not in classes):
                raise ValueError(
                    f"{path}: expected a .ts file of numbers, and a label that its header names; "
                    f"got {_ends(line)!r} in line {number}"
                )
            labels.append(label)
    return labels


def _cases(source, series, labels):
    series = [np.asarray(x, float).T for x in series]
    if not series or min(x.size for x in series) == 0:
        raise ValueError(f"{source}: expected cases with one time step or more; got none or an empty one")
    largest = max(np.abs(x).max(initial=0, where=~np.isnan(x)) for x in series)
    if largest > LARGEST_VALUE:
        raise ValueError(f"{source}: expected numbers of at most {LARGEST_VALUE:g} in size; got {largest:g}")
    return series, [str(label) for label in labels]


def _check_features(source, case, features):
    if case.shape[1] != features:
        raise ValueError(f"{source}: expected {features} features in each case; got {case.shape[1]}")


def _aeon():
    try:
        from aeon import datasets
    except ImportError as error:
        raise ValueError("time series need aeon: pip install 'primal-dual-attention[data]'") from error
    return datasets


def _ends(line):
    return line if len(line) <= 50 else f"{line[:25]} ... {line[-20:]}"
