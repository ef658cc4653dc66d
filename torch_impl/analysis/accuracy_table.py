"""The table of results: accuracies over the seeds, and their paired differences to softmax."""

import json
import statistics
from collections.abc import Sequence
from functools import cache
from math import sqrt
from pathlib import Path
from typing import Any, NamedTuple

from scipy.stats import t

from primal_dual.primal import catalog
from torch_impl.training.experiments import PLAN
from torch_impl.training.recipes.benchmarks import RECIPES
from torch_impl.training.recipes.kinds import deciding_fields, from_config, to_config
from torch_impl.training.runs.run_files import Result, Results, read_json
from torch_impl.training.runs.run_folder import results_below

# Deciding fields that a title does not name: folds has words of its own, learn_beta is told with the attention, and the
# name of the data set tells the length and the number of examples.
FIELDS_NOT_IN_TITLE = ("folds", "learn_beta", "length", "cases")


def load(*paths: Path | str) -> list[dict[str, Any]]:
    """The results of all finished runs below some folders, or in files that hold several.

    Parameters
    ----------
    *paths : path
        Folders of runs, and files that `primal-dual results --json` wrote. A run that is in several of them is taken
        from the first.

    Raises
    ------
    ValueError
        If there is none, and for a file that holds something else.
    """
    files = []
    for path in map(Path, paths):
        below = [path] if path.is_file() else results_below(path)
        if not below:
            expected = "expected finished runs, with a result.json"
            raise ValueError(f"{path}: {expected}; got none. Run primal-dual train first")
        files += below
    results: list[dict[str, Any]] = []
    for file in files:
        found = [read_json(file, Result)] if file.name == "result.json" else read_json(file, Results)["runs"]
        for result in found:
            from_config(result["recipe"], file)  # refuses what is no recipe
        results += found
    return list({_key(result): result for result in reversed(results)}.values())[::-1]


def table(results: Sequence[Result]) -> list[dict[str, Any]]:
    """The rows of the table: one for each recipe and attention, in the order of the catalog, and then others.

    Runs of one recipe and attention at several commits, on other data under the same name, or with another content of
    the attention's file have rows of their own; differences are of one commit and the same data.

    Parameters
    ----------
    results : sequence of dict
        Those of the runs.

    Returns
    -------
    list of dict
        With recipe, attention, and seeds, their number; mean and deviation, the mean and the standard deviation of the
        test accuracy over the seeds, in percent; differences, those to softmax with the same seed, and difference,
        their `interval`; and the means of best_test_epoch, in percent, and of seconds. deviation and difference are
        None where there are fewer than two seeds; the difference is, too, for softmax itself.

    Examples
    --------
    >>> from torch_impl.training.recipes.kinds import SeriesRecipe
    >>> recipe = to_config(SeriesRecipe("mine"))
    >>> run = {"recipe": recipe, "data": "mine", "best_test_epoch": 0.9, "seconds": 1.0}
    >>> runs = [run | {"attention": "bn", "seed": s, "test_accuracy": x} for s, x in enumerate((0.7, 0.8))]
    >>> [(row["attention"], row["seeds"], row["mean"], round(row["deviation"], 3)) for row in table(runs)]
    [('bn', 2, 75.0, 7.071)]
    """
    return [
        {"recipe": cell.recipe, "attention": cell.attention} | _statistics(cell, results) for cell in cells(results)
    ]


class Cell(NamedTuple):
    """The runs of a row: of one recipe and attention, on the same data at one commit.

    Parameters
    ----------
    recipe : str
        Its title; with the commit, the data or the attention's file, whichever of them other rows have another of.
    attention : str
        Its name or text, and whether its beta was learned.
    runs : dict
        For each seed, which of the results it is.
    softmax : dict
        The same for softmax, by the same recipe on the same data at the same commit; empty for softmax itself.
    """

    recipe: str
    attention: str
    runs: dict[int, int]
    softmax: dict[int, int]

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """A run and that of softmax with the same seed, for each seed that both have."""
        return [(i, self.softmax[seed]) for seed, i in self.runs.items() if seed in self.softmax]


def cells(results: Sequence[Result]) -> list[Cell]:
    """The rows of a table of runs, by their recipes, and those of a recipe in the order of the catalog, then others."""
    found: dict[tuple[str, str, _Origin], dict[int, int]] = {}
    for i, (name, result) in enumerate(zip(titles(results), results, strict=True)):
        found.setdefault((name, label(result), _origin(result)), {})[result["seed"]] = i
    rows = []
    for (name, attention, origin), runs in found.items():
        differences = _differences(origin, [each[2] for each in found if each[:2] == (name, attention)])
        softmax = {} if attention == "softmax" else found.get((name, "softmax", origin._replace(file=None)), {})
        rows.append(Cell(", ".join([name, *differences]), attention, runs, softmax))
    order = {name: i for i, name in enumerate(catalog)}
    return sorted(rows, key=lambda cell: (cell.recipe, order.get(cell.attention, len(order)), cell.attention))


def label(result: Result) -> str:
    """The attention of a run, and whether it learned its beta, which softmax does not have."""
    attention = result["attention"]
    learned = result["recipe"].get("learn_beta") and "BatchNorm" in str(catalog.get(attention, attention))
    return f"{attention}, learned beta" if learned else attention


