"""The comparison with softmax over all data sets together."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from primal_dual.types import Float
from torch_impl.analysis.accuracy_table import table, titles
from torch_impl.training.runs.run_files import Result

DRAWS = 20_000


def averages(results: Sequence[Result]) -> list[dict[str, Any]]:
    """A row for each attention, over all data sets that it and softmax were trained on by their recipes.

    Parameters
    ----------
    results : sequence of dict
        Those of the runs; runs with changed fields, and those at several commits, are left out.

    Returns
    -------
    list of dict
        As `accuracy_table.table`, with means over the data sets; seeds is the number of all runs; and difference has
        the mean over the sets of the paired differences to softmax, and its `hierarchical_interval`. Empty for fewer
        than two sets.

    Examples
    --------
    >>> from torch_impl.training.recipes.kinds import SeriesRecipe, to_config
    >>> run = {"recipe": to_config(SeriesRecipe("own")), "seed": 0, "best_test_epoch": 0.9, "seconds": 1.0}
    >>> cells = {("a", "softmax"): 0.8, ("a", "bn"): 0.9, ("b", "softmax"): 0.6, ("b", "bn"): 0.5}
    >>> runs = [run | {"data": d, "attention": a, "test_accuracy": x} for (d, a), x in cells.items()]
    >>> [(row["recipe"], row["attention"], round(row["mean"], 1)) for row in averages(runs)]
    [('average of 2 data sets', 'softmax', 70.0), ('average of 2 data sets', 'bn', 70.0)]
    """
    averaged = []
    for head, mine in compared(results):
        is_softmax = head["attention"] == "softmax"
        difference = None if is_softmax else hierarchical_interval([row["differences"] for row in mine])
        means = {name: float(np.mean([row[name] for row in mine])) for name in ("mean", "best_test_epoch", "seconds")}
        averaged.append(head | {"deviation": None, "differences": [], "difference": difference} | means)
    return averaged


def compared(results: Sequence[Result]) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """`by_attention` of the rows of `accuracy_table.table` that are softmax's or have differences to it."""
    whole = [result for name, result in zip(titles(results), results, strict=True) if name == result["data"]]
    rows = [row for row in table(whole) if row["differences"] or row["attention"] == "softmax"]
    return by_attention(rows, {result["data"] for result in whole})


def by_attention(
    rows: Sequence[dict[str, Any]], data_sets: set[str]
) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """For each attention on two data sets or more, what the row of their average begins with, and the rows of each.

    Rows of changed recipes are left out: their title is no name of a data set. The data sets of other attentions that
    one lacks are named, since averages over different data sets cannot be compared.
    """
    plain = [row for row in rows if row["recipe"] in data_sets]
    every = dict.fromkeys(row["recipe"] for row in plain)
    for attention in dict.fromkeys(row["attention"] for row in plain):
        mine = [row for row in plain if row["attention"] == attention]
        if len(mine) > 1:
            missing = every.keys() - {row["recipe"] for row in mine}
            without = f", without {', '.join(sorted(missing))}" if missing else ""
            recipe, seeds = f"average of {len(mine)} data sets{without}", sum(row["seeds"] for row in mine)
            yield {"recipe": recipe, "attention": attention, "seeds": seeds}, mine


def hierarchical_interval(groups: Sequence[Sequence[float]]) -> tuple[float, float, float]:
    """The mean over groups of the means of their numbers, and its 95 % interval by a hierarchical bootstrap.

    A draw takes as many groups as there are, with replacement, and from each as many numbers as it has. The interval
    is between the quantiles of 2.5 % and 97.5 % of the means of 20,000 draws. With few groups it can be too short: of
    five groups of five normal numbers, it holds the true mean in 84 to 97 % of all cases, of four in 80 to 97 %, and of
    two in 51 to 92 %; the more the groups differ, the fewer.

    Examples
    --------
    >>> hierarchical_interval([[1.0, 1.0], [2.0]])
    (1.5, 1.0, 2.0)
    """
    rng, places = np.random.default_rng(0), len(groups)
    means = np.array([rng.choice(group, (DRAWS, places, len(group))).mean(axis=2) for group in groups])
    chosen = rng.integers(places, size=(DRAWS, places))
    drawn: Float[np.ndarray, " draws"] = np.take_along_axis(means, chosen[None], axis=0)[0].mean(axis=1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return float(np.mean([np.mean(group) for group in groups])), float(low), float(high)
