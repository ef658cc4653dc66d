"""A batch shared out: to processes under torchrun, and to parts of a batch, gives what one process gives at once."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from torch_impl.training.runs.distributed import this_process

ON_CPUS = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "CUDA_VISIBLE_DEVICES": ""}
PROGRAM = """
import sys, torch
from torch_impl.data.dataset import Split
from torch_impl.training.recipes.kinds import SeriesRecipe
from torch_impl.data.series import load_series
from torch_impl.training.runs.distributed import shutdown_distributed
from torch_impl.training.runs.trainer import train
torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)
data = load_series("BasicMotions")
train_split, test_split = (Split(x.inputs.double(), x.key_mask, x.labels) for x in (data.train, data.test))
data = data._replace(train=train_split, test=test_split)
recipe = SeriesRecipe("BasicMotions", epochs=2, batch=13, layers=2, width=16, num_heads=4, feedforward=16, dropout=0.0,
                      norm=sys.argv[3], warp=0.0, scale=0.0, jitter=0.0, accumulate=int(sys.argv[2]), ema=0.9)
train(recipe, "bn+sh", 1, data, sys.argv[1])
shutdown_distributed()
"""


def run(folder, processes=1, accumulate=1, norm="layer"):
    program = folder / "program.py"
    program.write_text(PROGRAM)
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] * (processes > 1)
    environment = {**ON_CPUS, "PYTHONPATH": os.getcwd()}
    command = [sys.executable, *launcher, str(program), str(folder), str(accumulate), norm]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def result(folder):
    run = folder / "BasicMotions" / "bn+sh" / "1"
    return load_file(run / "model.safetensors"), json.loads((run / "result.json").read_text()), run / "log.jsonl"


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    done = run(folder)
    assert done.returncode == 0, done.stderr
    return result(folder)


@pytest.mark.parametrize("options", [dict(processes=2), dict(accumulate=3), dict(processes=2, accumulate=2)])
def test_a_shared_batch_gives_the_same_weights_and_metrics(tmp_path, alone, options):
    """40 cases in batches of 13, so that the last has one: a process or part without any still agrees."""
    done = run(tmp_path, **options)
    assert done.returncode == 0, done.stderr
    (weights, summary, log), (right, right_summary, right_log) = result(tmp_path), alone
    for name, x in right.items():
        torch.testing.assert_close(weights[name], x, rtol=1e-9, atol=1e-10)
    assert summary["test_accuracy"] == right_summary["test_accuracy"]
    losses = [[json.loads(line)["loss"] for line in file.read_text().splitlines()] for file in (log, right_log)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)
    assert summary["processes"] == options.get("processes", 1)


def test_what_cannot_be_shared(tmp_path, alone):
    failed = run(tmp_path, processes=2, norm="batch")
    assert failed.returncode and "norm: expected layer or pre-layer" in failed.stderr
    assert run(tmp_path).returncode == 0  # nothing was trained, so that another configuration may begin
    next(tmp_path.rglob("result.json")).unlink()
    failed = run(tmp_path, processes=2)
    assert failed.returncode and "expected processes = 1, as it was begun; got 2" in failed.stderr


def test_torchrun_of_the_command_line(tmp_path):
    """One table, of runs that both processes trained."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    words = "-m primal_dual.cli train BasicMotions --attention softmax --seeds 1 --epochs 1 --norm layer --layers 1"
    command = [*launcher, *words.split(), "--folder", str(tmp_path)]
    done = subprocess.run(command, env=ON_CPUS, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stdout.count("BasicMotions") == 1, done.stderr
    summary = json.loads((tmp_path / "BasicMotions" / "softmax" / "0" / "result.json").read_text())
    assert summary["processes"] == 2 and "destroy_process_group" not in done.stderr
    failed = subprocess.run([*command, "--jobs", "2"], env=ON_CPUS, capture_output=True, text=True, timeout=300)
    assert failed.returncode and "--jobs: expected 1 under torchrun" in failed.stderr


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(ValueError, match="torchrun: expected a GPU a process; got 1 for process 1"):
        this_process()
