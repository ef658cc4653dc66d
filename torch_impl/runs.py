"""Many runs: all attentions and seeds of a recipe, some at a time, each in a process with threads of its own."""

import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import torch

from primal_dual.data import check_writable
from primal_dual.primal import catalog
from torch_impl.data import folds
from torch_impl.recipes import recipe as chosen_recipe
from torch_impl.series import load_series
from torch_impl.train import train


def train_all(name, attentions, seeds, data_folder, folder, jobs, changes, progress):
    """Train `seeds` runs of each attention, those that are not done yet -> the summaries of all.

    progress: a rich Progress. Raises ValueError for an unknown attention or field, and what loading and training do.
    """
    for attention in attentions:
        _ = catalog[attention]
    recipe = chosen_recipe(name, **changes)
    data = load_series(name, data_folder)
    Path(folder).mkdir(parents=True, exist_ok=True)
    check_writable(Path(folder) / "runs")
    pairs = [(attention, seed) for attention in attentions for seed in range(seeds)]
    task = progress.add_task(name, total=len(pairs) * recipe.epochs)
    if jobs == 1:
        summaries = []
        for attention, seed in pairs:
            progress.update(task, description=f"{attention} {seed}")
            advance = _Advance(progress, task)
            summaries.append(train(recipe, attention, seed, part(data, recipe, seed), folder, advance))
            progress.advance(task, recipe.epochs - advance.epochs)
        return summaries
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with ProcessPoolExecutor(jobs, get_context("spawn"), _begin, (threads,)) as pool:
        running = [pool.submit(train, recipe, *pair, part(data, recipe, pair[1]), folder) for pair in pairs]
        for _ in as_completed(running):
            progress.advance(task, recipe.epochs)
        return [each.result() for each in running]


def part(data, recipe, seed):
    """What a seed is trained and tested on: the data set, or, with folds, its fold of the training split."""
    return list(folds(data, recipe.folds))[seed % recipe.folds] if recipe.folds else data


class _Advance:
    """Moves the progress bar on by an epoch for each line of the log, and shows whatever else is said."""

    def __init__(self, progress, task):
        self.progress, self.task, self.epochs = progress, task, 0

    def __call__(self, line):
        if isinstance(line, str):
            self.progress.console.print(line)
        else:
            self.epochs += 1
            self.progress.advance(self.task)


def _begin(threads):
    torch.set_num_threads(threads)
