"""The table of head redundancy: distances between heads over the seeds, and what they are beside softmax's."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from torch_impl.analysis.accuracy_table import cells, commit_of, interval
from torch_impl.analysis.head_redundancy import DISTANCES
from torch_impl.analysis.over_sets import by_attention, hierarchical_interval
from torch_impl.training.runs.run_files import Result

Means = Mapping[str, float]  # those of `Redundancy.means`


def measured(results: Sequence[Result], means: Sequence[dict[str, float]]) -> list[dict[str, Any]]:
    """The numbers of each run: data, attention, seed, commit, and its `Redundancy.means`."""
    return [
        {"data": result["data"], "attention": result["attention"], "seed": result["seed"], "commit": commit_of(result)}
        | own
        for result, own in zip(results, means, strict=True)
    ]


def table(results: Sequence[Result], means: Sequence[Means]) -> list[dict[str, Any]]:
    """The rows of the table: one for each recipe and attention, and one for each attention over all data sets.

    Runs of one recipe and attention at several commits have rows of their own, and differences are of one commit.

    Parameters
    ----------
    results : sequence of dict
        Those of the runs.
    means : sequence of mapping
        `Redundancy.means` of each run.

    Returns
    -------
    list of dict
        With recipe, attention, seeds, their number, and entropies, the mean; and with outputs, directions and maps, of
        each of which there is: mean, over the seeds; percent, 100 (d / d_softmax - 1) for each seed that softmax has,
        too; and difference, the `interval` of these or, over the data sets that were trained on by their recipes, their
        `hierarchical_interval`. The difference is None for softmax, and for fewer than two seeds.

    Examples
    --------
    >>> from torch_impl.training.recipes.kinds import SeriesRecipe, to_config
    >>> run = {"recipe": to_config(SeriesRecipe("own")), "data": "own"}
    >>> results = [run | {"attention": a, "seed": s} for a in ("softmax", "bn") for s in (0, 1)]
    >>> means = [{"outputs": d, "directions": 1.4, "maps": 0.5, "entropies": 0.5} for d in (2.0, 2.0, 3.0, 3.0)]
    >>> [(row["attention"], row["outputs"]["mean"], row["outputs"]["difference"]) for row in table(results, means)]
    [('softmax', 2.0, None), ('bn', 3.0, (50.0, 50.0, 50.0))]
    """
    rows = []
    for cell in cells(results):
        pairs = [(means[i], means[j]) for i, j in cell.pairs]
        mine = [means[i] for i in cell.runs.values()]
        row = {"recipe": cell.recipe, "attention": cell.attention, "seeds": len(mine)}
        row["entropies"] = statistics.mean(each["entropies"] for each in mine)
        rows.append(row | {name: _distance(name, mine, pairs) for name in DISTANCES})
    return rows + _over_data_sets(rows, {result["data"] for result in results})


def _distance(name: str, runs: Sequence[Means], pairs: Sequence[tuple[Means, Means]]) -> dict[str, Any]:
    """One distance of the runs, and of pairs of a run and softmax's with the same seed."""
    percent = [100 * (own[name] / softmax[name] - 1) for own, softmax in pairs]
    return {
        "mean": statistics.mean(run[name] for run in runs),
        "percent": percent,
        "difference": interval(percent) if len(percent) > 1 else None,
    }


def _over_data_sets(rows: Sequence[dict[str, Any]], data_sets: set[str]) -> list[dict[str, Any]]:
    compared = [row for row in rows if row["outputs"]["difference"]]
    return [
        head | {"entropies": None} | {name: _average([row[name] for row in mine]) for name in DISTANCES}
        for head, mine in by_attention(compared, data_sets)
    ]


def _average(distances: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of distances on several data sets; their mean would mix lengths that cannot be compared."""
    percents = [each["percent"] for each in distances]
    return {"mean": None, "percent": [], "difference": hierarchical_interval(percents)}
