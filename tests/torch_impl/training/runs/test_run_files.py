"""JSON of the wrong shape, and sizes that no machine holds, are told in one line before any work."""

import json
import shutil

import pytest
from typer.testing import CliRunner

from primal_dual.cli.commands import app
from torch_impl.training.trained.pretrained_models import WEIGHTS

RUN = WEIGHTS / "JapaneseVowels" / "softmax"
DEEP = "[" * 100_000
CHANGES = {  # of result.json: a field, another value, and what is said of it
    "test_accuracy": [(97.0, r"Expected `float` <= 1.0"), (-1, r"Expected `float` >= 0.0"), ("0.9", "got `str`")],
    "seed": [(-1, r"Expected `int` >= 0"), (0.5, "Expected `int`"), (None, "Expected `int`, got `null`")],
    "attention": [(5, "Expected `str`, got `int`"), ("", "Expected `str` of length >= 1")],
    "recipe": [
        ({}, "kind: expected one of SeriesRecipe, ImageRecipe, TokenRecipe; got None"),
        ([], "Expected `object`, got `array`"),
    ],
    "weights_sha256": [("abc", "Expected `str` matching regex")],
    "machine": [([], "Expected `object`, got `array`")],
}


def fails(message, *words):
    result = CliRunner().invoke(app, list(map(str, words)))
    output = " ".join(result.output.split())
    assert result.exit_code == 2 and message in output and "Traceback" not in output, result.output


@pytest.fixture
def run(tmp_path):
    return shutil.copytree(RUN, tmp_path / "run")


@pytest.mark.parametrize("text", ["", "[]", "null", "5", "{}", DEEP, '{"a": NaN}', "\udcff", '{"runs": [5]}'])
@pytest.mark.parametrize("file", ["result.json", "config.json"])
def test_json_of_another_shape(run, file, text):
    (run / file).write_bytes(text.encode(errors="surrogateescape"))
    fails(str(run / file), "evaluate", run)
    fails(str(run / file), "predict", run, run / "new.ts")
    if file == "result.json":
        fails(str(run / file), "results", run)
        moved = (run / file).rename(run / "kept.json")
        fails(str(moved), "results", moved)


@pytest.mark.parametrize(
    ("field", "value", "message"), [(field, *change) for field, changes in CHANGES.items() for change in changes]
)
def test_fields_of_results(run, field, value, message):
    file = run / "result.json"
    result = json.loads(file.read_text())
    del result["sha256"]
    file.write_text(json.dumps(result | {field: value}))
    fails(message, "results", run)
    file.write_text(json.dumps({"runs": [json.loads(file.read_text())]}))
    moved = file.rename(run / "kept.json")
    fails(message, "results", moved)


@pytest.mark.parametrize(("field", "value"), [("test_accuracy", 0.9999), ("seed", 1), ("attention", "bn")])
def test_a_plausible_change_of_a_result_or_a_configuration_is_told(run, field, value):
    file = run / "result.json"
    result = json.loads(file.read_text())
    file.write_text(json.dumps(result | {field: value}))
    for command in ("evaluate", "results"):
        fails("as it was written; got one that was changed", command, run)
    kept = run / "kept.json"
    kept.write_text(json.dumps({"runs": [result, result | {field: value}]}))
    fails("kept.json: expected the result of JapaneseVowels", "results", kept)
    file.write_text(json.dumps(result))
    config = json.loads((run / "config.json").read_text())
    if field in config:
        (run / "config.json").write_text(json.dumps(config | {field: value}))
        fails(f"expected one {field}; got another in config.json than in result.json", "evaluate", run)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("layers", 1e30, "SeriesRecipe: Expected `int`, got `float` - at `$.layers`"),
        ("layers", "3", "SeriesRecipe: Expected `int`, got `str`"),
        ("layers", 10**12, "layers: expected 1 to 1000; got 1000000000000"),
        ("num_heads", 10**30, "SeriesRecipe: "),
        ("width", 10**8, "expected a model that fits into"),
        ("dropout", 5, "dropout: expected 0 to 1; got 5"),
        ("speed", 1, "SeriesRecipe: expected no speed"),
        ("kind", "Recipe", "kind: expected one of SeriesRecipe, ImageRecipe, TokenRecipe; got 'Recipe'"),
        ("norm", "none", "norm"),
    ],
)
def test_fields_of_the_recipe_in_a_configuration(run, field, value, message):
    file = run / "config.json"
    config = json.loads(file.read_text())
    config["recipe"][field] = value
    file.write_text(json.dumps(config))
    fails(message, "evaluate", run)


@pytest.mark.parametrize("content", [b"", b"x", b"\xff" * 100, (2).to_bytes(8, "little") + b"[]", b"\0" * 8])
def test_weights_of_a_run_without_a_hash_that_are_no_weights(run, content):
    file = run / "result.json"
    result = json.loads(file.read_text())
    del result["weights_sha256"], result["sha256"]
    file.write_text(json.dumps(result))
    (run / "model.safetensors").write_bytes(content)
    fails(f"{run}: expected the config and weights of this program; got a file without metadata", "evaluate", run)


def test_files_that_cannot_be_read(run):
    file = run / "result.json"
    file.unlink()
    fails("expected a finished run", "evaluate", run)
    file.symlink_to(file)
    fails(str(run), "evaluate", run)
    fails(str(run), "results", run)
    file.unlink()
    file.mkdir()
    fails(str(file), "evaluate", run)


@pytest.mark.parametrize(
    "words",
    [
        ("--width", "100000000"),
        ("--width", "999999999"),
        ("--patch", "99999999999999999"),
        ("--batch", "99999999999999999999"),
        ("--warp", "1e30"),
        ("--lr", "inf"),
        ("--layers", "1000000"),
        ("--num-heads", "1" + "0" * 30),
        ("--feedforward", "1000000000"),
    ],
)
def test_sizes_that_no_machine_holds(tmp_path, words):
    fails("expected", "train", "BasicMotions", "--folder", tmp_path, "--jobs", 1, *words)
    assert not list(tmp_path.rglob("*.safetensors"))
