"""The table of head redundancy: distances between heads over the seeds, and what they are less softmax's."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, cast

from torch_impl.analysis.accuracy_table import commit_of, in_order, interval, title
from torch_impl.analysis.head_redundancy import Redundancy
from torch_impl.analysis.over_sets import hierarchical_interval
from torch_impl.training.runs.run_files import Result
from torch_impl.training.trained.finished_run import Run

DISTANCES = Redundancy._fields


def describe(run: Run, redundancy: Redundancy) -> dict[str, Any]:
    """What `table` needs of a run, recipe, attention, seed and `Redundancy.means`, and the commit it was trained at."""
    result = cast(Result, run.result)
    own = {"recipe": title(result), "attention": run.attention, "seed": run.seed, "commit": commit_of(result)}
    return own | redundancy.means()


def table(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows of the table: one for each recipe and attention, and one for each attention over all recipes.

    Parameters
    ----------
    runs : sequence of dict
        Those of `describe`.

    Returns
    -------
    list of dict
        With recipe, attention, seeds, their number, and outputs, directions and maps, of each of which there is: mean,
        over the seeds; percent, 100 (d / d_softmax - 1) for each seed that softmax has, too; and difference, the
        `interval` of these, or, over the recipes, their `hierarchical_interval`. The difference is None for softmax,
        and for fewer than two seeds.

    Examples
    --------
    >>> runs = [
    ...     dict(recipe="a", attention=attention, seed=seed, outputs=distance, directions=1.4, maps=0.5)
    ...     for attention, distance in (("softmax", 2.0), ("bn", 3.0))
    ...     for seed in (0, 1)
    ... ]
    >>> [(row["attention"], row["outputs"]["mean"], row["outputs"]["difference"]) for row in table(runs)]
    [('softmax', 2.0, None), ('bn', 3.0, (50.0, 50.0, 50.0))]
    """
    cells: dict[tuple[str, str], dict[int, Mapping[str, Any]]] = {}
    for run in runs:
        cells.setdefault((run["recipe"], run["attention"]), {})[run["seed"]] = run
    rows = []
    for (recipe, attention), mine in cells.items():
        softmax = {} if attention == "softmax" else cells.get((recipe, "softmax"), {})
        distances = {name: _over_seeds(name, mine, softmax) for name in DISTANCES}
        rows.append({"recipe": recipe, "attention": attention, "seeds": len(mine)} | distances)
    return in_order(rows) + _over_recipes(in_order(rows))


def _over_seeds(name: str, runs: Mapping[int, Mapping[str, Any]], softmax: Mapping[int, Any]) -> dict[str, Any]:
    """One distance of the runs of a recipe and attention by their seeds, beside softmax's."""
    percent = [100 * (runs[seed][name] / softmax[seed][name] - 1) for seed in runs if seed in softmax]
    return {
        "mean": statistics.mean(run[name] for run in runs.values()),
        "percent": percent,
        "difference": interval(percent) if len(percent) > 1 else None,
    }


def _over_recipes(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    averaged = []
    for attention in dict.fromkeys(row["attention"] for row in rows):
        mine = [row for row in rows if row["attention"] == attention and row["outputs"]["difference"]]
        if len(mine) > 1:
            distances = {name: _average([row[name] for row in mine]) for name in DISTANCES}
            own = {"recipe": f"average of {len(mine)} data sets", "attention": attention}
            averaged.append(own | {"seeds": sum(row["seeds"] for row in mine)} | distances)
    return averaged


def _average(distances: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of distances on several data sets; their mean would mix lengths that cannot be compared."""
    percents = [each["percent"] for each in distances]
    return {"mean": None, "percent": [], "difference": hierarchical_interval(percents)}
