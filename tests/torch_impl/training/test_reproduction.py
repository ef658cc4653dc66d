"""The plan of experiments is sound, and is run as far as time and data allow."""

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.progress import Progress
from typer.testing import CliRunner

from primal_dual.cli.commands import app
from primal_dual.primal import COMPARED, catalog
from torch_impl.analysis.accuracy_table import load
from torch_impl.training import experiments
from torch_impl.training.experiments import PLAN, Experiment
from torch_impl.training.reproduction import reproduce, statuses

TINY = Experiment(
    "a look", "BasicMotions", 0.1, "tiny", dict(epochs=2, layers=1, width=16, patch=4), ("softmax", "sh"), seeds=1
)
ABSENT = Experiment("a look", "Handwriting", None)
MEASURED = Path(experiments.__file__).parents[1] / "results" / "runs.json"


def call(*words):
    return CliRunner().invoke(app, list(map(str, words)))


def test_the_plan_is_sound():
    assert len({experiment.title for experiment in PLAN}) == len(PLAN)
    for experiment in PLAN:
        assert set(experiment.attentions) <= set(catalog) and not experiment.done([])
        assert experiment.recipe.name == experiment.data and getattr(experiment.recipe, "patch", 1)
        assert bool(experiment.variant) == bool(experiment.changes or experiment.attentions != COMPARED)


def test_measured_results_count_as_done():
    results = load(MEASURED)
    done = {status.experiment.title: status.done for status in statuses(PLAN, results, [])}
    assert done["Handwriting"] == 20 and done["SelfRegulationSCP1, steps as tokens"] == 0
    fewer = [result for result in results if result["data"] != "Handwriting" or result["seed"] == 3]
    assert statuses(PLAN, fewer, [])[1].done == 4
    other = [result | {"recipe": result["recipe"] | {"weight_decay": 0.123}} for result in results]
    assert not any(status.done for status in statuses(PLAN, other, []))


def test_an_experiment_is_stopped_and_goes_on(tmp_path):
    said = []

    def run(until):
        found = load(tmp_path) if any(tmp_path.rglob("result.json")) else []
        reproduce([ABSENT, TINY], found, [], tmp_path, Progress(disable=True), said.append, until)

    run(0.0)
    assert said == [] and not list(tmp_path.iterdir())
    run(time.time() + 600)
    assert statuses([TINY], load(tmp_path), []) == [(TINY, 2, "")]
    assert said == [
        "left out: Handwriting: expected a folder Handwriting in --data; got none; see docs/how-to/train.md",
        "BasicMotions, tiny: 2 of 2 runs to do",
    ]
    run(time.time() + 600)
    assert len(said) == 3  # what is done is not begun again
    assert {result["attention"] for result in load(tmp_path / "tiny")} == {"softmax", "sh"}


def test_runs_that_another_machine_did_are_not_trained_again(tmp_path):
    elsewhere, here = tmp_path / "elsewhere", tmp_path / "here"
    reproduce([replace(TINY, attentions=("sh",))], [], [], elsewhere, Progress(disable=True), print)
    reproduce([TINY], load(elsewhere), [], here, Progress(disable=True), print)
    assert [result["attention"] for result in load(here)] == ["softmax"]
    assert statuses([TINY], load(elsewhere, here), []) == [(TINY, 2, "")]


def test_an_experiment_that_fails_is_told_and_the_next_is_run(tmp_path):
    said = []
    wrong = replace(TINY, variant="wrong", changes=dict(num_heads=5))
    assert not reproduce([wrong, TINY], [], [], tmp_path, Progress(disable=True), said.append)
    assert "failed: BasicMotions, wrong: width: expected a multiple of 5 heads" in said[1]
    assert len(load(tmp_path)) == 2
    assert reproduce([ABSENT, TINY], [], [], tmp_path, Progress(disable=True), said.append)


def test_the_command_fails_if_an_experiment_does(tmp_path, monkeypatch):
    monkeypatch.setattr(experiments, "PLAN", [replace(TINY, changes=dict(num_heads=5))])
    failed = call("reproduce", "--folder", tmp_path)
    assert failed.exit_code == 1 and "failed: BasicMotions, tiny: width" in failed.output


def test_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr(experiments, "PLAN", [TINY, ABSENT])
    listed = call("reproduce", "--list", "--folder", tmp_path)
    assert listed.exit_code == 0 and "BasicMotions, tiny" in listed.output and "to do" in listed.output
    assert not list(tmp_path.iterdir())
    done = call("reproduce", "--folder", tmp_path, "--only", "tiny")
    assert done.exit_code == 0 and " done" in done.output and "softmax" in done.output, done.output
    kept = tmp_path / "kept.json"
    assert call("results", tmp_path, "--json", kept).exit_code == 0
    merged = call("reproduce", "--list", "--folder", tmp_path / "none", "--merge", kept)
    assert merged.exit_code == 0 and " done" in merged.output
    for words, message in (
        (("--only", "nothing"), "--only: expected a part of a title or claim that --list shows; got 'nothing'"),
        (("--minutes", "-1"), "--minutes: expected"),
        (("--minutes", "nan"), "--minutes: expected"),
        (("--device", "tpu"), "--device: expected cpu or cuda; got 'tpu'"),
        (("--merge", tmp_path / "no.json", "--list"), "expected finished runs, with a result.json; got none"),
    ):
        failed = call("reproduce", "--folder", tmp_path, *words)
        assert failed.exit_code == 2 and message in " ".join(failed.output.split()), failed.output


def test_the_whole_plan_fits_a_terminal(tmp_path):
    listed = call("reproduce", "--list", "--folder", tmp_path)
    assert "…" not in listed.output and listed.output.count("missing data") + listed.output.count("to do") > 50


@pytest.mark.parametrize("twice", [False, True])
def test_results_are_merged_and_commits_kept_apart(tmp_path, twice):
    chosen = [run for run in load(MEASURED) if run["data"] == "JapaneseVowels" and run["attention"] == "softmax"][:2]
    files = []
    for name, commit in (("a", "aaaaaaa"), ("b", "aaaaaaa" if twice else "bbbbbbb")):
        content = [run | {"machine": run["machine"] | {"commit": commit + "0" * 33}} for run in chosen]
        files.append(tmp_path / f"{name}.json")
        files[-1].write_text(json.dumps({"runs": content}))
    assert len(load(*files)) == (2 if twice else 4)
    printed = call("results", *files, "--markdown").output
    assert printed.count("softmax | 2 |") == (1 if twice else 2)
    assert ("commit bbbbbbb" in printed) != twice
