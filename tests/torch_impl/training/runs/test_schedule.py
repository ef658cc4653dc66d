"""Several runs at a time: what they say is shown, and what happens when one of them fails, is killed or interrupted."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.progress import Progress

from tests.torch_impl.training.runs.test_runs import exists, wait_until
from torch_impl.training.runs.schedule import OutOfTime, Schedule, _in_processes, _Run, _Work, train_all

RUNS = [_Run("bn", seed) for seed in range(4)]
TINY = dict(epochs=2, layers=1, width=16, num_heads=4, feedforward=16, scales="1 2")


HEED_INTERRUPTS = """
import signal
from primal_dual.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell turns off for what runs in the background
main()
"""


class Shown(list):
    """What a progress bar would be given."""

    def __call__(self, run, line):
        self.append((run, line))

    def message(self, text):
        self.append(text)


@dataclass
class Talkative:
    """Runs that say much, and are done."""

    jobs: int = 2

    def train(self, run, say):
        for epoch in range(200):
            say({"epoch": epoch})
        say("the last word")
        return {"seed": run.seed}


@dataclass
class Failing:
    """Run 0 fails at once, run 1 goes on for a while; a file tells which of them began."""

    folder: Path
    jobs: int = 2

    def train(self, run, say):
        (self.folder / str(run.seed)).touch()
        if run.seed == 0:
            raise ValueError("the loss is nan")
        time.sleep(1)
        say("the last word")


class Killed(Talkative):
    """Run 1 is killed."""

    def train(self, run, say):
        if run.seed == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(1)


@contextmanager
def stop_after_an_epoch(monkeypatch):
    """Runs are stopped when they say their first line."""

    def train(self, run, say):
        def stop(line):
            raise OutOfTime

        try:
            return whole(self, run, stop)
        except OutOfTime:
            return None

    whole = _Work.train
    with monkeypatch.context() as patch:
        patch.setattr(_Work, "train", train)
        yield


def test_every_line_is_shown():
    shown = Shown()
    assert _in_processes(Talkative(), RUNS, shown) == [{"seed": seed} for seed in range(4)]
    assert len(shown) == 4 * 201
    for run in RUNS:
        own = [line for each, line in shown if each == run]
        assert own == [*({"epoch": epoch} for epoch in range(200)), "the last word"]


def test_after_a_failure_no_other_run_begins_and_it_is_told_at_once(tmp_path):
    shown = Shown()
    with pytest.raises(ValueError, match="the loss is nan"):
        _in_processes(Failing(tmp_path), RUNS, shown)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["0", "1"]
    assert "error: the loss is nan; no other run begins" in shown[0] and shown[1] == (RUNS[1], "the last word")


def test_a_run_that_is_killed_is_an_error_in_words():
    with pytest.raises(ValueError, match="one that was killed, perhaps for lack of memory: try fewer --jobs"):
        _in_processes(Killed(), RUNS, Shown())


@pytest.mark.parametrize("interrupt", [os.kill, os.killpg])  # the parent alone, and all processes, as Ctrl-C does
def test_an_interrupt_ends_the_runs_and_begins_no_other(tmp_path, interrupt):
    words = "train BasicMotions --attention bn --jobs 2 --seeds 4 --epochs 100000 --layers 1 --width 16"
    command = [sys.executable, "-c", HEED_INTERRUPTS, *words.split(), "--folder", str(tmp_path)]
    parent = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: len(list(tmp_path.rglob("log.jsonl"))) == 2)
        interrupt(parent.pid, signal.SIGINT)
        _, errors = parent.communicate(timeout=60)
        wait_until(lambda: not exists(parent.pid))
    finally:
        if exists(parent.pid):
            os.killpg(parent.pid, signal.SIGKILL)
    assert parent.returncode and "Traceback" not in errors, errors
    assert len(list(tmp_path.rglob("config.json"))) == 2


def test_a_run_keeps_the_threads_that_it_was_begun_with(tmp_path, monkeypatch):
    def train(seeds, **schedule):
        options = Progress(disable=True), Schedule(jobs=1, **schedule)
        return train_all("BasicMotions", ["bn"], seeds, None, tmp_path, TINY, *options)

    with stop_after_an_epoch(monkeypatch):
        assert train(1, threads=2) == []
    with pytest.raises(ValueError, match="bn/0: expected threads = 2, as it was begun; got 1"):
        train(1, threads=1)
    assert [result["threads"] for result in train(2)] == [2, 1]  # one is the default of a series
    assert [result["threads"] for result in train(2, threads=2)] == [2, 1]  # both are finished


def test_the_progress_begins_with_the_epochs_that_were_done_before(tmp_path, monkeypatch):
    def train(schedule):
        progress = Progress(disable=True)
        train_all("BasicMotions", ["bn"], 2, None, tmp_path, TINY, progress, schedule)
        return progress.tasks[0].completed, progress.tasks[0].total

    with stop_after_an_epoch(monkeypatch):
        assert train(Schedule(jobs=1)) == (0, 4)  # the run is stopped before its first line is shown
    assert train(Schedule(jobs=1, until=0)) == (2, 4)
    assert train(Schedule(jobs=1)) == (4, 4)


def test_an_attention_that_is_named_twice_is_trained_once(tmp_path):
    results = train_all("BasicMotions", ["bn", "bn"], 1, None, tmp_path, TINY, Progress(disable=True), Schedule(jobs=2))
    assert [result["attention"] for result in results] == ["bn"]
    assert train_all("BasicMotions", ["bn"], 1, None, tmp_path, TINY, Progress(disable=True), without={("bn", 0)}) == []
