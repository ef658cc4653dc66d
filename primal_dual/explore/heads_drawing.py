"""The figures of `heads.py`."""

from dataclasses import replace

import numpy as np

from primal_dual import colours
from primal_dual.explore import drawing
from primal_dual.explore.heads import Certified, HeadState, RealHeads


class HeadsDrawing:
    """The attention map of a head; the weights of one query; how large the dual variables are."""

    points = None

    def __init__(self, heads: RealHeads) -> None:
        self.heads = heads
        self.map = drawing.AttentionMap("key", "query", 380)
        self.row = drawing.source("y")
        self.map.figure.hspan(y="y", source=self.row, line_color=colours.ORANGE, line_width=2)
        self.weights, self.sizes = drawing.source("j", "weight"), drawing.source("j", "size", "colour")
        row = drawing.plot("key", "weight of the query", 220, x_range=(-1, 1), y_range=(0, 1))
        row.vbar("j", top="weight", width=0.8, source=self.weights, color=colours.ORANGE)
        bars = drawing.plot("training point", "|δ| / C", 220, x_range=(-1, 1), y_range=(0, 1.05))
        bars.vbar("j", top="size", width=0.8, source=self.sizes, color="colour")
        self.pointed, self.one, self.bars = [self.map.figure], row, bars
        self.figures = {"map": self.map.figure, "weights": row, "sizes": bars}
        self.shown: Certified | None = None

    def draw(self, state: HeadState) -> None:
        found, weights = self.heads.certified(state), self.heads.weights_of_query(state)
        if found is not self.shown:
            self.map.show(found.weights)
            self.bars.x_range.end, self.one.x_range.end = len(found.size), len(weights)
            self.one.y_range.end = 1.05 * found.weights.max()
        output = found.output(state)
        colours = np.array([colour for _, colour in drawing.MARKS])[found.kinds(output)]
        self.sizes.data = {"j": np.arange(len(found.size)), "size": found.size[:, output], "colour": colours}
        self.weights.data = {"j": np.arange(len(weights)), "weight": weights}
        self.row.data = {"y": [min(state.query, len(found.weights) - 1)]}
        self.shown = found

    def point(self, state: HeadState, x: float, y: float) -> HeadState:
        rows = len(self.shown.weights) if self.shown else 1
        return replace(state, query=int(np.clip(round(y), 0, rows - 1)))
