"""Runs from the command line: trained, tabulated, evaluated, and asked for predictions."""

import json
import os
import shutil
import subprocess
import sys
import time
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from rich.progress import Progress
from typer.testing import CliRunner

from primal_dual.cli.commands import app
from primal_dual.io.files import ensure_folder, write_json
from tests.torch_impl.training.short_runs import write_set
from torch_impl.analysis.accuracy_table import interval, load, table, title
from torch_impl.data.series import load_series
from torch_impl.training.recipes.benchmarks import recipe
from torch_impl.training.recipes.kinds import to_config
from torch_impl.training.runs.run_folder import folder_of_run, results_below
from torch_impl.training.runs.schedule import Schedule, train_all
from torch_impl.training.trained.finished_run import evaluate, predict


def run_of(attention, seed, right):
    return dict(
        recipe={"folds": 0, "name": "X", "kind": "SeriesRecipe"},
        data="X",
        attention=attention,
        seed=seed,
        test_accuracy=right,
        best_test_epoch=right,
        seconds=1.0,
    )


def test_the_table_has_paired_differences(tmp_path):
    runs = [run_of("softmax", s, 0.5 + 0.1 * s) for s in range(3)] + [
        run_of("bn", s, 0.52 + 0.1 * s + 0.01 * s) for s in range(3)
    ]
    (tmp_path / "runs.json").write_text(json.dumps({"runs": runs}))
    softmax, bn = table(load(tmp_path / "runs.json"))
    assert (softmax["mean"], softmax["deviation"], softmax["difference"]) == (
        pytest.approx(60),
        pytest.approx(10),
        None,
    )
    assert bn["difference"] == pytest.approx((3.0, 3 - 2.484, 3 + 2.484), abs=1e-3)
    assert interval([1.0, 2.0, 3.0]) == pytest.approx((2, 2 - 2.484, 2 + 2.484), abs=1e-3)
    with pytest.raises(ValueError, match="expected finished runs"):
        load(tmp_path / "none")


def test_runs_behind_a_link_are_found_once(tmp_path):
    for seed in range(2):
        run = ensure_folder(folder_of_run(tmp_path / "elsewhere", "X", "bn", seed))
        write_json(run / "result.json", run_of("bn", seed, 0.5))
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "X").symlink_to(tmp_path / "elsewhere" / "X")
    (tmp_path / "elsewhere" / "X" / "up").symlink_to(tmp_path / "runs")
    (tmp_path / "elsewhere" / ".hidden").symlink_to(tmp_path / "elsewhere" / "X")
    assert [run["seed"] for run in load(tmp_path / "runs")] == [0, 1]
    assert all(".hidden" not in file.parts for file in results_below(tmp_path / "elsewhere"))


def test_a_table_is_not_written_in_the_place_of_a_result(tmp_path):
    (tmp_path / "runs.json").write_text(json.dumps({"runs": [run_of("bn", 0, 0.5)]}))
    words = ["results", tmp_path / "runs.json", "--json", tmp_path / "result.json"]
    done = CliRunner().invoke(app, list(map(str, words)))
    assert done.exit_code == 2 and "--json: expected another name than result.json" in done.output
    assert not (tmp_path / "result.json").exists()


def test_no_name_has_more_than_255_bytes(tmp_path):
    folder_of_run(tmp_path, "X", "\u6838" * 90, 0).mkdir(parents=True)
    write_json(tmp_path / f"{'x' * 250}.json", {})  # the name while it is written, too


def test_a_run_of_another_recipe_is_refused_before_any_is_trained(tmp_path):
    def train(attentions, epochs, jobs):
        changes = dict(epochs=epochs, layers=1, width=16, num_heads=4, feedforward=16)
        quiet = Progress(disable=True)
        return train_all("BasicMotions", attentions, 2, None, tmp_path, changes, quiet, Schedule(jobs=jobs, threads=1))

    train(["sh"], 1, jobs=1)
    shutil.rmtree(tmp_path / "BasicMotions" / "sh" / "0")
    for jobs in (1, 2):
        with pytest.raises(ValueError, match="sh/1: expected epochs = 1, as it was begun; got 2"):
            train(["bn", "sh"], 2, jobs)
    assert [path.name for path in (tmp_path / "BasicMotions").glob("*/*")] == ["1"]
    assert len(train(["sh"], 1, jobs=1)) == 2


def test_small_models_share_a_gpu_and_large_ones_have_it_for_themselves(monkeypatch):
    for cores, runs, jobs in ((16, 20, (16, 8, 16, 1)), (3, 20, (3, 3, 3, 1)), (16, 2, (2, 2, 2, 1))):
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        default = [recipe(name).jobs(runs, gpu) for name in ("Handwriting", "cifar10") for gpu in (False, True)]
        assert default == list(jobs)


