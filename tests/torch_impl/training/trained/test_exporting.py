"""Runs as ONNX files: the probabilities of torch, for any number of examples, on what was measured."""

import warnings

import numpy as np
import onnxruntime
import pytest
import torch
from typer.testing import CliRunner

from primal_dual.cli.commands import app
from tests.torch_impl.training.short_runs import TINY
from torch_impl.data.images.loading import load_images
from torch_impl.data.messages import say_nothing
from torch_impl.training.recipes.kinds import ImageRecipe
from torch_impl.training.runs.trainer import train
from torch_impl.training.trained import exporting
from torch_impl.training.trained.exporting import export
from torch_impl.training.trained.finished_run import classify, load_run, predict


def probabilities(file, **inputs):
    session = onnxruntime.InferenceSession(str(file))
    return session.run(["probabilities"], {name: np.asarray(x) for name, x in inputs.items()})[0], session


@pytest.mark.parametrize("attention", ["softmax", "bn+sh"])
def test_a_trained_model_of_series(attention, tmp_path):
    name, file = f"pretrained:JapaneseVowels/{attention}", tmp_path / "model.onnx"
    done = CliRunner().invoke(app, ["export", name, str(file)])
    assert done.exit_code == 0 and "differ from torch's by at most" in done.output, done.output
    run, rng = load_run(name), np.random.default_rng(1)
    for n in (1, 5):
        series = rng.standard_normal((n, 29, 12))
        series[0, 3, 2] = np.nan
        key_mask = np.arange(29) < rng.integers(5, 30, (n, 1))
        found, session = probabilities(file, inputs=np.where(key_mask[..., None], series, 7), key_mask=key_mask)
        standardised = np.nan_to_num((series - run.data["mean"]) / run.data["deviation"]) * key_mask[..., None]
        expected = classify(run, torch.tensor(standardised, dtype=torch.float32), torch.tensor(key_mask))
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert session.get_modelmeta().custom_metadata_map["classes"].split("\n") == list(run.classes)


@pytest.mark.parametrize("attention", ["bn", "sh"])
def test_a_run_of_ones_own(attention, tmp_path, motions):
    train(TINY, attention, 0, motions, tmp_path, say_nothing)
    assert export(tmp_path / "BasicMotions" / attention / "0", tmp_path / "model.onnx") <= 1e-5


def test_small_changes_of_large_values(tmp_path):
    """Float32 would round each value of the first channel to a multiple of 8. The second is constant in training."""
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((20, 3, 13)), [*"ab"] * 10
    X[:, 0], X[:, 1] = 1e8 + X[:, 0], 5
    data = TINY.from_arrays(X, y, X, y, say_nothing)
    train(TINY, "bn", 0, data, tmp_path, say_nothing)
    folder, file = tmp_path / "BasicMotions" / "bn" / "0", tmp_path / "model.onnx"
    assert export(folder, file) <= 1e-5
    X[:, 1] += rng.standard_normal((20, 13))
    np.savez(tmp_path / "new.npz", X=X)
    inputs = X.transpose(0, 2, 1)
    found, _ = probabilities(file, inputs=inputs, key_mask=np.ones((20, 13), bool))
    np.testing.assert_allclose(found, predict(folder, tmp_path / "new.npz")[0], atol=1e-5)


def test_a_file_that_differs_is_not_written(tmp_path, motions, monkeypatch):
    train(TINY, "bn", 0, motions, tmp_path, say_nothing)
    monkeypatch.setattr(exporting, "LARGEST_DIFFERENCE", -1.0)
    with pytest.raises(ValueError, match="expected the same probabilities from ONNX to 1e-5; got"):
        export(tmp_path / "BasicMotions" / "bn" / "0", tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


def test_images(tmp_path):
    recipe = ImageRecipe("digits", epochs=1, layers=1, width=16, num_heads=4, patch=4)
    data = load_images("digits")
    train(recipe, "bn", 0, data, tmp_path, say_nothing)
    run_folder, file = tmp_path / "digits" / "bn" / "0", tmp_path / "model.onnx"
    export(run_folder, file)
    inputs = data.test.inputs[:6]
    np.testing.assert_allclose(
        probabilities(file, inputs=inputs)[0], classify(load_run(run_folder), inputs, None), atol=1e-5
    )


def test_an_operation_that_onnx_lacks_is_named():
    class Distances(torch.nn.Module):
        def forward(self, x):
            return torch.cdist(x, x, p=1)

    with warnings.catch_warnings(action="ignore"), pytest.raises(RuntimeError) as caught:
        torch.onnx.export(Distances(), (torch.randn(3, 4, 2),), dynamo=True, verbose=False)
    assert exporting._reason(caught.value) == "it has no operation aten._cdist_forward"
    assert exporting._reason(RuntimeError("\x1b[96mtwo\nlines")) == r"\x1b[96mtwo lines"


def test_bad_input(tmp_path):
    for words, message in (
        ([str(tmp_path), str(tmp_path / "x.onnx")], "expected a finished run"),
        (["pretrained:JapaneseVowels/bn+sh", str(tmp_path / "no" / "x.onnx")], "no"),
    ):
        done = CliRunner().invoke(app, ["export", *words])
        assert done.exit_code == 2 and message in done.output and not list(tmp_path.glob("*.onnx"))
