"""The trained models that come with the package do what their cards say; other weights and data are refused."""

import hashlib
import json
import re
import shutil
from pathlib import PureWindowsPath

import pytest
import torch
from safetensors.torch import load_file, save
from typer.testing import CliRunner

import torch_impl
from primal_dual.cli.commands import app
from torch_impl.data.dataset import Split
from torch_impl.data.series import load_series
from torch_impl.training.runs.checkpoint import metadata
from torch_impl.training.runs.run_files import sealed
from torch_impl.training.trained.finished_run import evaluate, load_pretrained, load_run
from torch_impl.training.trained.pretrained_models import WEIGHTS, pretrained

AT_HAND = [name for name in pretrained() if name.startswith("JapaneseVowels")]  # of the data that aeon brings


def call(*words):
    return CliRunner().invoke(app, list(map(str, words)))


@pytest.mark.parametrize("name", pretrained())
def test_each_model_loads_and_fits_its_card(name):
    run = load_pretrained(*name.split("/"))
    assert torch_impl.pretrained() == pretrained() and torch_impl.load_pretrained is load_pretrained
    assert (run.recipe.name, run.attention) == tuple(name.split("/")) and not run.model.training
    assert (WEIGHTS / name / "model.safetensors").stat().st_size <= 2**20
    card = (WEIGHTS / name / "README.md").read_text()
    assert f"{100 * run.result['test_accuracy']:.2f} %" in card and run.result["machine"]["commit"] in card
    assert run.result["parameters"] == sum(p.numel() for p in run.model.parameters())
    assert len(run.classes) == run.data["sizes"]["classes"]


@pytest.mark.parametrize("name", AT_HAND)
def test_accuracies_are_those_of_the_cards(name):
    said = []
    accuracy, count = evaluate(f"pretrained:{name}", say=said.append)
    assert count == 370 and accuracy > 0.95 and said == []
    assert accuracy == load_pretrained(*name.split("/")).result["test_accuracy"]


def test_the_commands_take_them(tmp_path):
    name = f"pretrained:{AT_HAND[0]}"
    evaluated = call("evaluate", name)
    assert evaluated.exit_code == 0 and re.search(r"test accuracy 9\d.\d on 370 cases", evaluated.output)
    assert load_run(PureWindowsPath(name)).attention == load_run(name).attention
    unknown = call("evaluate", "pretrained:JapaneseVowels/bm")
    assert unknown.exit_code == 2 and "expected one of" in unknown.output and AT_HAND[0] in unknown.output
    with pytest.raises(ValueError, match=r"expected one of .*; got Vowels/bn"):
        load_pretrained("Vowels", "bn")
    with pytest.raises(AttributeError, match="no attribute 'load_pretraned'"):
        torch_impl.load_pretraned  # noqa: B018


@pytest.fixture
def copied(tmp_path):
    return shutil.copytree(WEIGHTS / AT_HAND[0], tmp_path / "run")


def test_damaged_weights_are_refused(copied):
    """One bit of one weight: nothing but the hash can tell."""
    file = copied / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"model.safetensors: expected weights of SHA-256 \w{64}, by result.json"):
        load_run(copied)


def test_weights_that_are_not_finite_are_refused(copied):
    file = copied / "model.safetensors"
    state = load_file(file)
    next(x for x in state.values() if x.is_floating_point()).view(-1)[0] = torch.nan
    content = save(state, metadata(file.read_bytes()))
    file.write_bytes(content)
    result = json.loads((copied / "result.json").read_text())
    changed = sealed(result | {"weights_sha256": hashlib.sha256(content).hexdigest()})
    (copied / "result.json").write_text(json.dumps(changed))
    with pytest.raises(ValueError, match=r"model.safetensors: expected finite weights"):
        load_run(copied)


def test_another_accuracy_is_told_and_other_data_refused(copied, monkeypatch):
    file = copied / "result.json"
    result = json.loads(file.read_text())
    file.write_text(json.dumps(sealed(result | {"test_accuracy": 0.5})))
    said = []
    evaluate(copied, say=said.append)
    assert said == ["when it was trained, the test accuracy was 50.00"]
    data = load_series("JapaneseVowels")
    changed = data.test.inputs.clone()
    changed[0, 0, 0] += 1e-3
    other = data._replace(test=Split(changed, *data.test[1:]))
    monkeypatch.setattr("torch_impl.training.recipes.kinds.load_series", lambda name, folder: other)
    with pytest.raises(
        ValueError, match=r"expected the data .* on, 270 \+ 370 examples, SHA-256 \w+; got 270 \+ 370 ex"
    ):
        evaluate(copied, say=said.append)
