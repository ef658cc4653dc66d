"""Results of runs: loading them, and statistics over their seeds."""

import json
import statistics
from math import sqrt
from pathlib import Path

from scipy.stats import t

from primal_dual.primal import catalog
from torch_impl.training.benchmarks import RECIPES
from torch_impl.training.recipes import to_config

FIELDS_NOT_IN_TITLE = (
    "folds",
    "length",
    "cases",
    "workers",
    "compile",
    "tensorboard",
)  # by the name, or no part of the result


def load(folder):
    """Summaries of all finished runs below a folder, or in a file of results. ValueError where there is none."""
    folder = Path(folder)
    files = [folder] if folder.is_file() else sorted(folder.rglob("result.json"))
    summaries = []
    for file in files:
        try:
            content = json.loads(file.read_text())
        except ValueError as error:
            raise ValueError(f"{file}: expected JSON; got {error}") from error
        summaries += content.get("runs", [content])
    if not summaries:
        raise ValueError(f"{folder}: expected finished runs, with a result.json; got none. Run primal-dual train first")
    return summaries


def table(summaries):
    """A row a recipe and attention: accuracies in percent, with the paired difference to softmax over common seeds."""
    cells = {}
    for run in summaries:
        cells.setdefault((title(run), run["attention"]), {})[run["seed"]] = run
    rows, order = [], list(catalog)
    for (recipe, attention), runs in sorted(cells.items(), key=lambda cell: (cell[0][0], order.index(cell[0][1]))):
        last = [100 * run["test_accuracy"] for run in runs.values()]
        softmax = cells.get((recipe, "softmax"), {})
        paired = [100 * (runs[s]["test_accuracy"] - softmax[s]["test_accuracy"]) for s in runs if s in softmax]
        difference = interval(paired) if attention != "softmax" and len(paired) > 1 else None
        rows.append(
            {
                "recipe": recipe,
                "attention": attention,
                "seeds": len(runs),
                "mean": statistics.mean(last),
                "deviation": statistics.stdev(last) if len(last) > 1 else None,
                "difference": difference,
                "best_test_epoch": statistics.mean(100 * run["best_test_epoch"] for run in runs.values()),
                "seconds": statistics.mean(run["seconds"] for run in runs.values()),
            }
        )
    return rows


def title(run):
    """The data of a run, and what its recipe has otherwise than the one of that name: "cifar10, 5 folds, epochs 3"."""
    fields, kind = run["recipe"], RECIPES.get(run["recipe"]["name"])
    usual = to_config(kind()) if kind else {}
    folds = [f"{fields['folds']} folds"] if fields["folds"] else []
    now = usual | fields
    changes = [f"{name} {now[name]}" for name in usual if name not in FIELDS_NOT_IN_TITLE and now[name] != usual[name]]
    return ", ".join([run["data"], *folds, *changes])


def interval(differences):
    """Mean and 95% interval of paired differences, by Student's t -> (mean, low, high)."""
    n, mean = len(differences), statistics.mean(differences)
    half = float(t.ppf(0.975, n - 1)) * statistics.stdev(differences) / sqrt(n)
    return mean, mean - half, mean + half
