"""Data, training that can be interrupted anywhere, and results."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.progress import Progress
from safetensors.torch import load as load_tensors
from safetensors.torch import load_file
from typer.testing import CliRunner

from primal_dual.cli import app
from torch_impl.data import Split, folds
from torch_impl.models import Dropout, TimeSeriesEncoder
from torch_impl.recipes import RECIPES, SeriesRecipe, from_config, recipe, to_config
from torch_impl.runs import train_all
from torch_impl.series import augment, load_series
from torch_impl.tables import interval, load, table
from torch_impl.train import accuracy, learning_rate, this_process, train
from torch_impl.trained import evaluate, predict

TINY = SeriesRecipe(
    "BasicMotions", epochs=3, batch=8, layers=1, width=16, num_heads=4, feedforward=16, warp=0.3, jitter=0.1
)


@pytest.fixture(scope="module")
def motions():
    return load_series("BasicMotions")


def write_set(folder, name="Own", train=None, test=None, encoding="utf-8"):
    cases = ["1,2,3:4,5,6:a", "3,2:1,0:b", "0,?,5:2,2,2:a", "9,8:7,6:b"]
    (folder / name).mkdir(exist_ok=True)
    for split, given in (("TRAIN", train), ("TEST", test)):
        lines = ["#caf\u00e9", f"@problemName {name}", "@timeStamps false", "@missing true", "@univariate false"]
        lines += [
            "@dimensions 2",
            "@equalLength false",
            "@classLabel true a b",
            "@data",
            *(cases if given is None else given),
        ]
        (folder / name / f"{name}_{split}.ts").write_text("\n".join(lines) + "\n", encoding=encoding)
    return folder


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


def test_a_constant_feature_is_only_centred(tmp_path):
    """0.1 has a mean and a deviation that are not quite 0.1 and 0."""
    train = [f"0.1,0.1,0.1:{i},2,3:{'ab'[i % 2]}" for i in range(7)]
    data = load_series("Own", write_set(tmp_path, train=train, test=["0.3,0.1,0.1:1,2,3:a"]))
    assert data.deviation[0] == 0 and data.train.inputs[..., 0].abs().max() < 1e-6
    assert data.test.inputs[0, 0, 0] == pytest.approx(0.2)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(test=["1,2:3,4:c"]), "Own"),
        (dict(train=[]), "Own_TRAIN.ts"),
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
    with pytest.raises(ValueError, match=r"Own_TRAIN\.ts: no such file"):
        load_series("Own", tmp_path)
    with pytest.raises(ValueError, match="expected a folder of the archive with --data, or one of JapaneseVowels"):
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
    summaries = train_all("BasicMotions", ["sh"], 3, None, tmp_path, 1, options, Progress(disable=True))
    for seed, fold in zip((0, 1, 2), [*folds(motions, 2)] * 2, strict=False):
        alone = train(recipe("BasicMotions", **options), "sh", seed, fold, tmp_path / "alone")
        assert alone["test_accuracy"] == summaries[seed]["test_accuracy"]
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


def test_dropout_keeps_its_share_and_the_mean():
    torch.manual_seed(0)
    x = torch.ones(1000, 1001)
    kept = Dropout(0.3)(x)
    torch.testing.assert_close(kept.unique(), torch.tensor([0, 1 / 0.7]))
    assert (kept == 0).float().mean() == pytest.approx(0.3, abs=0.002)
    for axis in (0, 1):
        assert (kept == 0).float().mean(axis).std() == pytest.approx((0.21 / 1000) ** 0.5, rel=0.1)  # independent
    assert torch.equal(Dropout(0.3).eval()(x), x) and torch.equal(Dropout(0.0)(x), x)


def test_augmentation():
    torch.manual_seed(0)
    series = torch.linspace(0, 1, 20)[None, :, None].expand(50, -1, 2).contiguous()
    key_mask = torch.arange(20) < torch.randint(2, 21, (50, 1))
    series = series * key_mask[..., None]
    assert torch.equal(augment(series, key_mask), series)
    warped = augment(series, key_mask, warp=0.5)
    assert (warped[~key_mask] == 0).all() and not torch.allclose(warped, series)
    last = key_mask.sum(1) - 1
    rows = torch.arange(50)
    torch.testing.assert_close(warped[rows, last], series[rows, last])
    torch.testing.assert_close(warped[:, 0], series[:, 0])
    steps = warped[:, 1:, 0] - warped[:, :-1, 0]
    assert (steps[key_mask[:, 1:]] > 0).all()  # time goes on
    torch.testing.assert_close(augment(series, key_mask, warp=1e-6), series, atol=1e-5, rtol=0)
    scaled = augment(series, key_mask, scale=0.3) / series
    torch.testing.assert_close(scaled[:, 1], scaled[:, -1].where(key_mask[:, -1:], scaled[:, 1]))
    assert augment(series, None, jitter=0.1).sub(series).std() == pytest.approx(0.1, rel=0.1)


def test_recipes(tmp_path):
    assert recipe("JapaneseVowels", epochs="7", lr="0.1").epochs == 7 and recipe("Else").name == "Else"
    assert recipe("cifar10", bf16="False").bf16 is False and recipe("cifar10", compile="true").compile is True
    (tmp_path / "Photos" / "train").mkdir(parents=True)
    assert recipe("Photos", tmp_path).patch == 4 and isinstance(recipe("Photos"), SeriesRecipe)
    for wrong, message in (
        (dict(speed=1), "speed: expected a field of the recipe, one of epochs"),
        (dict(epochs="many"), "epochs: expected int; got 'many'"),
        (dict(bf16="maybe"), "bf16: expected bool; got 'maybe'"),
    ):
        with pytest.raises(ValueError, match=message):
            recipe("JapaneseVowels", **wrong)
    for kind in RECIPES.values():
        config = json.loads(json.dumps(to_config(kind(beta=0.25))))
        assert asdict(from_config(config)) == asdict(kind(beta=0.25))
    betas = {part.beta for member in SeriesRecipe("x", beta=0.3).primal("bn+sh") for part in member.transform}
    assert betas == {0.3}
    long = load_series("BasicMotions")
    long = long._replace(train=Split(torch.empty(40, 4000, 1), None, torch.zeros(40)))
    assert SeriesRecipe("x").fitted(long).epochs == 25 and SeriesRecipe("x", epochs=7).fitted(long).epochs == 7
    rates = [learning_rate(step, 100, 0.1) for step in range(100)]
    assert (
        rates[0] == 0.1
        and rates[9] == rates[10] == 1
        and rates[-1] < 1e-3
        and rates[10:] == sorted(rates[10:], reverse=True)
    )


def test_training_learns_and_is_recorded(tmp_path, motions):
    result = train(SeriesRecipe("BasicMotions", epochs=30, layers=1, width=32), "bn", 0, motions, tmp_path)
    assert result["test_accuracy"] > 0.6 and result["best_test_epoch"] >= result["test_accuracy"]
    run = tmp_path / "BasicMotions" / "bn" / "0"
    assert json.loads((run / "result.json").read_text()) == result == load(tmp_path)[0]
    assert (
        result["recipe"]["width"] == 32 and result["threads"] == torch.get_num_threads() and result["machine"]["cores"]
    )
    before = os.stat(run / "result.json").st_mtime_ns
    assert train(SeriesRecipe("BasicMotions", epochs=30, layers=1, width=32), "bn", 0, motions, tmp_path) == result
    assert os.stat(run / "result.json").st_mtime_ns == before


OPTIONS = [
    dict(optimizer="radam"),
    dict(ema=0.5),
    dict(bf16=True),
    dict(compile=True),
    dict(stochastic_depth=0.5, layers=2),
    dict(accumulate=3),
    dict(tensorboard=True),
    dict(norm="pre-layer", beta=0.3),
]


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning", "ignore:The .grad attribute")  # torch's compiler
@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: next(iter(options)))
def test_every_option_learns_and_resumes(tmp_path, motions, options):
    """Stopped after its second epoch and begun again, it ends as without a stop; and it is not what it is without."""
    chosen = replace(TINY, epochs=4, **options)

    class Stop(Exception):
        pass

    def stop(line):
        if line["epoch"] == 2:
            raise Stop

    whole = train(chosen, "bn+sh", 0, motions, tmp_path / "whole")
    with pytest.raises(Stop):
        train(chosen, "bn+sh", 0, motions, tmp_path / "stopped", stop)
    torch.manual_seed(9)
    torch._dynamo.reset()
    train(chosen, "bn+sh", 0, motions, tmp_path / "stopped")
    path = Path("BasicMotions") / "bn+sh" / "0"
    assert_same(tmp_path / "stopped" / path, tmp_path / "whole" / path)
    losses = [line["loss"] for line in contents(tmp_path / "whole" / path)[1]]
    assert losses[-1] < losses[0] and whole["recipe"] == to_config(chosen)
    plain = train(replace(TINY, epochs=4), "bn+sh", 0, motions, tmp_path / "plain")
    if "tensorboard" in options:
        assert list((tmp_path / "whole" / path).glob("events.out.tfevents.*"))
    elif "compile" not in options:
        ours, theirs = (load_file(tmp_path / each / path / "model.safetensors") for each in ("whole", "plain"))
        assert ours.keys() != theirs.keys() or any(not torch.equal(ours[name], theirs[name]) for name in ours), plain


def contents(run):
    """Weights, optimizer and log, time fields aside."""
    newest = None
    for file in run.glob("checkpoint-*.safetensors"):
        content = file.read_bytes()[:-32]
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        log = [{k: v for k, v in line.items() if k != "seconds"} for line in json.loads(header["__metadata__"]["log"])]
        if newest is None or len(log) > len(newest[1]):
            newest = load_tensors(content), log
    return newest


def assert_same(run, other):
    (tensors, log), (right, right_log) = contents(run), contents(other)
    assert log == right_log and tensors.keys() == right.keys()
    assert all(torch.equal(tensors[name], right[name]) for name in right)


PROGRAM = """
import torch
torch.set_num_threads(1)
from tests.test_train import TINY
from torch_impl.runs import train_all
from torch_impl.series import load_series
from torch_impl.train import train
data = load_series("BasicMotions")
print("ready", flush=True)
train(TINY, "bn+sh", 3, data, {folder!r})
"""


def test_a_run_that_is_killed_anywhere_ends_as_one_that_is_not(tmp_path, motions):
    train(TINY, "bn+sh", 3, motions, tmp_path / "whole")
    rng, kills = np.random.default_rng(0), 0
    folder = tmp_path / "killed"
    run = folder / "BasicMotions" / "bn+sh" / "3"
    for _ in range(60):
        with subprocess.Popen(
            [sys.executable, "-c", PROGRAM.format(folder=str(folder))], stdout=subprocess.PIPE
        ) as process:
            process.stdout.readline()
            time.sleep(rng.uniform(0, 0.12) if kills < 20 else 60 * (process.wait(60) or 0))
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                kills += 1
        if (run / "result.json").exists():
            if kills >= 20:
                break
            for file in run.iterdir():
                file.unlink()
    assert kills >= 20 and not list(run.glob(".*"))[20:]
    assert_same(run, tmp_path / "whole" / "BasicMotions" / "bn+sh" / "3")


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b"", lambda b: b[:100] + b"x" + b[101:]])
def test_a_damaged_checkpoint_is_told_and_the_one_before_is_used(tmp_path, motions, damage):
    train(TINY, "sh", 0, motions, tmp_path / "whole")
    train(TINY, "sh", 0, motions, tmp_path / "damaged")
    run, said = tmp_path / "damaged" / "BasicMotions" / "sh" / "0", []
    newest = run / "checkpoint-1.safetensors"  # of epoch 3
    newest.write_bytes(damage(newest.read_bytes()))
    (run / "result.json").unlink()
    train(TINY, "sh", 0, motions, tmp_path / "damaged", said.append)
    assert "checkpoint-1.safetensors: damaged; going on from the one before" in said[0] and len(said) == 2
    assert_same(run, tmp_path / "whole" / "BasicMotions" / "sh" / "0")


def test_what_cannot_go_on(tmp_path, motions):
    train(TINY, "sh", 0, motions, tmp_path)
    with pytest.raises(ValueError, match=r"BasicMotions/sh/0: expected epochs = 3, as it was begun; got 4"):
        train(replace(TINY, epochs=4), "sh", 0, motions, tmp_path)
    torch.set_num_threads(2)
    try:
        with pytest.raises(ValueError, match="expected threads = 1, as it was begun; got 2"):
            train(TINY, "sh", 0, motions, tmp_path)
    finally:
        torch.set_num_threads(1)
    with pytest.raises(ValueError, match=r"the loss is (nan|inf) at step \d+; try a smaller lr"):
        train(replace(TINY, lr=1e30, clip=1e30), "sh", 1, motions, tmp_path)


def test_accuracy_is_that_of_eval_mode_in_batches(motions):
    torch.manual_seed(0)
    model = TimeSeriesEncoder(**motions.sizes, width=16, num_heads=4, layers=1).train()

    def share(batch):
        return accuracy(TINY, model.train(), motions.test, motions, this_process(), batch)

    assert share(7) == share(1000) and not model.training


def run_of(attention, seed, right):
    return dict(
        recipe={"folds": 0},
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


def test_command_line(tmp_path):
    def call(*words):
        return CliRunner().invoke(app, list(map(str, words)))

    small = ["--epochs", 1, "--width", 16, "--layers", 1, "--folder", tmp_path]
    done = call("train", "BasicMotions", "--attention", "softmax", "bn", "--seeds", 2, *small)
    assert done.exit_code == 0 and "less softmax" in done.output, done.output
    again = call("results", tmp_path)
    assert again.exit_code == 0 and "softmax" in again.output
    for words, message in (
        (("BasicMotions", "--attention", "bm"), "did you mean bn"),
        (("BasicMotions", "--speed", "3"), "speed: expected a field"),
        (("BasicMotions", "--epochs"), "epochs: expected int; got 'true'"),
        (("BasicMotions", "softmax"), "expected --attention NAME"),
        (("BasicMotions", "--seeds", "0"), "--seeds: expected a whole number >= 1"),
        (("Nothing",), "expected a folder of the archive"),
    ):
        failed = call("train", *words, "--folder", tmp_path)
        assert failed.exit_code == 2 and message in failed.output and "Traceback" not in failed.output, failed.output
    assert call("results", tmp_path / "none").exit_code == 2
    kept = tmp_path / "kept.json"
    assert call("results", tmp_path, "--json", kept).exit_code == 0 and load(kept) == load(tmp_path)
    assert "| BasicMotions | bn | 2 |" in call("results", kept, "--markdown").output


@pytest.mark.parametrize("count", [0, 2])
def test_a_finished_run_is_evaluated_and_predicts(tmp_path, count):
    """From its weights alone it answers as it did; labels in the file are not looked at; padding, too, is as before."""
    write_set(tmp_path, train=["1,2,3:4,5,6:a", "3,2:1,0:b", "0,?,5:2,2,2:a", "9,8:7,6:b"] * 2)
    options = dict(epochs=3, layers=1, width=16, num_heads=4, folds=count)
    (result,) = train_all("Own", ["bn+sh"], 1, tmp_path, tmp_path / "runs", 1, options, Progress(disable=True))
    run = tmp_path / "runs" / "Own" / "bn+sh" / "0"
    share, cases = evaluate(run, tmp_path)
    assert share == result["test_accuracy"] and cases == 4
    new = tmp_path / "Own" / "Own_TEST.ts"
    probabilities, classes, _ = predict(run, new)
    data = load_series("Own", tmp_path) if not count else None
    if data:
        assert (probabilities.argmax(-1) == data.test.labels).double().mean() == share
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
        (("evaluate", run, "--data", tmp_path), "expected the data set that it was trained on"),
        (("predict", run, tmp_path / "none.ts"), "no such file"),
        (("predict", run, tmp_path / "long.ts"), "expected at most 3 time steps, as in training; got 4"),
    ):
        failed = call(*words)
        assert failed.exit_code == 2 and message in " ".join(failed.output.split()), failed.output
    (run / "model.safetensors").write_bytes(b"x")
    assert "expected the config and weights" in call("evaluate", run, "--data", tmp_path).output
