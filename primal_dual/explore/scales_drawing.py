"""The figures of `scales.py`."""

from dataclasses import replace
from typing import Any

import numpy as np

from primal_dual import colours
from primal_dual.explore import drawing
from primal_dual.explore.scales import SCALES, ScalesState, by_scale, head, sequence, weights_of_query

FLOOR, HIGHEST = -3.0, 2.5  # of the axis of targets; the weights stand on the floor
TALLEST = 3.0  # of a weight of one


class ScalesDrawing:
    """The sequence with its pools and the weights of one token; cost and error of each scale."""

    points = None

    def __init__(self) -> None:
        self.tokens = drawing.source("j", "target", "signal", "f", "weight")
        self.pools = drawing.source("left", "right", "target", "bottom", "top")
        self.query = drawing.source("j", "f")
        line = drawing.plot("token", "target", 380, x_range=(-1, 1), y_range=(FLOOR, HIGHEST))
        line.quad("left", "right", "top", "bottom", source=self.pools, color=colours.GREY, alpha=0.12, line_width=0)
        line.vbar("j", top="weight", bottom=FLOOR, width=0.9, source=self.tokens, color=colours.ORANGE)
        line.line("j", "signal", source=self.tokens, color=colours.BLACK, line_dash="dashed")
        line.scatter("j", "target", source=self.tokens, color=colours.GREY, size=5)
        line.segment("left", "target", "right", "target", source=self.pools, color=colours.VERMILION, line_width=4)
        line.line("j", "f", source=self.tokens, color=colours.BLUE, line_width=2)
        line.scatter("j", "f", source=self.query, marker="diamond", size=13, color=colours.BLACK)
        self.pointed, self.line = [line], line

        self.scales = drawing.source("scale", "cost", "error", "cost_colour", "error_colour")
        names = [str(scale) for scale in SCALES]
        cost = drawing.plot("scale", "cost / cost at scale 1", 240, x_range=names, y_range=(0, 1.05))
        cost.vbar("scale", top="cost", width=0.8, source=self.scales, color="cost_colour")
        self.error = drawing.plot("scale", "error of f", 240, x_range=names, y_range=(0, 1))
        self.error.vbar("scale", top="error", width=0.8, source=self.scales, color="error_colour")
        self.figures: dict[str, Any] = {"sequence": line, "cost": cost, "error": self.error}
        self.shown: Any = None

    def draw(self, state: ScalesState) -> None:
        found, given, weights = head(state), sequence(state), weights_of_query(state)
        j = np.arange(state.tokens)
        if found is not self.shown:
            self._draw_pools(state, given.targets[:, 0])
            self._draw_scales(state)
            self.line.x_range.start, self.line.x_range.end = -1, state.tokens
        columns = {"target": given.targets[:, 0], "signal": given.signal, "f": found.f}
        self.tokens.data = {"j": j, **columns, "weight": FLOOR + TALLEST * weights}
        self.query.data = {"j": [state.token], "f": [found.f[state.token]]}
        self.shown = found

    def _draw_pools(self, state: ScalesState, targets: np.ndarray) -> None:
        starts = np.arange(0, state.tokens, state.scale)
        stops = np.minimum(starts + state.scale, state.tokens)
        means = [targets[start:stop].mean() for start, stop in zip(starts, stops, strict=True)]
        shaded = np.arange(len(starts)) % 2 == 0  # every second pool
        bottom, top = np.where(shaded, FLOOR, HIGHEST), np.full(len(starts), HIGHEST)
        self.pools.data = {"left": starts - 0.45, "right": stops - 0.55, "target": means, "bottom": bottom, "top": top}

    def _draw_scales(self, state: ScalesState) -> None:
        heads = by_scale(state)
        chosen = [scale == state.scale for scale in SCALES]
        errors = [each.error for each in heads.values()]
        self.scales.data = {
            "scale": [str(scale) for scale in SCALES],
            "cost": [each.cost for each in heads.values()],
            "error": errors,
            "cost_colour": [colours.PURPLE if each else colours.GREY for each in chosen],
            "error_colour": [colours.BLUE if each else colours.GREY for each in chosen],
        }
        self.error.y_range.end = 1.1 * max(*errors, 0.01)

    def point(self, state: ScalesState, x: float, y: float) -> ScalesState:
        return replace(state, query=int(np.clip(round(x), 0, state.tokens - 1)))