def test_a_learned_beta_is_told_with_the_attention_and_compared_with_softmax():
    def run(attention, seed, right, learn_beta):
        fields = to_config(recipe("Handwriting", learn_beta=learn_beta))
        return run_of(attention, seed, right) | dict(recipe=fields, data="Handwriting")

    runs = [run("softmax", s, 0.5, learn_beta=True) for s in range(2)]
    runs += [run("bn", s, 0.6 + 0.1 * learned, bool(learned)) for s in range(2) for learned in range(2)]
    rows = [(row["recipe"], row["attention"], row["mean"], row["difference"]) for row in table(runs)]
    assert [row[:2] for row in rows] == [("Handwriting", name) for name in ("softmax", "bn", "bn, learned beta")]
    assert [row[2] for row in rows] == pytest.approx([50, 60, 70])
    assert rows[2][3] == pytest.approx((20, 20, 20))


def test_a_field_that_is_younger_than_a_run_has_its_default():
    """Runs that differ in it have rows of their own, and those that do not have one."""
    for taps, rows in ((7, [("X", 2)]), (9, [("X, taps 7", 1), ("X, taps 9", 1)])):
        old = run_of("softmax", 0, 0.5)
        young = run_of("softmax", 1, 0.7) | {"recipe": to_config(recipe("X", taps=taps))}
        assert [(row["recipe"], row["seeds"]) for row in table([old, young])] == rows


def test_of_runs_that_differ_in_what_changes_nothing_the_first_is_taken(tmp_path):
    chosen = [recipe("X", workers=workers, compile=compiled) for workers, compiled in ((0, True), (3, False))]
    pairs = zip(chosen, (0.5, 0.9), strict=True)
    runs = [run_of("bn", 0, right) | {"recipe": to_config(each)} for each, right in pairs]
    (tmp_path / "runs.json").write_text(json.dumps({"runs": runs}))
    assert [(row["seeds"], row["mean"]) for row in table(load(tmp_path / "runs.json"))] == [(1, 50)]
    (tmp_path / "runs.json").write_text(json.dumps({"runs": [run_of("bn", 0, 0.5) | {"recipe": {"kind": "Cake"}}]}))
    with pytest.raises(ValueError, match=r"runs\.json: kind: expected one of SeriesRecipe, ImageRecipe, TokenRecipe"):
        load(tmp_path / "runs.json")


def test_the_title_tells_what_is_changed():
    def of(chosen, data="Handwriting"):
        return title({"data": data, "recipe": to_config(chosen)})

    assert of(recipe("Handwriting", compile=True)) == "Handwriting" and of(recipe("X", epochs=3), "X") == "X"
    assert of(recipe("Handwriting", folds=5, lr=0.5)) == "Handwriting, 5 folds, lr 0.5"
    assert of(recipe("Text", length=100, epochs=1), "Text-100") == "Text-100, epochs 1"


def test_command_line(tmp_path):
    def call(*words):
        return CliRunner().invoke(app, list(map(str, words)))

    small = ["--epochs", 1, "--width", 16, "--layers", 1, "--folder", tmp_path]
    done = call("train", "BasicMotions", "--attention", "softmax", "bn", "--seeds", 2, *small)
    assert done.exit_code == 0 and "minus softmax" in done.output, done.output
    again = call("results", tmp_path)
    assert again.exit_code == 0 and "softmax" in again.output
    for words, message in (
        (("BasicMotions", "--attention", "bm"), "did you mean bn"),
        (("BasicMotions", "--speed", "3"), "speed: expected a field"),
        (("BasicMotions", "--epochs"), "epochs: expected a whole number; got True"),
        (("BasicMotions", "--attention"), "--attention: expected a name after it; got none"),
        (("BasicMotions", "softmax"), "expected --attention NAME"),
        (("BasicMotions", "--seeds", "0"), "--seeds: expected a whole number >= 1"),
        (("Nothing",), "expected --data, the folder with its files"),
        (("BasicMotions", "--norm", "group"), "norm: expected one of batch, layer, pre-layer; got 'group'"),
        (("--attention", "bn", "BasicMotions"), "--attention: expected the data set first"),
        (("BasicMotions", "--attention", "bn", "--attention", "bm"), "did you mean bn"),
        (("BasicMotions", "--attention", "bm", "--attention", "bn"), "did you mean bn"),
        (("BasicMotions", "--folder", "/dev/null/runs"), "/dev/null/runs: expected a folder that can be written"),
    ):
        failed = call("train", "--folder", tmp_path, *words)
        assert failed.exit_code == 2 and message in failed.output and "Traceback" not in failed.output, failed.output
    assert call("results", tmp_path / "none").exit_code == 2
    kept = tmp_path / "kept.json"
    assert call("results", tmp_path, "--json", kept).exit_code == 0 and load(kept) == load(tmp_path)
    markdown = call("results", kept, "--markdown").output
    assert "| BasicMotions | softmax | 2 |" in markdown and "\n|  | bn | 2 |" in markdown


