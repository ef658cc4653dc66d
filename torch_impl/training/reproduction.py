"""Run a plan of experiments as far as the time allows; what is begun goes on the next time."""

import time
from collections.abc import Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.progress import Progress

from torch_impl.data.messages import Say
from torch_impl.training.experiments import Experiment, data_folder
from torch_impl.training.runs.schedule import Schedule, train_all

Results = Sequence[Mapping[str, Any]]
NO_DATA, NO_GPU = "missing data", "needs a GPU"


class Status(NamedTuple):
    """How much of an experiment is done.

    Parameters
    ----------
    experiment : Experiment
        The experiment.
    done : int
        The number of its runs that are done.
    lacks : str
        What keeps it from going on here, "missing data" or "needs a GPU"; empty if nothing does.
    """

    experiment: Experiment
    done: int
    lacks: str

    @property
    def state(self) -> str:
        """In two words: "done", what it lacks, "partial" or "to do"."""
        if self.done == self.experiment.runs:
            return "done"
        return self.lacks or ("partial" if self.done else "to do")

    @property
    def minutes(self) -> float | None:
        """What the rest takes on one core; None if that was not measured."""
        each = self.experiment.minutes
        return None if each is None else each * (self.experiment.runs - self.done)


def statuses(plan: Sequence[Experiment], results: Results, folders: Sequence[Path]) -> list[Status]:
    """The status of each experiment of a plan.

    Parameters
    ----------
    plan : sequence of Experiment
        The plan.
    results : sequence of dict
        The results that there are, as `train` returns them.
    folders : sequence of path
        The folders of data sets.
    """
    return [Status(each, len(each.done(results)), _lacks(each, folders)) for each in plan]


def reproduce(
    plan: Sequence[Experiment],
    results: Results,
    folders: Sequence[Path],
    runs: Path,
    progress: Progress,
    say: Say,
    until: float = inf,
) -> bool:
    """Train what is not done of a plan, one experiment after the other, until the time is up.

    An experiment without data, or without the GPU that it needs, is told, and left out; so is one that fails.

    Parameters
    ----------
    plan, results, folders
        As in `statuses`.
    runs : path
        The folder of runs.
    progress : rich.progress.Progress
        Shows how far the training is.
    say : callable
        Is called with what is begun, and with what is left out.
    until : float
        The time, by `time.time()`, after which no epoch is begun.

    Returns
    -------
    bool
        Whether none failed.
    """
    none_failed = True
    for status in statuses(plan, results, folders):
        experiment = status.experiment
        if time.time() > until or status.state == "done":
            continue
        if status.lacks == NO_GPU:
            say(f"left out: {experiment.title}: {NO_GPU}")
            continue
        try:
            data = data_folder(experiment, folders)
        except ValueError as error:
            say(f"left out: {experiment.title}: {error}")
            continue
        try:
            say(f"{experiment.title}: {experiment.runs - status.done} of {experiment.runs} runs to do")
            train_all(
                experiment.data,
                experiment.attentions,
                experiment.seeds,
                data,
                runs / experiment.variant,
                dict(experiment.changes),
                progress,
                Schedule(until=until),
                experiment.done(results),
            )
        except (ValueError, OSError) as error:
            say(f"failed: {experiment.title}: {error}")
            none_failed = False
    return none_failed


def _lacks(experiment: Experiment, folders: Sequence[Path]) -> str:
    if experiment.needs_gpu and not torch.cuda.is_available():
        return NO_GPU
    try:
        data_folder(experiment, folders)
    except ValueError:
        return NO_DATA
    return ""
