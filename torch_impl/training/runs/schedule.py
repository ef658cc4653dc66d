"""Many runs: all attentions and seeds of a recipe, one after the other, or several at a time in processes."""

import os
import signal
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from math import inf
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

import torch
from rich.markup import escape
from rich.progress import Progress

from primal_dual.io.files import check_writable, ensure_folder
from primal_dual.io.text import printable
from torch_impl.data.dataset import DataSet, folds
from torch_impl.training.recipes.attentions import Attention, attention_text, find_attention
from torch_impl.training.recipes.base_recipe import Recipe
from torch_impl.training.recipes.benchmarks import recipe as recipe_of
from torch_impl.training.runs.distributed import shutdown_distributed, this_process
from torch_impl.training.runs.run_files import Config, read_json
from torch_impl.training.runs.run_folder import folder_of_run
from torch_impl.training.runs.trainer import begin, train


class OutOfTime(Exception):
    """A run that is stopped after an epoch, which it goes on from the next time."""


@dataclass(frozen=True)
class Schedule:
    """How runs share the machine, and until when.

    Parameters
    ----------
    jobs : int, optional
        How many runs are trained at a time, each in a process of its own; by default, see `Recipe.jobs`. Under
        torchrun, it is one.
    threads : int, optional
        The number of threads of each run; by default, see `Recipe.threads`, and that of a run that was begun is kept.
    until : float
        The time, by `time.time()`, after which no epoch is begun.
    """

    jobs: int | None = None
    threads: int | None = None
    until: float = inf


def train_all(
    name: str,
    attentions: Sequence[Attention],
    seeds: int,
    data_folder: Path | str | None,
    folder: Path | str,
    changes: dict[str, Any],
    progress: Progress,
    schedule: Schedule = Schedule(),
    without: Collection[tuple[Attention, int]] = (),
) -> list[dict[str, Any]]:
    """Train some runs of each attention: those that are not done yet, as far as the schedule allows.

    Parameters
    ----------
    name : str
        Of the data set, see `benchmarks.recipe`.
    attentions : sequence of str, Primal or Heads
        See `train`. One that is named twice is trained once.
    seeds : int
        The number of runs of each attention, with seeds from 0.
    data_folder : path or None
        The folder of data sets.
    folder : path
        The folder of runs.
    changes : dict
        Fields of the recipe that are changed.
    progress : rich.progress.Progress
        Shows how far the training is.
    schedule : Schedule
        How the runs share the machine, and until when.
    without : collection of (attention, seed)
        Runs that are left out.

    Returns
    -------
    list of dict
        The result of each run that is done, see `train`, attention by attention.

    Raises
    ------
    ValueError
        For an unknown attention or field, for several jobs under torchrun, and for what loading and training refuse.
    """
    attentions = list({attention_text(find_attention(each)): each for each in attentions}.values())
    runs = [_Run(attention, seed) for attention in attentions for seed in range(seeds)]
    runs = [run for run in runs if run not in without]
    recipe = recipe_of(name, data_folder, **changes)
    for attention in attentions:
        recipe.primal(find_attention(attention))  # refuses, before the data is loaded, what does not fit
    if not runs:
        return []
    if this_process().size > 1 and schedule.jobs not in (None, 1):
        raise ValueError(f"--jobs: expected 1 under torchrun, whose processes share each run; got {schedule.jobs}")
    check_writable(ensure_folder(folder) / "runs")
    data = recipe.load(data_folder, partial(_print, progress))
    recipe = recipe.resolve_defaults(data)
    jobs = schedule.jobs or (1 if this_process().size > 1 else recipe.jobs(len(runs), torch.cuda.is_available()))
    work = _Work(recipe, data, Path(folder), schedule, jobs)
    for run in runs:
        work.check(run)
    this_process().wait()  # before another process makes the folder of a run
    show = _Show(progress, data.name, {run: work.epochs_done(run) for run in runs}, recipe.epochs)
    results = _in_processes(work, runs, show) if jobs > 1 else [work.train(run, partial(show, run)) for run in runs]
    shutdown_distributed()
    return [result for result in results if result is not None]


def fold_of_seed(data: DataSet, recipe: Recipe, seed: int) -> DataSet:
    """What a seed is trained and tested on: the data set or, if the recipe has folds, one of them."""
    return next(islice(folds(data, recipe.folds), seed % recipe.folds, None)) if recipe.folds else data


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Let torch use so many threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Run(NamedTuple):
    """One run of a recipe."""

    attention: Attention
    seed: int


