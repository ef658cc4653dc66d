"""Many runs: all attentions and seeds of a recipe, some at a time, each in a process with threads of its own."""

import os
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from queue import Empty

import torch

from primal_dual.io.files import check_writable
from primal_dual.primal import catalog
from torch_impl.data.dataset import folds
from torch_impl.training.benchmarks import recipe as chosen_recipe
from torch_impl.training.distributed import shutdown_distributed, this_process
from torch_impl.training.trainer import train


def train_all(name, attentions, seeds, data_folder, folder, jobs, changes, progress):
    """Train `seeds` runs of each attention, those that are not done yet -> the summaries of all.

    progress: a rich Progress. Raises ValueError for an unknown attention or field, for jobs beside torchrun, and what
    loading and training do.
    """
    for attention in attentions:
        _ = catalog[attention]
    recipe = chosen_recipe(name, data_folder, **changes)
    if jobs > 1 and this_process().size > 1:
        raise ValueError(f"--jobs: expected 1 under torchrun, whose processes share each run; got {jobs}")
    Path(folder).mkdir(parents=True, exist_ok=True)
    check_writable(Path(folder) / "runs")
    data = recipe.load(data_folder, progress.console.print)
    recipe = recipe.resolve_defaults(data)
    pairs = [(attention, seed) for attention in attentions for seed in range(seeds)]
    show = _Show(progress, data.name, len(pairs), recipe.epochs)
    if jobs == 1:
        summaries = [_run(recipe, data, folder, pair, partial(show, pair)) for pair in pairs]
        shutdown_distributed()
        return summaries
    spawn, threads = get_context("spawn"), max(1, (os.cpu_count() or 1) // jobs)
    with (
        spawn.Manager() as manager,
        ProcessPoolExecutor(jobs, spawn, _begin, (threads, recipe, data, folder, lines := manager.Queue())) as pool,
    ):
        running = [pool.submit(_run_in_pool, pair) for pair in pairs]
        while not all(each.done() for each in running):
            if any(each.done() and not each.cancelled() and each.exception() for each in running):
                pool.shutdown(cancel_futures=True)  # those that run go on to their end
            with suppress(Empty):
                show(*lines.get(timeout=0.2))
        failed = [each.exception() for each in running if not each.cancelled() and each.exception()]
        if failed:
            raise failed[0]
        return [each.result() for each in running]


def fold_of_seed(data, recipe, seed):
    """What a seed is trained and tested on: the data set, or, with folds, its fold of the training split."""
    return list(folds(data, recipe.folds))[seed % recipe.folds] if recipe.folds else data


def _run(recipe, data, folder, pair, say):
    summary = train(recipe, *pair, fold_of_seed(data, recipe, pair[1]), folder, say)
    say({"epoch": recipe.epochs})
    return summary


def _begin(threads, *common):
    global _common
    torch.set_num_threads(threads)
    _common = common


def _run_in_pool(pair):
    recipe, data, folder, lines = _common
    return _run(recipe, data, folder, pair, lambda line: lines.put((pair, line)))


class _Show:
    """The progress bar, moved by the lines of all runs' logs; whatever else is said is printed."""

    def __init__(self, progress, name, runs, epochs):
        self.progress, self.done = progress, {}
        self.task = progress.add_task(name, total=runs * epochs)

    def __call__(self, pair, line):
        if isinstance(line, str):
            self.progress.console.print(line)
            return
        self.done[pair] = line["epoch"]
        loss = f" loss {line['loss']:.3f}" if "loss" in line else ""
        self.progress.update(self.task, description=f"{pair[0]} {pair[1]}{loss}", completed=sum(self.done.values()))
