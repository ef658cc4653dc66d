"""The Bayesian signed-rank test of an attention against softmax attention, over data sets."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from baycomp import SignedRankTest

from primal_dual import checks
from torch_impl.analysis.over_sets import compared
from torch_impl.training.runs.run_files import Result


def signed_rank(results: Sequence[Result], rope: float = 1.0) -> list[dict[str, Any]]:
    """The probabilities that an attention is less accurate than softmax, about as accurate, or more accurate.

    z_1, ..., z_n are the mean differences of its accuracy to that of softmax on n data sets, and z_0 = 0. The weights
    w_0, ..., w_n of the distribution of differences have the Dirichlet distribution with the parameters 1/2, 1, ..., 1.
    For drawn weights, a region has the share

        sum_ij w_i w_j [ (z_i + z_j) / 2 is in the region ],

    where the regions are those below -rope, from -rope to rope, and above it. The probability of a region is that of
    weights for which its share is the largest. The z are taken as exact: where they are means over few seeds, the
    probabilities are too sure. Source: Benavoli et al. (ICML 2014); the regions are those of Benavoli et al. (JMLR
    2017).

    Parameters
    ----------
    results : sequence of dict
        Those of the runs, as in `over_sets.averages`.
    rope : float
        Positive: up to how many percentage points a difference does not matter.

    Returns
    -------
    list of dict
        For each attention on two data sets or more: attention, sets, their number, and the probabilities less, equal
        and more.

    Raises
    ------
    ValueError
        For a rope that is not positive.

    Examples
    --------
    >>> from torch_impl.training.recipes.kinds import SeriesRecipe, to_config
    >>> run = {"recipe": to_config(SeriesRecipe("own")), "seed": 0, "best_test_epoch": 0.9, "seconds": 1.0}
    >>> cells = {("a", "softmax"): 0.8, ("a", "bn"): 0.9, ("b", "softmax"): 0.6, ("b", "bn"): 0.65}
    >>> runs = [run | {"data": d, "attention": a, "test_accuracy": x} for (d, a), x in cells.items()]
    >>> [row] = signed_rank(runs)
    >>> row["attention"], row["sets"], row["more"] > 0.8
    ('bn', 2, True)
    """
    checks.number("rope", rope, above=0)
    rows = []
    for head, mine in compared(results):
        if head["attention"] != "softmax":
            differences = np.array([np.mean(row["differences"]) for row in mine])
            less, equal, more = map(float, SignedRankTest.probs(np.zeros(len(mine)), differences, rope, random_state=0))
            row = {"attention": head["attention"], "sets": len(mine), "less": less, "equal": equal, "more": more}
            rows.append(row)
    return rows
