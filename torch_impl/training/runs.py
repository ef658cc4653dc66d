"""Many runs: all attentions and seeds of a recipe, one after the other, or several at a time in processes."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from queue import Empty, Queue
from typing import Any, NamedTuple

import torch
from rich.progress import Progress

from primal_dual.io.files import check_writable
from primal_dual.primal import catalog
from torch_impl.data.dataset import DataSet, folds
from torch_impl.training.base_recipe import Recipe
from torch_impl.training.benchmarks import recipe as recipe_of
from torch_impl.training.distributed import shutdown_distributed, this_process
from torch_impl.training.trainer import train


def train_all(
    name: str,
    attentions: Sequence[str],
    seeds: int,
    data_folder: Path | str | None,
    folder: Path | str,
    jobs: int,
    changes: dict[str, Any],
    progress: Progress,
) -> list[dict[str, Any]]:
    """Train some runs of each attention: those that are not done yet.

    Parameters
    ----------
    name : str
        Of the data set, see `benchmarks.recipe`.
    attentions : sequence of str
        Names of the catalog.
    seeds : int
        The number of runs of each attention, with seeds from 0.
    data_folder : path or None
        The folder of data sets.
    folder : path
        The folder of runs.
    jobs : int
        How many runs are trained at a time, each in a process of its own.
    changes : dict
        Fields of the recipe that are changed.
    progress : rich.progress.Progress
        Shows how far the training is.

    Returns
    -------
    list of dict
        The result of each run, see `train`, attention by attention.

    Raises
    ------
    ValueError
        For an unknown attention or field, for several jobs under torchrun, and for what loading and training refuse.
    """
    for attention in attentions:
        _ = catalog[attention]
    recipe = recipe_of(name, data_folder, **changes)
    if jobs > 1 and this_process().size > 1:
        raise ValueError(f"--jobs: expected 1 under torchrun, whose processes share each run; got {jobs}")
    Path(folder).mkdir(parents=True, exist_ok=True)
    check_writable(Path(folder) / "runs")
    data = recipe.load(data_folder, progress.console.print)
    recipe = recipe.resolve_defaults(data)
    runs = [_Run(attention, seed) for attention in attentions for seed in range(seeds)]
    show = _Show(progress, data.name, len(runs), recipe.epochs)
    work = _Work(recipe, data, Path(folder))
    if jobs > 1:
        return _in_processes(work, runs, jobs, show)
    results = [work.train(run, partial(show, run)) for run in runs]
    shutdown_distributed()
    return results


def fold_of_seed(data: DataSet, recipe: Recipe, seed: int) -> DataSet:
    """What a seed is trained and tested on: the data set or, if the recipe has folds, one of them."""
    return list(folds(data, recipe.folds))[seed % recipe.folds] if recipe.folds else data


class _Run(NamedTuple):
    """One run of a recipe."""

    attention: str
    seed: int


@dataclass(frozen=True)
class _Work:
    """What all runs share."""

    recipe: Recipe
    data: DataSet
    folder: Path

    def train(self, run: _Run, say: Callable[[Any], object]) -> dict[str, Any]:
        """Train a run, and say that it is done: a run that was done before has no line to say."""
        data = fold_of_seed(self.data, self.recipe, run.seed)
        result = train(self.recipe, run.attention, run.seed, data, self.folder, say)
        say({"epoch": self.recipe.epochs})
        return result


class _Show:
    """The progress bar, moved by the lines of all runs' logs. Messages are printed."""

    def __init__(self, progress: Progress, name: str, runs: int, epochs: int) -> None:
        self.progress = progress
        self.epochs_done: dict[_Run, int] = {}
        self.task = progress.add_task(name, total=runs * epochs)

    def __call__(self, run: _Run, line: dict[str, Any] | str) -> None:
        """Show a line of a run's log, or a message."""
        if isinstance(line, str):
            self.progress.console.print(line)
            return
        self.epochs_done[run] = line["epoch"]
        loss = f" loss {line['loss']:.3f}" if "loss" in line else ""
        description = f"{run.attention} {run.seed}{loss}"
        self.progress.update(self.task, description=description, completed=sum(self.epochs_done.values()))


def _in_processes(work: _Work, runs: list[_Run], jobs: int, show: _Show) -> list[dict[str, Any]]:
    """Train the runs, `jobs` of them at a time. After a failure no other run begins; those that are running end."""
    spawn = get_context("spawn")
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with spawn.Manager() as manager:
        lines = manager.Queue()
        with ProcessPoolExecutor(jobs, spawn, _begin_process, (threads, work, lines)) as pool:
            futures = [pool.submit(_train_in_process, run) for run in runs]
            while not all(future.done() for future in futures):
                if any(_failed(future) for future in futures):
                    pool.shutdown(cancel_futures=True)
                with suppress(Empty):
                    show(*lines.get(timeout=0.2))
            for future in futures:
                if _failed(future):
                    future.result()  # raises the error of the run
            return [future.result() for future in futures]


def _failed(future: Future) -> bool:
    return future.done() and not future.cancelled() and future.exception() is not None


_work: _Work  # of this process, where it is one of a pool's
_lines: Queue  # takes what its runs say


def _begin_process(threads: int, work: _Work, lines: Queue) -> None:
    """What a process of the pool is given once: the data set is large."""
    global _work, _lines
    torch.set_num_threads(threads)
    _work, _lines = work, lines


def _train_in_process(run: _Run) -> dict[str, Any]:
    return _work.train(run, lambda line: _lines.put((run, line)))
