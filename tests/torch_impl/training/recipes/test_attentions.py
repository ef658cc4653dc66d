"""Attentions of one's own: from a file, as a primal and by a new name, wherever a name of the catalog may stand."""

import hashlib
import json
import pickle
from dataclasses import dataclass, replace

import numpy as np
import pytest
from typer.testing import CliRunner

from primal_dual import (
    BatchNorm,
    Causal,
    Convolution,
    Exponential,
    Gaussian,
    Heads,
    Mask,
    Primal,
    Window,
    catalog,
    heads,
    register_attention,
)
from primal_dual.cli.commands import app
from tests.torch_impl.training.short_runs import TINY
from torch_impl import AttentionClassifier
from torch_impl.analysis.accuracy_table import table
from torch_impl.training.recipes.attentions import attention_text, find_attention
from torch_impl.training.runs.run_folder import folder_of_run
from torch_impl.training.runs.trainer import train
from torch_impl.training.trained.finished_run import load_run

FILE = """
from dataclasses import dataclass
from primal_dual import BatchNorm, Heads, Primal
import torch_impl

@dataclass(frozen=True)
class Laplacian:
    bandwidth: float = 1.0

    def log_gram(self, x, y):
        return -abs(x[..., :, None, :] - y[..., None, :, :]).sum(-1) / self.bandwidth

torch_impl.register(Laplacian)(Laplacian.log_gram)
laplacian = Primal(Laplacian(2.0), transform=BatchNorm())
two = Heads(laplacian, Primal())
number = 3
"""
OWN = Primal(Gaussian(1.5), transform=(Convolution((0.2, 0.5, 0.3)), BatchNorm(0.3)), support=Window(2), scale=2)
SMALL = ["--epochs", 1, "--width", 16, "--layers", 1, "--num-heads", 2, "--seeds", 1]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "my_file.py"
    path.write_text(FILE)
    return path


def call(*words):
    done = CliRunner().invoke(app, list(map(str, words)))
    return done.exit_code, " ".join(done.output.split())


def test_a_file_from_the_command_line(tmp_path, file, monkeypatch):
    """Trained, listed, evaluated and compared: each rebuilds the primal from the run's own words."""
    folder = tmp_path / "runs"
    words = ["train", "BasicMotions", *SMALL, "--folder", folder, "--attention"]
    status, output = call(*words, f"{file}:laplacian", "softmax")
    assert status == 0, output
    run = folder / "BasicMotions" / str(find_attention(f"{file}:laplacian")) / "0"
    config = json.loads((run / "config.json").read_text())
    assert config["attention"].startswith("Primal(kernel=Laplacian(bandwidth=2.0)")
    assert config["attention_files"] == {str(file): hashlib.sha256(FILE.encode()).hexdigest()}
    assert load_run(run).model.blocks[0].heads == Heads(*[find_attention(f"{file}:laplacian")] * 2)
    assert call("evaluate", run)[0] == 0
    assert call("redundancy", run, folder / "BasicMotions" / "softmax" / "0")[0] == 0
    status, output = call("results", folder, "--markdown")
    assert status == 0 and "| BasicMotions | softmax | 1 |" in output and "Laplacian(bandwidth=2.0)" in output
    result = (run / "result.json").read_text()
    assert f" {100 * json.loads(result)['test_accuracy']:.1f} " in call("results", folder)[1]  # beside a long text
    assert call(*words, f"{file}:laplacian")[0] == 0 and (run / "result.json").read_text() == result
    (tmp_path / "moved").mkdir()
    moved = file.rename(tmp_path / "moved" / file.name)
    assert call(*words, f"{moved}:laplacian")[0] == 0 and (run / "result.json").read_text() == result
    monkeypatch.chdir(moved.parent)
    assert call("evaluate", run)[0] == 0  # the file is in the working directory
    monkeypatch.undo()
    moved.rename(file)
    file.write_text(FILE + "# changed\n")
    status, output = call(*words, f"{file}:laplacian")
    assert status == 2 and "expected attention_files = " in output and "as it was begun" in output
    status, output = call("evaluate", run)
    assert status == 2 and f"{file}: expected the file that the run was trained with" in output
    file.unlink()
    assert "; got none" in call("evaluate", run)[1]


