"""The colours of figures, which colour-blind readers can tell apart (Okabe and Ito)."""

from typing import Any

COLOURS = ("#000000", "#0072B2", "#D55E00", "#CC79A7", "#009E73", "#E69F00", "#56B4E9")
MARKERS = "osD^"  # one for each round of the colours


def style(i: int) -> dict[str, Any]:
    """The colour and the marker of the i-th of several attentions, from 0, as options of matplotlib's plots.

    Examples
    --------
    >>> style(0), style(8)
    ({'color': '#000000', 'marker': 'o'}, {'color': '#0072B2', 'marker': 's'})
    """
    return {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i // len(COLOURS) % len(MARKERS)]}
