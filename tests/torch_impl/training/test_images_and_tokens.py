"""Training on images and tokens, from files to predictions, by the command line."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.backends import mkldnn
from typer.testing import CliRunner

from primal_dual.cli.commands import app
from torch_impl.data.images import loading
from torch_impl.data.messages import say_nothing
from torch_impl.training.recipes.kinds import ImageRecipe, SeriesRecipe, TokenRecipe
from torch_impl.training.runs.trainer import train

SMALL = ["--epochs", 2, "--layers", 1, "--width", 16, "--num_heads", 2, "--batch", 8]


def call(*words):
    return CliRunner().invoke(app, list(map(str, words)))


@pytest.fixture
def photos(tmp_path):
    """Dark and light images, 8 x 8, some of them grey; 20 for training, 10 for the test."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 10), ("val", 5)):
        for name, low in (("dark", 0), ("light", 128)):
            folder = tmp_path / "Photos" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                shape = (8, 8) if i == 1 else (8, 8, 3)
                Image.fromarray(rng.integers(low, low + 128, shape, np.uint8)).save(folder / f"{i}.png")
    return tmp_path


def test_own_images_from_folders_to_predictions(photos, tmp_path):
    runs = tmp_path / "runs"
    done = call("train", "Photos", "--data", photos, "--folder", runs, "--seeds", 1, "--attention", "bn+sh", *SMALL)
    assert done.exit_code == 0, done.output
    run = runs / "Photos" / "bn+sh" / "0"
    assert json.loads((run / "config.json").read_text())["recipe"]["kind"] == "ImageRecipe"
    share = json.loads((run / "result.json").read_text())["test_accuracy"]
    assert f"{100 * share:.1f} on 10 cases" in call("evaluate", run, "--data", photos).output
    folder = photos / "Photos" / "val"
    assert call("predict", run, folder, "--json", tmp_path / "p.json").exit_code == 0
    found = json.loads((tmp_path / "p.json").read_text())
    right = [
        f"/{found['classes'][int(np.argmax(p))]}/" in case
        for p, case in zip(*map(found.get, ("probabilities", "cases")), strict=True)
    ]
    assert len(right) == 10 and np.mean(right) == share
    (folder / "dark" / "0.png").write_bytes(b"no image")
    failed = call("train", "Photos", "--data", photos, "--folder", tmp_path / "other", *SMALL)
    assert failed.exit_code == 2 and "dark/0.png" in "".join(failed.output.split()), failed.output
    one = ("--seeds", 1, "--attention", "softmax")
    done = call("train", "Photos", "--data", photos, "--folder", tmp_path / "other", *one, "--skip-corrupt", *SMALL)
    assert done.exit_code == 0 and "left out 1 corrupt" in done.output, done.output
    assert call("predict", run, folder / "dark" / "0.png").exit_code == 2


def test_images_on_disk_train_as_those_in_memory(photos, tmp_path, monkeypatch):
    """Read by two workers; the last batches of training and test are short."""
    plain = dict(crop="none", flip=0.0, rand_augment=0.0, erasing=0.0, mixup=0.0, cutmix=0.0, bf16=False)
    recipe = ImageRecipe("Photos", epochs=2, layers=1, width=16, num_heads=2, batch=7, workers=2, **plain)
    weights = []
    for most in (loading.MEMORY, 0):
        monkeypatch.setattr(loading, "MEMORY", most)
        data = recipe.load(photos, print)
        assert isinstance(data.train, loading.ImageStream) == (most == 0)
        train(recipe, "sh", 0, data, tmp_path / str(most))
        weights.append(load_file(tmp_path / str(most) / "Photos" / "sh" / "0" / "model.safetensors"))
    for name, x in weights[0].items():
        torch.testing.assert_close(weights[1][name], x, rtol=0, atol=0)


def test_images_on_disk_train_in_several_processes(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "MEMORY", 0)
    small = ("--seeds", 2, "--jobs", 2, "--attention", "bn", *SMALL)
    done = call("train", "Photos", "--data", photos, "--folder", tmp_path / "runs", *small)
    assert done.exit_code == 0, done.output
    assert len(list(tmp_path.glob("runs/Photos/bn/*/result.json"))) == 2


def test_a_batch_of_corrupt_images_alone_is_told(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "MEMORY", 0)
    recipe = ImageRecipe("Photos", epochs=1, layers=1, width=16, num_heads=2, batch=4, skip_corrupt=True)
    data = recipe.load(photos, lambda line: None)
    for file in photos.glob("Photos/train/*/*"):
        file.write_bytes(b"")
    with pytest.raises(ValueError, match="expected a whole image in the batch of step 0; got none"):
        train(recipe, "softmax", 0, data, tmp_path)


def test_augmented_training_is_reproduced(photos, tmp_path):
    recipe = ImageRecipe("Photos", epochs=2, layers=1, width=16, num_heads=2, batch=8)
    data = recipe.load(photos, print)
    results = [train(recipe, "softmax", 0, data, tmp_path / each) for each in ("a", "b")]
    log = [(tmp_path / each / "Photos" / "softmax" / "0" / "log.jsonl").read_text() for each in ("a", "b")]
    losses = [[json.loads(line)["loss"] for line in each.splitlines()] for each in log]
    assert losses[0] == losses[1] and results[0]["test_accuracy"] == results[1]["test_accuracy"]


def test_tokens_are_learnt(tmp_path):
    """Short ListOps: what is learnt beats the commonest class of the training split."""
    recipe = TokenRecipe("ListOps", epochs=15, length=32, cases=600, lr=2e-3, warm_up=0.05, batch=16)
    data = recipe.load(None, lambda line: None)
    result = train(recipe, "bn+sh", 0, data, tmp_path)
    log = (tmp_path / data.name / "bn+sh" / "0" / "log.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in log]
    commonest = data.train.labels.bincount().argmax()
    assert losses[-1] < losses[0] - 0.1 and result["test_accuracy"] > (data.test.labels == commonest).double().mean()
    assert data.name == "ListOps-32-600cases" == result["data"]


@pytest.mark.parametrize(
    "recipe, expected",
    [
        (TokenRecipe("ListOps", length=32, cases=20), False),
        (SeriesRecipe("JapaneseVowels"), False),
        (SeriesRecipe("JapaneseVowels", convolutions=1), True),
        (ImageRecipe("digits"), True),
    ],
)
def test_onednn_is_off_in_training_without_convolutions(recipe, expected, tmp_path):
    """It would keep a compiled kernel for each number of tokens of a batch."""
    recipe = replace(recipe, epochs=2, layers=1, width=8, num_heads=2)
    uses = []
    train(recipe, "softmax", 0, recipe.load(None, say_nothing), tmp_path, lambda _: uses.append(mkldnn.enabled))
    assert uses == [expected] * 2 and mkldnn.enabled