def test_parts_of_another_file_are_refused(tmp_path, file, monkeypatch):
    """A change of that file would not be noticed."""
    monkeypatch.syspath_prepend(tmp_path)
    importing = tmp_path / "importing.py"
    importing.write_text("from my_file import Laplacian, laplacian\n")
    words = ["train", "BasicMotions", *SMALL, "--folder", tmp_path / "runs", "--attention"]
    status, output = call(*words, f"{importing}:laplacian")
    assert status == 2 and "defined in this file or in primal_dual; got Laplacian of my_file" in output
    assert not (tmp_path / "runs").exists()


def test_several_at_a_time_from_a_file(tmp_path, file):
    words = ["train", "BasicMotions", *SMALL, "--jobs", 2, "--folder", tmp_path / "runs"]
    status, output = call(*words, "--attention", f"{file}:two", f"{file}:laplacian")
    assert status == 0, output
    assert len(list((tmp_path / "runs" / "BasicMotions").iterdir())) == 2


@pytest.mark.parametrize("attention", [OWN, Heads(Primal(), OWN, Primal(scale=3), Primal(support=Causal()))])
def test_a_primal_is_stored_under_its_text_and_rebuilt(tmp_path, motions, attention):
    """Its own beta and scales count, not those of the recipe; a text too long for a folder is cut."""
    result = train(TINY, attention, 0, motions, tmp_path)
    run = folder_of_run(tmp_path, "BasicMotions", str(attention), 0)
    assert result["attention"] == str(attention) and (run / "result.json").exists() and len(run.parent.name) <= 200
    loaded = load_run(run)
    assert loaded.model.blocks[0].heads == heads(attention, 4) and find_attention(loaded.attention) == attention
    model = AttentionClassifier(attention, replace(TINY, epochs=1), random_state=0)
    X, y = motions.train.inputs.numpy().transpose(0, 2, 1), motions.train.labels.numpy()
    model.fit(X, y).save(tmp_path / "x.safetensors")
    again = AttentionClassifier.load(tmp_path / "x.safetensors")
    assert again.attention == attention and np.array_equal(again.predict_proba(X), model.predict_proba(X))
    assert max(each.certificate.relative_gap for each in model.certify(X[:1])) < 1e-11
    assert pickle.loads(pickle.dumps(model)).attention == attention


def test_the_classifier_takes_a_file_and_finds_it_again(tmp_path, file, motions):
    X, y = motions.train.inputs.numpy().transpose(0, 2, 1), motions.train.labels.numpy()
    model = AttentionClassifier(f"{file}:laplacian", replace(TINY, epochs=1), random_state=0).fit(X, y)
    model.save(tmp_path / "x.safetensors")
    assert np.array_equal(AttentionClassifier.load(tmp_path / "x.safetensors").predict_proba(X), model.predict_proba(X))
    file.write_text(FILE.replace("abs(", "2 * abs("))
    AttentionClassifier(f"{file}:laplacian", replace(TINY, epochs=1), random_state=0).fit(X, y)
    model.save(tmp_path / "y.safetensors")  # after a model was trained by a later version of the file
    for name in ("x", "y"):
        with pytest.raises(ValueError, match="expected the file that the run was trained with"):
            AttentionClassifier.load(tmp_path / f"{name}.safetensors")


def test_a_recipe_takes_what_a_name_of_ones_own_stands_for_as_it_is():
    """Only built-in names get the recipe's beta and scales."""
    own = Primal(transform=BatchNorm(0.25), scale=16)
    register_attention("coarse", own)
    try:
        assert list(replace(TINY, beta=0.5).primal("coarse")) == [own] * TINY.num_heads
    finally:
        del catalog["coarse"]


