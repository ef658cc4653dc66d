"""Accuracies against one field of the recipe, such as the learning rate."""

import json
from collections.abc import Sequence
from typing import Any

from primal_dual.primal import catalog
from torch_impl.analysis.accuracy_table import label, over_seeds, titles
from torch_impl.training.recipes.benchmarks import RECIPES
from torch_impl.training.recipes.kinds import deciding_fields
from torch_impl.training.runs.run_files import Result


def accuracies_by_field(results: Sequence[Result], field: str) -> list[dict[str, Any]]:
    """The accuracies of runs whose recipes differ in one field alone.

    Parameters
    ----------
    results : sequence of dict
        Those of the runs.
    field : str
        A field of their recipes.

    Returns
    -------
    list of dict
        A row for each recipe, attention and value of the field: recipe, its title without the field; attention, value;
        mean and deviation of the test accuracy over the seeds, in percent, and seeds, their number. Attentions are in
        the order of the catalog.

    Raises
    ------
    ValueError
        If no two runs differ in that field alone; and for two runs of one seed, of different commits, data or files.
    """
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        others = {name: value for name, value in deciding_fields(result["recipe"]).items() if name != field}
        groups.setdefault((result["data"], json.dumps(others, sort_keys=True)), []).append(result)
    compared = [runs for runs in groups.values() if len({_value(run, field) for run in runs}) > 1]
    if not compared:
        raise ValueError(f"{field}: expected runs whose recipes differ in this field alone; got none")
    names = titles([_without(runs[0], field) for runs in compared])
    rows = [row for name, runs in zip(names, compared, strict=True) for row in _rows(name, runs, field)]
    order = {name: i for i, name in enumerate(catalog)}
    return sorted(rows, key=lambda row: (row["recipe"], order.get(row["attention"], len(order)), row["value"]))


def _rows(name: str, runs: Sequence[Result], field: str) -> list[dict[str, Any]]:
    cells: dict[tuple[str, Any], dict[int, float]] = {}
    for run in runs:
        attention, value = label(run), _value(run, field)
        by_seed = cells.setdefault((attention, value), {})
        if run["seed"] in by_seed:
            what = f"{name}, {field} {value}, {attention}, seed {run['seed']}"
            raise ValueError(f"{what}: expected one run; got several, of different commits, data or files")
        by_seed[run["seed"]] = 100 * run["test_accuracy"]
    return [
        {"recipe": name, "attention": attention, "value": value} | over_seeds([*by_seed.values()])
        for (attention, value), by_seed in cells.items()
    ]


def _value(run: Result, field: str) -> Any:
    return deciding_fields(run["recipe"]).get(field)


def _without(run: Result, field: str) -> Result:
    """A run whose recipe has the default of a field, or lacks it, so that its title does not tell it."""
    others = {name: value for name, value in run["recipe"].items() if name != field}
    recipe = RECIPES.get(str(run["recipe"]["name"]))
    default = {field: getattr(recipe, field)} if recipe else {}
    return {**run, "recipe": others | default}
