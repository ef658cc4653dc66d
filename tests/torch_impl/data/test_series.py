"""Sets of time series from files, and their folds."""

import numpy as np
import pytest
import torch
from rich.progress import Progress

from primal_dual.io.datasets import japanese_vowels
from tests.torch_impl.training.short_runs import write_set
from torch_impl.analysis.accuracy_table import table
from torch_impl.data.dataset import folds
from torch_impl.data.series import load_series
from torch_impl.training.recipes.benchmarks import recipe
from torch_impl.training.runs.schedule import Schedule, train_all
from torch_impl.training.runs.trainer import train


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_a_set_from_files(tmp_path, encoding):
    """Standardised by the training split alone; missing values at the mean; unequal lengths padded."""
    data = load_series("Own", write_set(tmp_path, test=["4,4,4,4:0,0,0,0:b"], encoding=encoding))
    tokens = np.array([[1, 4], [2, 5], [3, 6], [3, 1], [2, 0], [0, 2], [np.nan, 2], [5, 2], [9, 7], [8, 6]])
    mean, deviation = np.nanmean(tokens, 0), np.nanstd(tokens, 0)
    series, key_mask, labels = data.train
    np.testing.assert_allclose(series[0, :3], (tokens[:3] - mean) / deviation, rtol=1e-6)
    assert series[2, 1, 0] == 0 and key_mask.sum(1).tolist() == [3, 2, 3, 2] and labels.tolist() == [0, 1, 0, 1]
    assert (series[~key_mask] == 0).all() and data.sizes == dict(features=2, length=4, classes=2)
    np.testing.assert_allclose(data.test.inputs[0], np.tile((np.array([4, 0]) - mean) / deviation, (4, 1)), rtol=1e-6)


def test_sets_that_need_no_download_need_no_home(monkeypatch):
    monkeypatch.setenv("HOME", "/proc/none")
    monkeypatch.delenv("AEON_DATA", raising=False)
    assert len(load_series("BasicMotions").train) == 40 and len(japanese_vowels()[0]) == 25


def test_a_feature_that_is_constant_in_training_is_zero(tmp_path):
    """0.1 has a mean and a deviation that are not quite 0.1 and 0."""
    train = [f"0.1,0.1,0.1:{i},2,3:{'ab'[i % 2]}" for i in range(7)]
    data = load_series("Own", write_set(tmp_path, train=train, test=["0.3,0.1,0.1:1,2,3:a"]))
    assert data.deviation[0] == 0 and not data.train.inputs[..., 0].any()
    assert not data.test.inputs[..., 0].any() and data.test.inputs[..., 1].any()


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(test=["1,2:3,4:c"]), "Own"),
        (dict(train=[]), "Own_TRAIN.ts"),
        (
            dict(train=["1,2:3,4:a", "5,6:7:b"]),
            "got channels or cases of different lengths; for those of cases, the header needs @equalLength false",
        ),
        (dict(train=["1,2:3,4:a", "5,6:7,8:a"], test=["1,2:3,4:a"]), "expected two classes or more; got a"),
        (dict(train=["1,2:3,4:a", "5,6:7,8:b"], test=["1,2:a"]), "Own"),
        (dict(train=["1,x:3,4:a", "5,6:7,8:b"]), "Own_TRAIN.ts: expected a .ts file"),
        (dict(train=["?,?:3,4:a", "?,?:7,8:b"]), "some value of each feature in training; got none of 0"),
        (dict(train=["1,2:3,4:a", "5,6:7,8:b"], test=["1,2:3,4:a", "1,2:3,4"]), "Own_TEST.ts"),
    ],
)
def test_bad_files(tmp_path, options, message):
    with pytest.raises(ValueError, match=message) as error:
        load_series("Own", write_set(tmp_path, **options))
    assert "\n" not in str(error.value)


def test_missing_sets(tmp_path):
    for name, folder, message in (
        ("Own", tmp_path, r"Own: expected Own.npz, .*Own_TRAIN.ts.*images in train.*; got none of them in "),
        ("Own.npz", tmp_path, "Own.npz: expected the name of a data set, without the suffix of its files"),
        ("Own", tmp_path / "none", "none: expected --data, the folder of data sets; got no such folder"),
    ):
        with pytest.raises(ValueError, match=message):
            load_series(name, folder)
    with pytest.raises(ValueError, match="expected --data, the folder with its files, or one of JapaneseVowels"):
        load_series("Own")