def test_a_name_of_ones_own(tmp_path, motions):
    register_attention("narrow", OWN)
    try:
        register_attention("narrow", OWN)
        result = train(TINY, "narrow", 0, motions, tmp_path)
        run = tmp_path / "BasicMotions" / "narrow" / "0"
        assert result["attention"] == "narrow" and load_run(run).attention == "narrow"
        with pytest.raises(ValueError, match=r"narrow: .* has; got that of Primal.*; del catalog\['narrow'\] frees it"):
            register_attention("narrow", Primal())
        del catalog["narrow"]
        register_attention("narrow", Primal())
        with pytest.raises(ValueError, match="narrow: expected the name that register_attention gave"):
            load_run(run)
    finally:
        del catalog["narrow"]
    with pytest.raises(ValueError, match="gave to the primal that was trained; got no such name"):
        load_run(run)
    rows = [
        result | {"data": "X", "recipe": {"kind": "SeriesRecipe", "name": "X"}, "attention": each}
        for each in ("narrow", "bn", str(OWN), "softmax")
    ]
    assert [row["attention"] for row in table(rows)] == ["softmax", "bn", str(OWN), "narrow"]
    for name, primal, message in (
        ("softmax", OWN, "softmax: expected a name that no other primal has"),
        ("a/b", OWN, "expected letters, digits and"),
        ("", OWN, "expected letters, digits and"),
        ("mine", Exponential(), "primal: expected a Primal or Heads; got Exponential"),
    ):
        with pytest.raises(ValueError, match=message):
            register_attention(name, primal)
    assert "mine" not in catalog and catalog["softmax"] == Primal()


@dataclass(frozen=True)
class Unregistered:
    def log_gram(self, x, y):
        return x @ y.mT


BAD_WORDS = {
    "{folder}/none.py:laplacian": "expected a Python file with a primal called laplacian; no such file",
    "{file}:nothing": "expected a Primal or Heads; got none of this name; it has laplacian, two",
    "{file}:number": "expected a Primal or Heads; got 3",
    "{folder}/fails.py:laplacian": "fails.py: expected a file that runs; got ZeroDivisionError: division by zero",
    "{folder}/leaves.py:laplacian": "leaves.py: expected a file that runs; got SystemExit",
    "bm": "did you mean bn",
    "Primal(kernel=Unheard())": "expected a part with a torch version; got Unheard: is it registered here?",
    "Primal(kernel=__import__('os').system('true'))": "expected calls of parts, numbers and tuples; got",
    "Primal(": "expected the text of a primal; got Primal(",
    "Primal(colour=3)": "expected the text of a primal; got Primal(colour=3)",
}


@pytest.mark.parametrize("word", BAD_WORDS)
def test_what_is_no_attention_is_one_line(tmp_path, file, word):
    (tmp_path / "fails.py").write_text("1 / 0")
    (tmp_path / "leaves.py").write_text("raise SystemExit(0)")
    attention = word.format(folder=tmp_path, file=file)
    status, output = call("train", "BasicMotions", *SMALL, "--folder", tmp_path / "runs", "--attention", attention)
    assert status == 2 and BAD_WORDS[word] in output and "Traceback" not in output, output
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("attention", "message"),
    [
        (Primal(support=Mask(np.eye(100, dtype=bool))), "expected a primal that its text gives back"),
        (Primal(Unregistered()), "expected a part with a torch version"),
        (3, "expected a name of the catalog, a Primal or Heads; got 3"),
        (Heads(Primal(), Primal()), "heads: expected Heads of 4; got 2"),
    ],
)
def test_what_cannot_be_trained(tmp_path, motions, attention, message):
    with pytest.raises(ValueError, match=message):
        train(TINY, attention, 0, motions, tmp_path)
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize("primal", [*catalog.values(), OWN])
def test_every_text_gives_its_primal_back(primal):
    assert find_attention(attention_text(primal)) == primal
