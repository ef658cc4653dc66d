"""The scikit-learn classifier: checked by scikit-learn, the same as the trainer, kept in a file, certified."""

import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import check_estimator

from tests.torch_impl.training.short_runs import TINY
from torch_impl import AttentionClassifier
from torch_impl.training.recipes.kinds import ImageRecipe
from torch_impl.training.runs.trainer import train
from torch_impl.training.trained.finished_run import load_run


@pytest.fixture(scope="module")
def vowels():
    """Real series of different lengths, as aeon has them: a list of arrays (channels, time)."""
    from aeon.datasets import load_japanese_vowels

    (X, y), (X_test, y_test) = load_japanese_vowels(split="train"), load_japanese_vowels(split="test")
    return X[::5], y[::5], X_test[::20], y_test[::20]


def small(**changes):
    settings = dict(epochs=3, batch=8, layers=1, width=16, num_heads=4, random_state=0) | changes
    return AttentionClassifier(settings.pop("attention", "bn+sh"), settings.pop("recipe", None), **settings)


def test_check_estimator():
    """No check fails. One is skipped by scikit-learn itself, unless the environment variable SCIPY_ARRAY_API is set."""
    model = small(epochs=5, num_heads=2, lr=5e-2, batch=64)
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        results = check_estimator(model, on_fail=None, on_skip=None)
    others = {result["check_name"]: result["exception"] for result in results if result["status"] != "passed"}
    assert others.keys() == {"check_array_api_input"} and len(results) > 50, others


AEONS = "EqualLengthUnivariate", "EqualLengthMultivariate", "UnequalLengthMultivariate", "MissingValues"


@pytest.mark.parametrize("kind", [f"{each}-Classification-np-list" for each in AEONS])
def test_aeons_checks(kind):
    """Those that take any estimator: the others ask for aeon's base class, with its tags and its clone."""
    from aeon.testing.estimator_checking import _yield_classification_checks as classifiers
    from aeon.testing.estimator_checking import _yield_estimator_checks as estimators

    model = small(epochs=1)
    classifiers.check_classifier_output(model, kind)
    estimators.check_persistence_via_pickle(model, kind)
    estimators.check_fit_deterministic(model, kind)
    estimators.check_get_params(model)
    estimators.check_repr(model)


def test_aeons_resamples(vowels):
    from aeon.benchmarking.resampling import stratified_resample_data

    X, y, X_test, y_test = stratified_resample_data(*vowels, random_state=1)
    assert small(epochs=1).fit(X, y).predict(X_test).shape == y_test.shape


def test_fit_is_a_run_of_the_trainer(motions, tmp_path):
    from aeon.datasets import load_basic_motions

    X, y = load_basic_motions(split="train")
    state = torch.get_rng_state()
    model = AttentionClassifier("bn+sh", TINY, random_state=3).fit(X, y)
    assert torch.equal(torch.get_rng_state(), state)
    train(TINY, "bn+sh", 3, motions, tmp_path)
    theirs = load_run(tmp_path / "BasicMotions" / "bn+sh" / "3")
    for name, weight in theirs.model.state_dict().items():
        assert torch.equal(model.run_.model.state_dict()[name], weight)
    with torch.no_grad():
        logits = theirs.model(motions.test.inputs)
    X_test, y_test = load_basic_motions(split="test")
    np.testing.assert_allclose(model.predict_proba(X_test), logits.softmax(-1), rtol=1e-5, atol=1e-7)
    assert model.score(X_test, y_test) == (logits.argmax(-1) == motions.test.labels).double().mean()


def test_fit_is_reproducible_to_the_bit(vowels):
    X, y, X_test, _ = vowels
    first, again = (small(random_state=7).fit(X, y).predict_proba(X_test) for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, small(random_state=8).fit(X, y).predict_proba(X_test))
    assert small(random_state=None).fit(X, y).run_.seed != small(random_state=None).fit(X, y).run_.seed


