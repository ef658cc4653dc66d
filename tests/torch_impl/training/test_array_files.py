"""Data sets in files of arrays, .npz and .csv: trained, evaluated and predicted on from the command line."""

import json

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from typer.testing import CliRunner

from primal_dual.cli.commands import app
from tests.torch_impl.training.short_runs import write_set
from torch_impl.data.array_files import read_examples, read_labelled_csv
from torch_impl.data.series import load_series
from torch_impl.training.recipes.benchmarks import recipe
from torch_impl.training.trained.finished_run import load_run, predict

SMALL = ["--epochs", 2, "--width", 16, "--layers", 1, "--seeds", 1, "--attention", "bn+sh"]


def call(*words):
    done = CliRunner().invoke(app, list(map(str, words)))
    return done.exit_code, " ".join(done.output.split())


def quiet(message):
    """Say nothing."""


def test_the_same_data_set_gives_the_same_run(tmp_path):
    """Series of BasicMotions from a .npz file, beside those that come with aeon; and back from the file of results."""
    from aeon.datasets import load_basic_motions

    (X, y), (X_test, y_test) = load_basic_motions(split="train"), load_basic_motions(split="test")
    np.savez(tmp_path / "BasicMotions.npz", X_train=X, y_train=y, X_test=X_test, y_test=y_test)
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    assert call("train", "BasicMotions", *SMALL, "--folder", theirs)[0] == 0
    assert call("train", "BasicMotions", *SMALL, "--folder", ours, "--data", tmp_path)[0] == 0
    run = "BasicMotions/bn+sh/0"
    weights, others = (load_run(folder / run).model.state_dict() for folder in (ours, theirs))
    assert all(torch.equal(weights[name], others[name]) for name in others)
    status, output = call("evaluate", ours / run, "--data", tmp_path)
    accuracy = json.loads((theirs / run / "result.json").read_text())["test_accuracy"]
    assert status == 0 and output == f"test accuracy {100 * accuracy:.1f} on 40 cases"
    np.savez(tmp_path / "new.npz", X=X_test)
    probabilities, classes, names = predict(ours / run, tmp_path / "new.npz")
    right = [classes[best] for best in probabilities.argmax(-1)] == y_test
    assert right.mean() == accuracy and list(names) == list(range(40))
    status, output = call("predict", ours / run, tmp_path / "new.npz", "--json", tmp_path / "p.json")
    assert status == 0 and json.loads((tmp_path / "p.json").read_text())["probabilities"] == probabilities.tolist()


def test_images(tmp_path):
    digits = load_digits()
    images, y = digits.images[..., None], digits.target
    arrays = dict(X_train=images[:60], y_train=y[:60], X_test=images[60:90], y_test=y[60:90])
    np.savez_compressed(tmp_path / "mine.npz", **arrays)
    data = recipe("mine", tmp_path).load(tmp_path, quiet)
    assert data.name == "mine" and data.sizes == dict(channels=1, size=8, classes=10)
    assert data.classes == tuple("0123456789") and data.test.labels.tolist() == y[60:90].tolist()
    assert torch.equal(data.test.inputs[:, 0], torch.tensor(images[60:90, ..., 0]))
    status, output = call("train", "mine", *SMALL, "--num-heads", 4, "--data", tmp_path, "--folder", tmp_path / "runs")
    assert status == 0, output
    np.savez(tmp_path / "new.npz", X=images[90:95].astype(np.uint8))
    assert predict(tmp_path / "runs" / "mine" / "bn+sh" / "0", tmp_path / "new.npz")[0].shape == (5, 10)


def test_univariate_series_and_what_takes_precedence(tmp_path):
    write_set(tmp_path)
    X = np.arange(12.0).reshape(3, 4)
    np.savez(tmp_path / "Own.npz", X_train=X, y_train=["a", "b", "a"], X_test=X[:1, :3], y_test=["b"])
    data = recipe("Own", tmp_path).load(tmp_path, quiet)
    assert data.sizes == dict(features=1, length=4, classes=2) and len(data.test) == 1
    mean, deviation = X.mean(), X.std()
    np.testing.assert_allclose(data.train.inputs[..., 0], (X - mean) / deviation, rtol=1e-6)
    assert data.test.key_mask.tolist() == [[True, True, True, False]]
    (tmp_path / "Own.npz").unlink()
    assert len(recipe("Own", tmp_path).load(tmp_path, quiet).test) == len(load_series("Own", tmp_path).test) == 4