@dataclass(frozen=True)
class _Work:
    """What all runs share."""

    recipe: Recipe
    data: DataSet
    folder: Path
    schedule: Schedule
    jobs: int

    def check(self, run: _Run) -> None:
        """Refuse a run that was begun with another configuration, before any other run is trained."""
        if self._begun(run):
            attention, data = find_attention(run.attention), fold_of_seed(self.data, self.recipe, run.seed)
            with _threads(self._threads_of(run)):
                begin(self.recipe, attention, run.seed, data, self.folder, this_process())

    def train(self, run: _Run, say: Callable[[Any], object]) -> dict[str, Any] | None:
        """Train a run, and say that it is done, since one that was done before says nothing. None if time is up."""

        def say_in_time(line: Any) -> None:
            say(line)
            if time.time() > self.schedule.until:
                raise OutOfTime

        if time.time() > self.schedule.until:
            return None
        data = fold_of_seed(self.data, self.recipe, run.seed)
        try:
            with _threads(self._threads_of(run)):
                result = train(self.recipe, run.attention, run.seed, data, self.folder, say_in_time)
        except OutOfTime:
            return None
        say({"epoch": self.recipe.epochs})
        return result

    def epochs_done(self, run: _Run) -> int:
        """How many are in the log of a run that was begun."""
        begun = self._begun(run)
        log = begun.with_name("log.jsonl") if begun else None
        return log.read_bytes().count(b"\n") if log and log.is_file() else 0

    def _begun(self, run: _Run) -> Path | None:
        """The config.json of a run that was begun."""
        text = attention_text(find_attention(run.attention))
        config = folder_of_run(self.folder, self.data.name, text, run.seed) / "config.json"
        return config if config.exists() else None

    def _threads_of(self, run: _Run) -> int:
        """Those that the schedule names; else those that the run was begun with; else the default."""
        if self.schedule.threads:
            return self.schedule.threads
        begun = self._begun(run)
        recorded = read_json(begun, Config).get("threads") if begun else None
        return recorded or self.recipe.threads(self.jobs)


class _Show:
    """The progress bar, moved by the lines of all runs' logs. Messages are printed."""

    def __init__(self, progress: Progress, name: str, epochs_done: dict[_Run, int], epochs: int) -> None:
        self.progress, self.epochs_done = progress, epochs_done
        self.task = progress.add_task(
            escape(printable(name)), total=len(epochs_done) * epochs, completed=sum(epochs_done.values())
        )

    def __call__(self, run: _Run, line: dict[str, Any] | str) -> None:
        """Show a line of a run's log, or a message."""
        if isinstance(line, str):
            self.message(line)
            return
        self.epochs_done[run] = line["epoch"]
        loss = f", loss {line['loss']:.3f}" if "loss" in line else ""
        description = escape(printable(f"epochs, {run.attention} {run.seed}{loss}"))
        self.progress.update(self.task, description=description, completed=sum(self.epochs_done.values()))

    def message(self, text: str) -> None:
        """A line above the progress bar."""
        _print(self.progress, text)


def _print(progress: Progress, message: str) -> None:
    """A line above the progress bar, in which names and errors of files are not taken for markup."""
    progress.console.print(printable(message), markup=False, highlight=False, soft_wrap=True)


def _in_processes(work: _Work, runs: list[_Run], show: _Show) -> list[dict[str, Any] | None]:
    """Train the runs in processes. After a failure no other run begins; those that are running end first."""
    spawn, others = get_context("spawn"), active_children()
    lines = spawn.SimpleQueue()  # a line is in it before its run is done
    waiting, futures = deque(runs), list[Future]()
    running: set[Future] = set()
    with ProcessPoolExecutor(work.jobs, spawn, _begin_process, (work, lines)) as pool:
        try:
            while waiting or running:
                while waiting and len(running) < work.jobs:
                    futures.append(pool.submit(_train_in_process, waiting.popleft()))
                    running.add(futures[-1])
                done, running = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
                while not lines.empty():
                    show(*lines.get())
                for error in filter(None, (future.exception() for future in done)):
                    waiting.clear()
                    if running:
                        show.message(f"error: {error}; no other run begins, and what is running goes on to its end")
            return [future.result() for future in futures]
        except BrokenProcessPool as error:
            expected = "expected that all runs end"
            got = "got one that was killed, perhaps for lack of memory"
            raise ValueError(f"{expected}; {got}: try fewer --jobs") from error
        except BaseException:  # Ctrl-C, which the processes do not heed
            for process in set(active_children()) - set(others):
                process.terminate()
            raise


_work: _Work  # of this process, where it is one of a pool's
_lines: Any  # the queue that takes what its runs say


def _begin_process(work: _Work, lines: Any) -> None:
    """What a process of the pool is given once: the data set is large. It ends with its parent, however that ends."""
    global _work, _lines
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()
    _work, _lines = work, lines


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _train_in_process(run: _Run) -> dict[str, Any] | None:
    return _work.train(run, lambda line: _lines.put((run, line)))