FULL_DISK = """
import resource
from primal_dual.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, resource.RLIM_INFINITY))
main()
"""


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path):
    words = ["train", "BasicMotions", "--attention", "sh", "--seeds", 1, "--epochs", 2, "--folder", tmp_path]
    run = tmp_path / "BasicMotions" / "sh" / "0"
    failed = subprocess.run([sys.executable, "-c", FULL_DISK, *map(str, words)], capture_output=True, text=True)
    assert failed.returncode == 2 and len(failed.stderr.splitlines()) == 1
    assert f"{run / 'checkpoint-1.safetensors'}: cannot be written: File too large" in failed.stderr
    assert [file.name for file in run.iterdir()] == ["config.json"]
    assert CliRunner().invoke(app, list(map(str, words))).exit_code == 0 and (run / "result.json").exists()


@pytest.mark.parametrize("count", [0, 2])
def test_a_finished_run_is_evaluated_and_predicts(tmp_path, count):
    """From its weights alone it answers as it did; labels in the file are not looked at; padding, too, is as before."""
    write_set(tmp_path, train=["1,2,3:4,5,6:a", "3,2:1,0:b", "0,?,5:2,2,2:a", "9,8:7,6:b"] * 2)
    options = dict(epochs=3, layers=1, width=16, num_heads=4, folds=count)
    (result,) = train_all("Own", ["bn+sh"], 1, tmp_path, tmp_path / "runs", options, Progress(disable=True))
    run = tmp_path / "runs" / "Own" / "bn+sh" / "0"
    share, cases = evaluate(run, tmp_path)
    assert share == result["test_accuracy"] and cases == 4
    new = tmp_path / "Own" / "Own_TEST.ts"
    probabilities, classes, _ = predict(run, new)
    if count == 0:  # else the test split is a fold of the training split
        labels = load_series("Own", tmp_path).test.labels
        assert (probabilities.argmax(-1) == labels).double().mean() == share
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(4))
    assert classes == ["a", "b"]
    lines = new.read_text(encoding="utf-8").replace("@classLabel true a b", "@classLabel false").splitlines()
    bare = [line.rsplit(":", 1)[0] if line[0] not in "#@" else line for line in lines]
    new.write_text("\n".join(bare) + "\n", encoding="utf-8")
    assert torch.equal(predict(run, new)[0], probabilities)

    def call(*words):
        return CliRunner().invoke(app, list(map(str, words)))

    assert call("predict", run, new, "--json", tmp_path / "p.json").exit_code == 0
    torch.testing.assert_close(
        torch.tensor(json.loads((tmp_path / "p.json").read_text())["probabilities"]), probabilities
    )
    (tmp_path / "long.ts").write_text(new.read_text(encoding="utf-8") + "1,2,3,4:1,2,3,4\n", encoding="utf-8")
    write_set(tmp_path, train=["1,2,3:4,5,6:a", "3,2:1,0:b"] * 2, test=["1,2:3,4:a"])
    for words, message in (
        (("evaluate", tmp_path), "expected a finished run"),
        (("evaluate", run, "--data", tmp_path), "expected the data that the run was trained on"),
        (("predict", run, tmp_path / "none.ts"), "no such file"),
        (("predict", run, tmp_path / "long.ts"), "expected at most 3 time steps, as in training; got 4"),
    ):
        failed = call(*words)
        assert failed.exit_code == 2 and message in " ".join(failed.output.split()), failed.output
    (run / "model.safetensors").write_bytes(b"x")
    assert "expected weights of SHA-256" in call("evaluate", run, "--data", tmp_path).output


def wait_until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def exists(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_processes_end_with_their_parent(tmp_path):
    """Even if it is killed: else they would train to the end, and wait for ever."""
    words = "primal_dual.cli train BasicMotions --attention bn --jobs 2 --seeds 2 --epochs 100000 --layers 1 --width 16"
    command = [sys.executable, "-m", *words.split(), "--folder", str(tmp_path)]
    parent = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
    wait_until(lambda: len(list(tmp_path.rglob("log.jsonl"))) == 2)
    parent.kill()
    parent.wait()
    wait_until(lambda: not exists(parent.pid))


def test_a_run_that_is_out_of_time_goes_on(tmp_path, monkeypatch):
    """It is stopped after an epoch, and ends as if it had not been."""
    fixed = "BasicMotions", ["bn+sh"], 1, None
    rest = dict(epochs=3, layers=1, width=16), Progress(disable=True)
    (whole,) = train_all(*fixed, tmp_path / "whole", *rest, Schedule(jobs=1))
    assert train_all(*fixed, tmp_path / "parts", *rest, Schedule(until=0)) == []
    assert not list((tmp_path / "parts").rglob("config.json"))
    (log,) = [tmp_path / "parts" / "BasicMotions" / "bn+sh" / "0" / "log.jsonl"]
    for epochs in (1, 2, 3):
        clock = iter([0.0, 2.0])  # when the run is begun, and after its first epoch
        with monkeypatch.context() as patch:
            times = SimpleNamespace(time=partial(next, clock), monotonic=time.monotonic)
            patch.setattr("torch_impl.training.runs.schedule.time", times)
            assert train_all(*fixed, tmp_path / "parts", *rest, Schedule(until=1.0)) == []
        assert len(log.read_text().splitlines()) == epochs
    (result,) = train_all(*fixed, tmp_path / "parts", *rest)
    assert result["weights_sha256"] == whole["weights_sha256"]