X, y = np.zeros((3, 2, 5)), ["a", "b", "a"]
GOOD = dict(X_train=X, y_train=y, X_test=X, y_test=y)
OBJECTS = np.array([X, None], object)
BAD = {
    "an array that is missing": (
        dict(X_train=X, y=y),
        "expected a .npz file with X_train, y_train, X_test, y_test; got X_train, y",
    ),
    "labels of other examples": (GOOD | dict(y_train=y[:2]), "y_train: expected a label for each of 3 examples; got"),
    "a missing label": (
        GOOD | dict(y_train=[0, np.nan, 1]),
        "y_train: expected a label for each of 3 examples; got 'nan' for example 1",
    ),
    "a missing label among words": (
        GOOD | dict(y_test=["a", np.nan, "b"]),
        "y_test: expected a label for each of 3 examples; got 'nan' for example 1",
    ),
    "targets of a regression": (
        GOOD | dict(y_train=[1.0, 0.25, 2.5]),
        "y_train: expected a label for each of 3 examples; got 0.25, as the targets of a regression are",
    ),
    "an infinite label": (GOOD | dict(y_train=[1.0, np.inf, 2.0]), "got inf, as the targets of a regression are"),
    "an unknown label": (
        GOOD | dict(y_test=[*"abc"]),
        "the labels of the training split, a, b; got c in test",
    ),
    "other channels": (GOOD | dict(X_test=X[:, :1]), "expected 2 features in each case; got 1"),
    "objects": (GOOD | dict(X_train=OBJECTS), "got objects in X_train: series whose lengths differ go into a .ts file"),
    "labels as objects": (GOOD | dict(y_test=np.array(y, object)), "got objects in y_test: save y_test.astype(str)"),
    "grey images without channels": (
        GOOD | dict(X_train=np.zeros((3, 8, 8), np.uint8)),
        "got bytes of shape (8, 8): give grey images as X[..., None], and series of bytes as X.astype(float)",
    ),
    "one number an example": (GOOD | dict(X_train=X[:, 0, 0]), "X: expected time series"),
}


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_file_is_one_line(tmp_path, bad):
    arrays, message = BAD[bad]
    np.savez(tmp_path / "Own.npz", **arrays)
    status, output = call("train", "Own", *SMALL, "--data", tmp_path, "--folder", tmp_path / "runs")
    assert status == 2 and message in output and f"{tmp_path / 'Own.npz'}: " in output, output
    assert not (tmp_path / "runs" / "Own").exists()


def test_no_npz_file_and_other_data_to_predict(tmp_path):
    np.savez(tmp_path / "Own.npz", X_train=a(4, 2, 5), y_train=[0, 1] * 2, X_test=a(2, 2, 5), y_test=[0, 1])
    assert call("train", "Own", *SMALL, "--data", tmp_path, "--folder", tmp_path / "runs")[0] == 0
    run, new = tmp_path / "runs" / "Own" / "bn+sh" / "0", tmp_path / "new.npz"
    for content, message in (
        (dict(X=a(2, 3, 5)), "expected 2 features in each case; got 3"),
        (dict(X=a(2, 2, 6)), "expected at most 5 time steps, as in training; got 6"),
        (dict(x=a(2, 2, 5)), "expected a .npz file with X; got x"),
    ):
        np.savez(new, **content)
        status, output = call("predict", run, new)
        assert status == 2 and f"{new}: " in output and message in output, output
    for content in (b"x", b"PK\x03\x04", new.read_bytes()[:-30]):
        new.write_bytes(content)
        status, output = call("predict", run, new)
        assert status == 2 and "expected a .npz file with X" in output, output
    np.save(tmp_path / "one.npy", X)
    (tmp_path / "one.npy").rename(new)
    assert "got a single array" in call("predict", run, new)[1]
    assert "no such file" in call("predict", run, tmp_path / "none.npz")[1]


def a(*shape):
    return np.random.default_rng(0).standard_normal(shape)


def test_two_files_are_the_same_as_one(tmp_path):
    """Of univariate series: NAME.npz; two .npz; two .csv, with a header, a byte order mark and missing values."""
    X, y = a(9, 5), np.array(["b", "a", "c"] * 3)
    X[2, 1:3] = np.nan
    sets = {name: tmp_path / name for name in ("one", "npz", "csv")}
    for folder in sets.values():
        folder.mkdir()
    np.savez(sets["one"] / "Own.npz", X_train=X[:6], y_train=y[:6], X_test=X[6:], y_test=y[6:])
    for split, part in (("TRAIN", slice(6)), ("TEST", slice(6, 9))):
        np.savez(sets["npz"] / f"Own_{split}.npz", X=X[part], y=y[part])
        cells = [["" if np.isnan(x) else repr(float(x)) for x in row] for row in X[part]]
        rows = [",".join([*row, label]) for row, label in zip(cells, y[part], strict=True)]
        text = "\ufefft1,t2,t3,t4,t5,class\r\n" + "\r\n".join(rows) + "\r\n\r\n"
        (sets["csv"] / f"Own_{split}.csv").write_text(text if split == "TEST" else "\n".join(rows), encoding="utf-8")
    whole, *others = (recipe("Own", folder).load(folder, quiet) for folder in sets.values())
    for other in others:
        for split in ("train", "test"):
            one, two = getattr(whole, split), getattr(other, split)
            assert torch.equal(one.inputs, two.inputs) and torch.equal(one.labels, two.labels)
        assert other.classes == whole.classes == ("a", "b", "c")
    assert call("train", "Own", *SMALL, "--data", sets["csv"], "--folder", tmp_path / "runs")[0] == 0
    run = tmp_path / "runs" / "Own" / "bn+sh" / "0"
    np.savez(tmp_path / "new.npz", X=X[6:])
    (tmp_path / "new.csv").write_text("\n".join(",".join(map(str, row)) for row in X[6:]))
    assert torch.equal(predict(run, tmp_path / "new.npz")[0], predict(run, tmp_path / "new.csv")[0])