def test_folds_are_stratified_and_inside_the_training_split(motions):
    seen = []
    for fold in folds(motions, 4):
        assert len(fold.train) + len(fold.test) == len(motions.train)
        assert fold.test.labels.bincount().tolist() == pytest.approx([2.5] * 4, abs=0.6)
        seen += [case.sum().item() for case in fold.test.inputs]
    assert sorted(seen) == sorted(case.sum().item() for case in motions.train.inputs)


def test_folds_take_the_place_of_the_test_split(tmp_path, motions):
    """Seed s is tested on fold s mod k."""
    options = dict(epochs=2, layers=1, width=16, num_heads=4, folds=2)
    summaries = train_all("BasicMotions", ["sh"], 3, None, tmp_path, options, Progress(disable=True), Schedule(1))
    for seed, fold in zip((0, 1, 2), [*folds(motions, 2)] * 2, strict=False):
        alone = train(recipe("BasicMotions", **options), "sh", seed, fold, tmp_path / "alone")
        assert all(alone[name] == summaries[seed][name] for name in ("fingerprint", "weights_sha256", "test_accuracy"))
    assert table(summaries)[0]["recipe"] == "BasicMotions, 2 folds"
    with pytest.raises(ValueError, match="folds: expected 2 to 10, the cases of the largest class; got 11"):
        next(folds(motions, 11))


def test_folds_of_small_classes(motions):
    """A class of two cases is in the training part of each of three folds."""
    order = motions.train.labels.argsort(stable=True)
    small = motions._replace(train=motions.train.take(order[8:]))
    assert small.train.labels.bincount().tolist() == [2, 10, 10, 10]
    parts = list(folds(small, 3))
    assert all(len(part.train.labels.unique()) == 4 for part in parts) and sum(len(p.test) for p in parts) == 32
    with pytest.raises(ValueError, match="two cases or more of each class; got one of"):
        next(folds(motions._replace(train=motions.train.take(order[9:])), 3))


def test_classes_that_differ_by_upper_case_alone_are_refused(tmp_path):
    write_set(tmp_path)
    file = tmp_path / "Own" / "Own_TRAIN.ts"
    text = file.read_text()
    file.write_text(text.replace("true a b", "true a A b b"))
    with pytest.raises(ValueError, match=r"expected classes that differ in lower case, too; got a, A, b"):
        load_series("Own", tmp_path)
    file.write_text(text.replace("true a b", "true A b b").replace("@classLabel", "@CLASSlabel"))
    assert load_series("Own", tmp_path).classes == ("a", "b")


@pytest.mark.parametrize(
    "name, got", [("none.npz", "no such file"), ("none", "no such file"), (".", "a folder"), ("x.npy", ".npy")]
)
def test_new_series_in_no_file_of_series(tmp_path, name, got):
    np.save(tmp_path / "x.npy", np.zeros((3, 4)))
    message = rf"expected series in a .ts file, a .npz file with X, or a .csv file; got {got}"
    with pytest.raises(ValueError, match=message):
        recipe("mine").read(tmp_path / name, {})


@pytest.mark.parametrize("missing", ["TRAIN", "TEST"])
def test_a_split_of_ones_own_is_not_mixed_with_one_of_aeon(tmp_path, missing):
    write_set(tmp_path, "BasicMotions")
    (tmp_path / "BasicMotions" / f"BasicMotions_{missing}.ts").unlink()
    with pytest.raises(ValueError, match=f"BasicMotions_{missing}.ts: no such file; expected NAME/NAME_TRAIN.ts and"):
        load_series("BasicMotions", tmp_path)
    assert len(load_series("BasicMotions", tmp_path / "none").train) == 40


def test_noise_is_the_same_in_every_run_and_in_both_splits():
    clear, noise = recipe("BasicMotions").load(None, print), recipe("BasicMotions", noise=0.7)
    data, again = noise.load(None, print), noise.load(None, print)
    assert data.fingerprint() == again.fingerprint() != clear.fingerprint()
    changes = [getattr(data, split).inputs - getattr(clear, split).inputs for split in ("train", "test")]
    for change in changes:
        assert change.std() == pytest.approx(0.7, rel=0.02) and abs(change.mean()) < 0.02
    assert not torch.equal(*changes)
    X, y = [np.ones((2, 5)), np.ones((2, 4))], ["a", "b"]
    own = recipe("own", noise=0.7).from_arrays(X, y, X, y, print)
    assert (own.test.inputs[own.test.key_mask] != 0).all() and not own.test.inputs[~own.test.key_mask].any()
