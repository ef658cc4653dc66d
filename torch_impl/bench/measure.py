"""Comparing the time of two calls that take turns, so that both see the same machine."""

import statistics
from typing import NamedTuple

from torch_impl.analysis.cost import Step, timed


class Comparison(NamedTuple):
    """Two calls compared.

    Parameters
    ----------
    ratio : float
        The median over the pairs of the ratio of their seconds.
    seconds, baseline_seconds : float
        The median seconds of each.
    """

    ratio: float
    seconds: float
    baseline_seconds: float


def interleaved(ours: Step, baseline: Step, device: str, pairs: int) -> Comparison:
    """Compare two calls by pairs, after a first pair that is not timed. On a GPU there are ten times as many pairs.

    Parameters
    ----------
    ours, baseline : callables
        What is called.
    device : str
        "cpu" or "cuda".
    pairs : int
        How many.

    Examples
    --------
    >>> comparison = interleaved(lambda: sum(range(10**5)), lambda: None, "cpu", pairs=3)
    >>> comparison.ratio > 1
    True
    """
    ours()
    baseline()
    times = [(timed(ours, device), timed(baseline, device)) for _ in range(pairs * (10 if device == "cuda" else 1))]
    ratio = statistics.median(a / b for a, b in times)
    return Comparison(ratio, statistics.median(a for a, _ in times), statistics.median(b for _, b in times))