def test_padding_missing_values_and_the_shapes_of_x(vowels):
    X, y, X_test, _ = vowels
    model = small().fit(X, y)
    assert model.n_features_in_ == 12 and model.run_.data["sizes"]["length"] == max(x.shape[1] for x in X)
    mean, deviation = (np.array(model.run_.data[name]) for name in ("mean", "deviation"))
    with torch.no_grad():
        series = [torch.tensor((x.T - mean) / deviation, dtype=torch.float32)[None] for x in X_test]
        unpadded = torch.cat([model.run_.model(x) for x in series]).softmax(-1)
    np.testing.assert_allclose(model.predict_proba(X_test), unpadded, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(
        model.predict_proba(np.array([*X_test, None], object)[:-1]), model.predict_proba(X_test)
    )
    cut = np.stack([x[:, :7] for x in X])
    same = small().fit(cut, y).predict_proba(cut)
    np.testing.assert_array_equal(small().fit(list(cut), y).predict_proba(cut.tolist()), same)
    one = small().fit(cut[:, :1], y).predict_proba(cut[:, :1])
    np.testing.assert_array_equal(small().fit(cut[:, 0], y).predict_proba(cut[:, 0]), one)
    missing = cut.copy()
    missing[0, 0, 0] = np.nan
    assert np.isfinite(small().fit(missing, y).predict_proba(missing)).all()


LABELS = [np.array([2, 10, -3]), np.array(["x", "é", "z"], object), np.array([True, False])]
LABELS += [np.array(["2020-01-01", "2021-06-01"], "datetime64[D]")]


@pytest.mark.parametrize("labels", LABELS, ids=lambda labels: labels.dtype.name)
def test_kept_in_a_file(tmp_path, vowels, labels):
    X, y, X_test, _ = vowels
    y = labels[np.arange(len(y)) % len(labels)]
    model = small(patch=2).fit(X, y)
    assert model.classes_.tolist() == sorted(labels.tolist())
    model.save(tmp_path / "model.safetensors")
    loaded = AttentionClassifier.load(tmp_path / "model.safetensors")
    assert np.array_equal(loaded.predict_proba(X_test), model.predict_proba(X_test))
    assert loaded.predict(X_test).dtype == y.dtype and set(loaded.predict(X_test)) <= set(labels)
    assert loaded.n_features_in_ == 12 and loaded.run_.recipe.patch == 2
    assert np.array_equal(loaded.fit(X, y).predict_proba(X_test), model.predict_proba(X_test))
    copy = pickle.loads(pickle.dumps(model))
    assert np.array_equal(copy.predict_proba(X_test), model.predict_proba(X_test))


def test_in_pipelines_and_searches(vowels):
    X, y, _, _ = vowels
    X, y = np.stack([x[:, :7] for x in X]), np.array(y)
    keep = np.isin(y, np.unique(y)[:3])
    pipeline = make_pipeline(FunctionTransformer(np.arcsinh), small(epochs=20, lr=5e-3))
    assert cross_val_score(pipeline, X[keep], y[keep], cv=2, error_score="raise").mean() > 0.6
    grid = {"attentionclassifier__attention": ["softmax", "bn"], "attentionclassifier__width": np.array([8, 16])}
    search = GridSearchCV(pipeline, grid, cv=2, error_score="raise").fit(X[keep], y[keep])
    assert search.best_estimator_[-1].run_.recipe.width == search.best_params_["attentionclassifier__width"]


@pytest.mark.parametrize("attention", ["softmax", "bn+sh"])
def test_every_head_is_certified(vowels, attention):
    X, y, X_test, _ = vowels
    certificates = small(attention=attention, layers=2).fit(X, y).certify(X_test[:3])
    assert len(certificates) == 3 * 2 * 4
    assert max(each.certificate.relative_gap for each in certificates) < 1e-11


def test_images(capsys):
    digits = load_digits()
    chosen = digits.target < 3
    images, y = digits.images[chosen][:90], digits.target[chosen][:90]
    grey = small(recipe="digits", epochs=15, lr=5e-3).fit(images, y)
    assert grey.score(images, y) > 0.5 and grey.run_.data["sizes"] == dict(channels=1, size=8, classes=3)
    channels = small(patch=2, verbose=1).fit(images[..., None].astype(np.uint8), y)
    assert type(channels.run_.recipe).__name__ == "ImageRecipe" and channels.run_.recipe.patch == 2
    assert channels.predict(images[..., None]).shape == (90,)
    coloured = small().fit(np.stack([images, 15 - images, images // 2], -1).clip(0), y)
    assert coloured.run_.data["sizes"]["channels"] == 3
    assert len(grey.certify(images[:1])) == 4
    with pytest.raises(
        ValueError, match="X image 1: expected a grey image, as those of the training; got one in colour"
    ):
        grey.predict(np.stack([images[:2], images[:2], images[:2] // [[[1]], [[2]]]], -1))
    with pytest.raises(ValueError, match="X: expected images of 8 x 8, as in training; got 8 x 10"):
        grey.predict(np.zeros((2, 8, 10)))
    resized = small(recipe=ImageRecipe("X", size=4, patch=2)).fit(images, y)
    assert resized.predict(images[:2]).shape == (2,)


def a(*shape):
    return np.random.default_rng(0).standard_normal(shape)


def masked(x):
    return np.ma.masked_array(x, mask=np.arange(np.size(x)).reshape(np.shape(x)) == 1)


BAD = {
    "labels that are NaN": (
        lambda: small().fit(a(4, 2, 9), [0, 1, np.nan, 1]),
        "y: expected .*; got nan for example 2",
    ),
    "labels that are missing": (
        lambda: small().fit(a(3, 2, 9), np.array(["a", None, "b"], object)),
        "y: expected labels that can be sorted; got NoneType and str",
    ),
    "labels that are missing among words": (
        lambda: small().fit(a(3, 2, 9), ["a", np.nan, "b"]),
        "y: expected a label for each example; got 'nan' for example 1",
    ),
    "labels that pandas misses": (
        lambda: small().fit(a(3, 2, 9), pd.Series(["a", pd.NA, "b"], dtype="string")),
        "y: expected a label for each example; got <NA> for example 1",
    ),
    "labels under a mask": (lambda: small().fit(a(4, 2, 9), masked([0, 1] * 2)), "y: .*; got a numpy.ma array: fill"),
    "series under a mask": (lambda: small().fit(masked(a(4, 2, 9)), [0, 1] * 2), "X: .*; got a numpy.ma array: fill"),
    "a list of series under masks": (
        lambda: small().fit([a(2, 9), masked(a(2, 9))], [0, 1]),
        "X: expected .*; got a numpy.ma array: fill",
    ),
    "unequal series under masks": (
        lambda: small().fit([a(2, 9), masked(a(2, 8))], [0, 1]),
        "X: expected .*; got a numpy.ma array: fill",
    ),
    "an array of series under masks": (
        lambda: small().fit(np.array([a(2, 9), masked(a(2, 9)), None], object)[:2], [0, 1]),
        "X: expected .*; got a numpy.ma array: fill",
    ),
    "a negative seed": (
        lambda: small(random_state=-1).fit(a(4, 2, 9), [0, 1] * 2),
        "random_state: expected a whole number >= 0; got -1",
    ),
    "one class": (lambda: small().fit(a(4, 2, 9), ["a"] * 4), "y: expected two classes or more; got one class, a"),
    "no labels": (lambda: small().fit(a(4, 2, 9), None), "requires y to be passed, but the target y is None"),
    "other numbers": (lambda: small().fit(a(4, 2, 9), ["a", "b"]), "inconsistent numbers of samples"),
    "an empty list": (lambda: small().fit([], []), "X: expected time series, .* got none"),
    "texts": (lambda: small().fit([["a", "b"]] * 2, [0, 1]), "dtype='numeric' is not compatible"),
    "objects": (lambda: small().fit([a(2, 3), "b"], [0, 1]), r"X: expected time series, .*; got dtype <U1"),
    "five axes": (lambda: small().fit(a(4, 2, 9, 3, 1), [0, 1] * 2), r"got examples of shape \(2, 9, 3, 1\)"),
    "unequal series without channels": (
        lambda: small().fit([a(3), a(4)], [0, 1]),
        r"got examples of shape \(3,\) and \(4,\)",
    ),
    "unequal channels": (lambda: small().fit([a(2, 3), a(3, 3)], [0, 1]), "X: expected 2 features in each case; got 3"),
    "huge numbers": (lambda: small().fit(1e30 * a(4, 2, 9), [0, 1] * 2), "X: expected numbers of at most 1e"),
    "no value at all": (
        lambda: small().fit(np.full((4, 2, 9), np.nan), [0, 1] * 2),
        "expected some value of each feature",
    ),
    "fractions": (
        lambda: small().fit(a(4, 8, 8, 3), [0, 1] * 2),
        "X: expected images of bytes, .*; got numbers from -",
    ),
    "four channels": (
        lambda: small().fit(a(4, 8, 8, 4), [0, 1] * 2),
        r"X: expected images of bytes, .*; got shape \(4, 8, 8, 4\)",
    ),
    "an attention": (lambda: small(attention="bm").fit(a(4, 2, 9), [0, 1] * 2), "did you mean bn"),
    "a recipe": (
        lambda: small(recipe=3).fit(a(4, 2, 9), [0, 1] * 2),
        "recipe: expected a Recipe or one of .*; got 3",
    ),
    "a recipe's name": (
        lambda: small(recipe="JapaneseVowel").fit(a(4, 2, 9), [0, 1] * 2),
        "recipe: expected a Recipe or one of .*JapaneseVowels, .*; got 'JapaneseVowel'",
    ),
    "a part of an epoch": (
        lambda: small(epochs=2.5).fit(a(4, 2, 9), [0, 1] * 2),
        "epochs: expected a whole number; got 2.5",
    ),
    "no epoch": (lambda: small(epochs=-1).fit(a(4, 2, 9), [0, 1] * 2), "epochs: expected 0 to 1000000000; got -1"),
    "tokens": (
        lambda: small(recipe="Text").fit(a(4, 2, 9), [0, 1] * 2),
        "Text: expected a recipe for time series or images",
    ),
    "a file": (
        lambda: AttentionClassifier.load("none.safetensors"),
        "expected a file that AttentionClassifier.save wrote; got none",
    ),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_input_of_fit(bad):
    call, message = BAD[bad]
    with pytest.raises(ValueError, match=message):
        call()


def test_bad_input_of_what_is_fitted(tmp_path):
    model = small().fit(a(6, 2, 9), ["a", "b"] * 3)
    for X, message in (
        (a(3, 3, 9), "3 features, but AttentionClassifier is expecting 2"),
        ([a(3, 9), a(3, 8)], "X: expected 2 features in each case; got 3"),
        (a(3, 2, 10), "X: expected at most 9 time steps, as in training; got 10"),
        (np.full((3, 2, 9), np.inf), "contains infinity"),
        ([], "X: expected time series"),
    ):
        with pytest.raises(ValueError, match=message):
            model.predict(X)
    assert model.predict(a(3, 2, 5)).shape == (3,)
    X, y = a(6, 2, 9), ["a"] * 6
    weight = (model.predict(X) == "a") + 1.0
    assert model.score(X, y, sample_weight=weight) == pytest.approx((weight == 2).sum() * 2 / weight.sum())
    with pytest.raises(ValueError, match="y: expected labels of the training, a, b; got c"):
        model.score(a(2, 2, 9), ["a", "c"])
    with pytest.raises(ValueError, match="cannot be written"):
        model.save(tmp_path / "none" / "x.safetensors")
    (tmp_path / "x.safetensors").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"AttentionClassifier.save wrote; got"):
        AttentionClassifier.load(tmp_path / "x.safetensors")


@contextmanager
def float64():
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    "settings",
    [torch.no_grad, torch.inference_mode, partial(torch.autocast, "cpu", torch.bfloat16), float64],
    ids=["no_grad", "inference_mode", "autocast", "float64"],
)
def test_what_torch_is_set_to_changes_nothing(vowels, settings, tmp_path):
    X, y, X_test, _ = vowels
    expected = small(random_state=7).fit(X, y).predict_proba(X_test)
    with settings():
        model = small(random_state=7).fit(X, y)
        model.save(tmp_path / "model.safetensors")
        loaded = AttentionClassifier.load(tmp_path / "model.safetensors")
        for each in (model, loaded):
            assert np.array_equal(each.predict_proba(X_test), expected)


def test_threads_do_not_share_random_numbers(vowels):
    X, y, X_test, _ = vowels
    state, expected = torch.get_rng_state(), small(random_state=7).fit(X, y).predict_proba(X_test)
    with ThreadPoolExecutor(3) as pool:
        fitted = list(pool.map(lambda _: small(random_state=7).fit(X, y), range(3)))
    assert all(np.array_equal(model.predict_proba(X_test), expected) for model in fitted)
    assert torch.equal(torch.get_rng_state(), state)
