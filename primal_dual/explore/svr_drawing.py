"""The figures of `svr.py`."""

from dataclasses import replace

import numpy as np
from bokeh.models import BasicTicker, ColumnDataSource, DataRange1d

from primal_dual import colours
from primal_dual.explore import drawing
from primal_dual.explore.controls import LARGEST_NUMBER
from primal_dual.explore.points import Points, inside
from primal_dual.explore.svr import EXACT, GRID, Solved, SVRState, attention_map, solve, weights_of_query

WIDEST, HIGHEST = 3.0, 2.5  # of the axes


class SVRDrawing:
    """The function with its tube and targets; the attention map; the primal and the dual value."""

    points = Points(("keys", "targets"), (WIDEST, HIGHEST))

    def __init__(self) -> None:
        fit = drawing.plot("x", "y", 380, x_range=(-WIDEST, WIDEST), y_range=(-HIGHEST, HIGHEST))
        self.tube = drawing.source("x", "f", "low", "high", "least", "most")
        self.targets = drawing.source("x", "y", "marker", "colour")
        self.lines = drawing.source("x0", "y0", "x1", "y1", "width", "alpha")
        self.held = drawing.source("x", "y")
        self.query = drawing.source("x", "y")
        fit.varea("x", "least", "most", source=self.tube, color=colours.PURPLE, alpha=0.3)
        fit.varea("x", "low", "high", source=self.tube, color=colours.SKY, alpha=0.35)
        fit.line("x", "f", source=self.tube, color=colours.BLUE, width=2)
        fit.segment(
            "x0", "y0", "x1", "y1", source=self.lines, line_width="width", line_alpha="alpha", color=colours.ORANGE
        )
        fit.scatter("x", "y", source=self.held, size=20, fill_alpha=0, line_color=colours.GREY, line_alpha=0.5)
        fit.scatter("x", "y", source=self.targets, marker="marker", color="colour", size=10)
        fit.scatter("x", "y", source=self.query, marker="diamond", color=colours.BLACK, size=13)
        self.map = drawing.AttentionMap("key, from left to right", "query: the same keys")
        both = {"name": ["dual", "primal"], "colour": [colours.ORANGE, colours.BLUE]}
        self.objectives = ColumnDataSource({"value": [1, 1], **both})
        duality = drawing.plot("value / C", "", 130, x_range=DataRange1d(start=0), y_range=both["name"])
        duality.hbar("name", right="value", height=0.7, color="colour", source=self.objectives)
        duality.xaxis.ticker = BasicTicker(desired_num_ticks=3)  # more would overlap where the values are small
        self.values = ColumnDataSource({"j": [0], "value": [1]})
        bars = drawing.plot("key, from left to right", "value v", 180)
        bars.vbar("j", top="value", width=0.8, color=colours.BLUE, source=self.values)
        bars.hspan(y=[0], line_color=colours.GREY)
        self.shown: Solved | None = None
        self.pointed = [fit]
        self.figures = {"function": fit, "map": self.map.figure, "duality": duality, "values": bars}

    def draw(self, state: SVRState) -> None:
        found = solve(state)
        if found is not self.shown:
            self._draw_solution(state, found)
            self.shown = found
        self._draw_query(state, found)

    def _draw_solution(self, state: SVRState, found: Solved) -> None:
        epsilon, stopped = state.epsilon, state.digits < EXACT
        bound = np.minimum(found.bound, LARGEST_NUMBER) if stopped else 0 * found.bound
        self.tube.data = {
            "x": GRID,
            "f": found.f,
            "low": found.f - epsilon,
            "high": found.f + epsilon,
            "least": found.f - bound,
            "most": found.f + bound,
        }
        marker, colour = np.array(drawing.MARKS)[found.kinds].T
        points = {"x": found.points, "y": found.point_targets}
        self.targets.data = {**points, "marker": marker.tolist(), "colour": colour.tolist()}
        self.held.data = {"x": state.keys, "y": state.targets}
        self.map.show(attention_map(state))
        values = found.solution.values[:, 0]
        self.values.data = {"j": np.arange(len(values)), "value": values}
        self.objectives.data = {**self.objectives.data, "value": [found.dual_value, found.primal_value]}

    def _draw_query(self, state: SVRState, found: Solved) -> None:
        f, weights = found.predict(state.query), abs(weights_of_query(state))
        count, share = len(weights), weights / (weights.max() or 1.0)
        self.query.data = {"x": [state.query], "y": [f]}
        self.lines.data = {
            "x0": np.full(count, state.query),
            "y0": np.full(count, f),
            "x1": found.problem.keys[:, 0],
            "y1": found.problem.targets[:, 0],
            "width": 8 * share,
            "alpha": share,
        }

    def point(self, state: SVRState, x: float, y: float) -> SVRState:
        return replace(state, query=inside(x, WIDEST))
