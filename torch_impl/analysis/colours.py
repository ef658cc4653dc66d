"""The colours and markers of figures, which colour-blind readers can tell apart (Okabe and Ito)."""

from collections.abc import Iterable
from typing import Any

from primal_dual.colours import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION
from primal_dual.primal import COMPARED

COLOURS = (BLACK, BLUE, VERMILION, PURPLE, GREEN, ORANGE, SKY)
MARKERS = "osD^v"


def styles(attentions: Iterable[str]) -> dict[str, dict[str, Any]]:
    """A colour and a marker for each of some attentions, as options of matplotlib's plots.

    Those that the paper compares have the same in all figures.

    Examples
    --------
    >>> styles(["sh", "linear"])
    {'sh': {'color': '#D55E00', 'marker': 'D'}, 'linear': {'color': '#009E73', 'marker': 'v'}}
    """
    names = list(dict.fromkeys(attentions))
    order = [*COMPARED, *(name for name in names if name not in COMPARED)]
    return {name: _style(order.index(name)) for name in names}


def _style(i: int) -> dict[str, Any]:
    return {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)]}