def title(result: Result) -> str:
    """The data set of a run, and the fields that were changed from its recipe: "cifar10, 5 folds, epochs 3".

    Changes that have a name in the plan of experiments have that name: "cifar10, short". A data set without a recipe of
    its own has its name alone.
    """
    now = deciding_fields(result["recipe"])
    changes = [f"{now['folds']} folds"] if now["folds"] else []
    if now["name"] in RECIPES:
        planned = _planned_titles().get(json.dumps(now, sort_keys=True))
        if planned:
            return planned
        recipe = deciding_fields(to_config(RECIPES[now["name"]]()))  # type: ignore[call-arg]
        names = [name for name in recipe if name not in FIELDS_NOT_IN_TITLE and now[name] != recipe[name]]
        changes += [f"{name} {now[name]}" for name in names]
    return ", ".join([result["data"], *changes])


@cache
def _planned_titles() -> dict[str, str]:
    """The titles of the experiments whose changes a title tells, by their recipes' deciding fields, in JSON."""
    told = [each for each in PLAN if each.changes.keys() - set(FIELDS_NOT_IN_TITLE)]
    return {json.dumps(deciding_fields(to_config(each.recipe)), sort_keys=True): each.title for each in told}


def titles(results: Sequence[Result]) -> list[str]:
    """The title of each run, and the fields in which runs of one title differ: "mine, epochs 15"."""
    names = [title(result) for result in results]
    recipes = [deciding_fields(result["recipe"]) for result in results]
    values: dict[tuple[str, str], set[str]] = {}  # of a field, among the runs of a title
    for name, recipe in zip(names, recipes, strict=True):
        for field, value in recipe.items():
            values.setdefault((name, field), set()).add(str(value))
    return [
        ", ".join([name, *(f"{field} {recipe[field]}" for field in recipe if _tells(field, values[name, field]))])
        for name, recipe in zip(names, recipes, strict=True)
    ]


def _tells(field: str, values: set[str]) -> bool:
    return len(values) > 1 and field not in FIELDS_NOT_IN_TITLE


def interval(differences: Sequence[float]) -> tuple[float, float, float]:
    """The mean of paired differences and its 95 % interval by Student's t, as (mean, low, high).

        mean ± t s / sqrt(n),    s the standard deviation of the n differences, t the 97.5 % quantile at n - 1 degrees

    Tutorial 8 derives it.

    Examples
    --------
    >>> [round(x, 3) for x in interval([1.0, 2.0, 3.0])]
    [2.0, -0.484, 4.484]
    """
    n, mean = len(differences), statistics.mean(differences)
    half = float(t.ppf(0.975, n - 1)) * statistics.stdev(differences) / sqrt(n)
    return mean, mean - half, mean + half


def _key(result: Result) -> str:
    """What tells a run apart from all others."""
    parts = deciding_fields(result["recipe"]), result["data"], result["attention"], result["seed"], _origin(result)
    return json.dumps(parts, sort_keys=True)


class _Origin(NamedTuple):
    """What runs of one row have in common beside their recipe, each in a few letters: the commit, the data, and the
    file of an attention that comes from one.
    """

    commit: str | None
    data: str | None
    file: str | None


def _origin(result: Result) -> _Origin:
    commit, fingerprint, files = commit_of(result), result.get("fingerprint"), result.get("attention_files")
    same_data = not result["recipe"].get("folds")  # else each seed has a fold of its own
    return _Origin(
        commit and " + ".join(each[:7] + each[40:] for each in commit.split(" + ")),  # 40 letters, and maybe "-dirty"
        fingerprint.split()[-1][:7] if fingerprint and same_data else None,
        " ".join(digest[:7] for digest in files.values()) if files else None,
    )


def _differences(origin: _Origin, others: Sequence[_Origin]) -> list[str]:
    """That in which some origins differ, of one of them: "commit 1a2b3c4"."""
    return [
        f"{name} {value}"
        for name, value, *all_values in zip(_Origin._fields, origin, *others, strict=True)
        if len(set(all_values)) > 1
    ]


def commit_of(result: Result) -> str | None:
    """The commit that a run was trained at, if it is known."""
    return result.get("machine", {}).get("commit")


def over_seeds(percent: Sequence[float]) -> dict[str, Any]:
    """The number, mean and standard deviation of some accuracies; no deviation of one alone.

    Examples
    --------
    >>> over_seeds([70.0, 72.0, 74.0])
    {'seeds': 3, 'mean': 72.0, 'deviation': 2.0}
    """
    deviation = statistics.stdev(percent) if len(percent) > 1 else None
    return {"seeds": len(percent), "mean": statistics.mean(percent), "deviation": deviation}


def _statistics(cell: Cell, results: Sequence[Result]) -> dict[str, Any]:
    """Of the runs of a row."""
    runs = [results[i] for i in cell.runs.values()]
    percent = [100 * run["test_accuracy"] for run in runs]
    differences = [100 * (results[i]["test_accuracy"] - results[j]["test_accuracy"]) for i, j in cell.pairs]
    return {
        **over_seeds(percent),
        "differences": differences,
        "difference": interval(differences) if len(differences) > 1 else None,
        "best_test_epoch": statistics.mean(100 * run["best_test_epoch"] for run in runs),
        "seconds": statistics.mean(run["seconds"] for run in runs),
    }
