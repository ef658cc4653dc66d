"""Accuracies against one field of the recipe, such as the learning rate."""

import json
from collections.abc import Sequence
from typing import Any

from primal_dual.primal import catalog
from torch_impl.analysis.accuracy_table import over_seeds
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
        A row for each data set, attention and value of the field: data, attention, value; mean and deviation of the
        test accuracy over the seeds, in percent, and seeds, their number. Attentions are in the order of the catalog.

    Raises
    ------
    ValueError
        If no two runs differ in that field alone; and for two runs of one seed, at different commits.
    """
    groups: dict[tuple[str, str], dict[Any, dict[int, float]]] = {}
    for result in results:
        others = deciding_fields(result["recipe"])
        value = others.pop(field, None)
        key = result["data"], json.dumps(others, sort_keys=True)
        by_seed = groups.setdefault(key, {}).setdefault((result["attention"], value), {})
        if result["seed"] in by_seed:
            run = f"{result['data']}, {field} {value}, {result['attention']}, seed {result['seed']}"
            raise ValueError(f"{run}: expected one run; got several, at different commits")
        by_seed[result["seed"]] = 100 * result["test_accuracy"]
    rows = []
    for (data, _), cells in groups.items():
        if len({value for _, value in cells}) > 1:
            for (attention, value), by_seed in cells.items():
                rows.append({"data": data, "attention": attention, "value": value} | over_seeds([*by_seed.values()]))
    if not rows:
        raise ValueError(f"{field}: expected runs whose recipes differ in this field alone; got none")
    order = {name: i for i, name in enumerate(catalog)}
    return sorted(rows, key=lambda row: (row["data"], order.get(row["attention"], len(order)), row["value"]))