@pytest.mark.parametrize(
    "text, message",
    [
        ("1,2,a\n3,b\n", "expected 3 cells in each row; got 2 in row 2"),
        ("1,2,a\n3,x,b\n", "expected numbers; got 'x' in row 2"),
        ("t,u,class\n1,2,a\n3,x,b\n", "expected numbers; got 'x' in row 3"),
        ("1,2,a\n3,4, \n", "expected a label in the last column; got none in row 2"),
        ("1;2;a\n3;4;b\n", "expected values and a label in each row, separated by commas; got '3;4;b'"),
        ("word\n" + "1;" * 99 + "a\n", "separated by commas; got '1;1;1;1;1;1;1;1;1;1;1;1;1 ... ;1;1;1;1;1;1;1;1;1;a'"),
        ("1,2,a\n3,4,NaN\n", "expected a label in the last column; got NaN in row 2"),
        ("t,u,class\n", "expected one case a row; got none"),
        ("", "expected one case a row; got none"),
        ('1,2,"a\n3,4,b\n', "expected a .csv file; got unexpected end of data"),
        ("1,2,a\n3,inf,b\n", "got inf"),
        ("inf,inf,1,-inf,a\n1,2,3,4,b\n", "got inf"),
        ("1,2,a\n\xff\x00,4,b\n", "invalid start byte: save it as UTF-8"),
    ],
)
def test_a_bad_csv_file_is_one_line(tmp_path, text, message):
    (tmp_path / "Own_TRAIN.csv").write_text(text, encoding="latin-1")
    status, output = call("train", "Own", *SMALL, "--data", tmp_path, "--folder", tmp_path / "runs")
    assert status == 2 and "expected both Own_TRAIN.csv and Own_TEST.csv; got no" in output, output
    (tmp_path / "Own_TEST.csv").write_text("1,2,a\n3,4,b\n")
    status, output = call("train", "Own", *SMALL, "--data", tmp_path, "--folder", tmp_path / "runs")
    assert status == 2 and message in output and "Own_TRAIN.csv" in output, output


def test_a_row_of_missing_values_is_no_header(tmp_path):
    (tmp_path / "Own_TRAIN.csv").write_text(",,a\n3,4,b\n")
    X, y = read_labelled_csv(tmp_path / "Own_TRAIN.csv")
    assert np.isnan(X[0]).all() and y.tolist() == ["a", "b"]


@pytest.mark.parametrize(
    "first",
    ["0,1,2,3,4", "0,1,2,3,label", ",0,1,2,3,label", "0.0,0.1,0.2,0.3,label", "1980,1990,2000,2010,8", "1,2,3,4,5"],
)
def test_the_numbers_of_columns_are_no_case(tmp_path, first):
    """Times, and what pandas writes for columns without names, with and without its index."""
    file = tmp_path / "Own_TRAIN.csv"
    cells = "1," * first.count(",")
    file.write_text(f"{first}\n{cells}2\n")
    message = r"expected a header of words, or none; got a first row \d.*, ..., of the numbers or times of columns"
    with pytest.raises(ValueError, match=message):
        read_labelled_csv(file)
    names = ",".join(f"t{i}" for i in range(first.count(",") + 1))
    file.write_text(f"{names}\n{first}\n{cells}2\n")  # below a header, it is a case
    assert len(read_labelled_csv(file)[1]) == 2
    unlabelled = first.rpartition(",")[0]
    file.write_text(f"{unlabelled}\n{cells[:-1]}\n")
    with pytest.raises(ValueError, match=message):
        read_examples(file)
    file.write_text(f"{names.rpartition(',')[0]}\n{unlabelled}\n")
    assert len(read_examples(file)) == 1


@pytest.mark.parametrize("first", ["0.1,0.2,0.3,0.4,a", "4,3,2,1,b", "1,1,1,1,b", "1,2,3,b", "1,2,4,5,b", "1,,3,4,b"])
def test_a_first_case_is_no_header(tmp_path, first):
    """Evenly spaced with a label of another case, too; falling, constant, short; and almost even."""
    cells = "1," * first.count(",")
    (tmp_path / "Own_TRAIN.csv").write_text(f"{first}\n{cells}a\n")
    assert read_labelled_csv(tmp_path / "Own_TRAIN.csv")[1].tolist() == [first[-1], "a"]


def test_two_data_sets_of_one_name_are_refused(tmp_path):
    np.savez(tmp_path / "Own.npz", **GOOD)
    for split in ("TRAIN", "TEST"):
        np.savez(tmp_path / f"Own_{split}.npz", X=X, y=y)
    with pytest.raises(ValueError, match=r"Own: expected one data set of this name; got .*Own.npz and .*_TRAIN.npz"):
        recipe("Own", tmp_path)
    (tmp_path / "Own.npz").unlink()
    assert len(recipe("Own", tmp_path).load(tmp_path, quiet).train) == 3
