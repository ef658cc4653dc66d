"""Training that can be interrupted anywhere."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import load_file

from tests.torch_impl.training.short_runs import TINY
from torch_impl.analysis.accuracy_table import load
from torch_impl.data.dataset import Split
from torch_impl.models.encoders import TimeSeriesEncoder
from torch_impl.training.recipes.kinds import SeriesRecipe, to_config
from torch_impl.training.runs import trainer
from torch_impl.training.runs.distributed import share_batch, this_process
from torch_impl.training.runs.trainer import accuracy, train
from torch_impl.training.trained.finished_run import load_run


def test_the_accuracy_is_that_of_the_last_epoch(tmp_path, motions, monkeypatch):
    shares = iter([0.5, 0.9, 0.7])
    monkeypatch.setattr(trainer, "accuracy", lambda *_: next(shares))
    result = train(TINY, "softmax", 0, motions, tmp_path)
    assert (result["test_accuracy"], result["best_test_epoch"]) == (0.7, 0.9)


def test_weights_and_order_are_drawn_from_the_seed(tmp_path, motions, monkeypatch):
    orders = []

    def seen(batch, *rest):
        orders.append(batch.tolist())
        return share_batch(batch, *rest)

    monkeypatch.setattr(trainer, "share_batch", seen)
    still = replace(TINY, epochs=2, batch=40, lr=0.0)
    for seed in (0, 1):
        train(still, "softmax", seed, motions, tmp_path)
    assert len(set(map(tuple, orders))) == 4 and all(sorted(order) == list(range(40)) for order in orders)
    one, other = (load_run(tmp_path / "BasicMotions" / "softmax" / str(seed)).model for seed in (0, 1))
    assert not torch.equal(one.embed.weight, other.embed.weight)


def test_training_is_the_plain_loop(tmp_path, motions, monkeypatch):
    """Of three steps on all examples: smoothed labels, clipped gradients, decay of matrices alone, and the schedule."""
    monkeypatch.setattr(torch, "randperm", torch.arange)
    nothing_random = dict(norm="layer", warp=0.0, scale=0.0, jitter=0.0, dropout=0.0)
    options = dict(weight_decay=2.0, clip=0.3, label_smoothing=0.2, warm_up=0.4, lr=0.01)
    recipe = replace(TINY, batch=40, epochs=3, **nothing_random, **options)
    for folder, chosen in (("begun", replace(recipe, lr=0.0)), ("ended", recipe)):
        train(chosen, "softmax", 0, motions, tmp_path / folder)
    begun, ended = (load_run(tmp_path / each / "BasicMotions" / "softmax" / "0").model for each in ("begun", "ended"))
    matrices, vectors = ([p for p in begun.parameters() if (p.ndim > 1) == big] for big in (True, False))
    groups = [{"params": matrices, "weight_decay": 2.0}, {"params": vectors, "weight_decay": 0.0}]
    optimizer, split = torch.optim.AdamW(groups, fused=True), motions.train.to(this_process().device)
    with trainer._without_onednn():
        for lr in (0.01, 0.01, 0.005):
            logits = begun.train()(split.inputs, split.key_mask)
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(logits, split.labels, label_smoothing=0.2).backward()
            assert torch.nn.utils.clip_grad_norm_(begun.parameters(), 0.3) > 0.3
            for group in optimizer.param_groups:
                group["lr"] = lr
            optimizer.step()
    right, found = begun.state_dict(), ended.state_dict()
    assert all(torch.equal(found[name], right[name]) for name in right)


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
    dict(optimizer="radam", lr=1e-2),  # its first steps are short
    dict(ema=0.5),
    dict(bf16=True),
    dict(compile=True),
    dict(stochastic_depth=0.5, layers=2),
    dict(accumulate=3),
    dict(tensorboard=True),
    dict(norm="pre-layer", beta=0.3, learn_beta=True),
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


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b"", lambda b: b[:100] + b"x" + b[101:]])
def test_a_damaged_checkpoint_is_told_and_the_one_before_is_used(tmp_path, motions, damage):
    train(TINY, "sh", 0, motions, tmp_path / "whole")
    train(TINY, "sh", 0, motions, tmp_path / "damaged")
    run, said = tmp_path / "damaged" / "BasicMotions" / "sh" / "0", []
    newest = run / "checkpoint-1.safetensors"  # of epoch 3
    newest.write_bytes(damage(newest.read_bytes()))
    (run / "result.json").unlink()
    train(TINY, "sh", 0, motions, tmp_path / "damaged", said.append)
    assert "checkpoint-1.safetensors: damaged; going on from epoch 2" in said[0] and len(said) == 2
    assert_same(run, tmp_path / "whole" / "BasicMotions" / "sh" / "0")


def test_a_folder_in_the_place_of_a_checkpoint_is_told_before_training(tmp_path, motions):
    train(TINY, "sh", 0, motions, tmp_path)
    run = tmp_path / "BasicMotions" / "sh" / "0"
    (run / "result.json").unlink()
    (run / "checkpoint-0.safetensors").unlink()
    (run / "checkpoint-0.safetensors").mkdir()
    with pytest.raises(ValueError, match=r"checkpoint-0.safetensors: expected a checkpoint; got no file: move it away"):
        train(TINY, "sh", 0, motions, tmp_path)


def test_what_cannot_go_on(tmp_path, motions):
    train(TINY, "sh", 0, motions, tmp_path)
    with pytest.raises(ValueError, match=r"BasicMotions/sh/0: expected epochs = 3, as it was begun; got 4"):
        train(replace(TINY, epochs=4), "sh", 0, motions, tmp_path)
    done = train(replace(TINY, workers=2), "sh", 0, motions, tmp_path)  # this changes nothing
    assert done["recipe"]["workers"] == 0
    run = tmp_path / "BasicMotions" / "sh" / "0"
    torch.set_num_threads(2)
    try:
        assert train(TINY, "sh", 0, motions, tmp_path) == done
        (run / "result.json").unlink()
        with pytest.raises(ValueError, match="expected threads = 1, as it was begun; got 2"):
            train(TINY, "sh", 0, motions, tmp_path)
    finally:
        torch.set_num_threads(1)
    inputs = motions.train.inputs.clone()
    inputs[3, 5, 1] += 1
    other = motions._replace(train=Split(inputs, *motions.train[1:]))
    with pytest.raises(ValueError, match=r"expected fingerprint = 40 \+ 40 .* (\w+), as it was begun; got 40 \+ 40 "):
        train(TINY, "sh", 0, other, tmp_path)
    with pytest.raises(ValueError, match=r"the loss is (nan|inf) at step \d+; try a smaller lr"):
        train(replace(TINY, lr=1e30, clip=1e30), "sh", 1, motions, tmp_path)


def test_without_its_config_a_run_is_that_of_its_result_or_its_checkpoints(tmp_path, motions):
    train(TINY, "sh", 0, motions, tmp_path)
    run = tmp_path / "BasicMotions" / "sh" / "0"
    for file in ("config.json", "result.json"):
        (run / file).unlink()
        with pytest.raises(ValueError, match=r"BasicMotions/sh/0: expected lr = 0.001, as it was begun; got 0.1"):
            train(replace(TINY, lr=0.1), "sh", 0, motions, tmp_path)
        train(TINY, "sh", 0, motions, tmp_path)
        assert json.loads((run / "config.json").read_text())["recipe"]["lr"] == 0.001


def test_lost_weights_are_written_again_from_the_last_checkpoint(tmp_path, motions, monkeypatch):
    """Whatever the machine: nothing is trained."""
    done = train(TINY, "sh", 0, motions, tmp_path)
    weights = tmp_path / "BasicMotions" / "sh" / "0" / "model.safetensors"
    content, result = weights.read_bytes(), (weights.parent / "result.json").read_bytes()
    weights.unlink()
    monkeypatch.setattr(trainer, "describe_machine", lambda device: {"device": device, "commit": "b" * 40})
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    said = []
    assert train(TINY, "sh", 0, motions, tmp_path, said.append) == done and said == []
    assert weights.read_bytes() == content and (weights.parent / "result.json").read_bytes() == result


def test_a_run_that_goes_on_at_another_commit_says_so_and_is_of_both(tmp_path, motions, monkeypatch):
    def at(commit):
        monkeypatch.setattr(trainer, "describe_machine", lambda device: {"device": device, "commit": commit * 40})

    said = []
    at("a")
    train(TINY, "sh", 0, motions, tmp_path)
    run = tmp_path / "BasicMotions" / "sh" / "0"
    for file in ("result.json", "checkpoint-1.safetensors"):  # of epoch 3
        (run / file).unlink()
    at("b")
    result = train(TINY, "sh", 0, motions, tmp_path, said.append)
    both = f"{'a' * 40} + {'b' * 40}"
    assert result["machine"] == {"device": "cpu", "commit": both}
    assert said[0] == f"{run}: goes on with another commit {both}"


def test_weights_that_are_not_finite_are_no_result(tmp_path, motions):
    """The loss is that of the step before: after the last step, only the weights can tell."""
    one_step = replace(TINY, epochs=1, batch=len(motions.train), lr=3e38, weight_decay=1e3)
    with pytest.raises(
        ValueError, match="sh/0: the weights are not finite at the end; try a smaller lr or weight_decay"
    ):
        train(one_step, "sh", 0, motions, tmp_path)
    assert not list(tmp_path.rglob("model.safetensors")) and not list(tmp_path.rglob("result.json"))


def test_leftovers_of_kills_are_swept_and_bind_nobody(tmp_path, motions):
    run = tmp_path / "BasicMotions" / "sh" / "0"
    run.mkdir(parents=True)
    old, young = run / ".checkpoint-1-x.safetensors", run / ".log-y.jsonl"
    for file in (old, young):
        file.write_bytes(b"half")
    os.utime(old, (0, 0))
    (run / "config.json").write_text("{}")
    train(TINY, "sh", 0, motions, tmp_path)
    assert not old.exists() and young.exists()  # which another process may be writing


def test_a_run_of_an_older_version_without_a_fingerprint_goes_on(tmp_path, motions):
    train(TINY, "sh", 0, motions, tmp_path)
    file = tmp_path / "BasicMotions" / "sh" / "0" / "config.json"
    config = json.loads(file.read_text())
    del config["fingerprint"]
    file.write_text(json.dumps(config))
    train(TINY, "sh", 0, motions, tmp_path)
    del config["seed"]
    file.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"config.json: Object missing required field `seed`"):
        train(TINY, "sh", 0, motions, tmp_path)


def test_a_run_that_failed_before_its_first_epoch_binds_nobody(tmp_path, motions):
    with pytest.raises(ValueError, match="width: expected a multiple of 5 heads"):
        train(replace(TINY, num_heads=5), "softmax", 0, motions, tmp_path)
    train(TINY, "softmax", 0, motions, tmp_path)
    run = tmp_path / "BasicMotions" / "softmax" / "0"
    assert json.loads((run / "config.json").read_text())["recipe"]["num_heads"] == TINY.num_heads
    for file in run.glob("*.safetensors"):
        file.unlink()
    with pytest.raises(ValueError, match="expected epochs = 3, as it was begun; got 4"):  # its result is left
        train(replace(TINY, epochs=4), "softmax", 0, motions, tmp_path)


def test_accuracy_is_that_of_eval_mode_in_batches(motions):
    torch.manual_seed(0)
    world = this_process()
    model = TimeSeriesEncoder(**motions.sizes, width=16, num_heads=4, layers=1).to(world.device)

    def share(batch):
        return accuracy(TINY, model.train(), motions.test, motions, world, batch)

    assert share(7) == share(1000) and not model.training


def test_a_gpu_without_memory_is_told_in_one_line(tmp_path, motions, monkeypatch):
    def fail(*_):
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB")

    monkeypatch.setattr(trainer, "_train_epoch", fail)
    expected = "fits into the memory of the GPU; got CUDA out of memory. Tried to allocate 2 GiB; try a smaller batch"
    with pytest.raises(ValueError, match=expected):
        train(TINY, "bn", 0, motions, tmp_path)
