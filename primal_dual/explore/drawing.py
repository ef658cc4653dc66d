"""What the figures of all views share: colours, a figure, the marks of points, an attention map."""

from typing import Any, Protocol

import numpy as np
from bokeh.models import ColumnDataSource, LinearColorMapper
from bokeh.palettes import Cividis256
from bokeh.plotting import figure

from primal_dual.colours import GREEN, GREY, VERMILION
from primal_dual.explore.points import Points

MARKS = (("circle", GREY), ("inverted_triangle", GREEN), ("square", VERMILION))  # by the kind of a training point


class Drawing(Protocol):
    """The figures of a view in one browser. The pointer acts in some of them; there may be points to be dragged."""

    figures: dict[str, Any]
    pointed: list[Any]
    points: Points | None

    def draw(self, state: Any) -> None:
        """Show a state."""

    def point(self, state: Any, x: float, y: float) -> Any:
        """The state when the pointer is there."""


def plot(x: str, y: str, height: int = 340, **options: Any) -> Any:
    """An empty figure as wide as its place in the page, which no gesture moves."""
    shown = figure(
        height=height, sizing_mode="stretch_width", min_width=200, toolbar_location=None, tools="", **options
    )
    shown.xaxis.axis_label, shown.yaxis.axis_label = x, y
    for axis in (*shown.xaxis, *shown.yaxis):
        axis.axis_label_text_font_style = "normal"
    shown.grid.grid_line_alpha = 0.4
    return shown


def source(*names: str) -> ColumnDataSource:
    """Empty columns."""
    return ColumnDataSource({name: [] for name in names})


class AttentionMap:
    """A picture of attention weights, (queries, keys), and its figure: key j at x = j, query i at y = i, downwards."""

    def __init__(self, x: str, y: str, height: int = 340) -> None:
        self.figure = plot(x, y, height, x_range=(-0.5, 0.5), y_range=(0.5, -0.5))
        colours = LinearColorMapper(palette=Cividis256, low=0)  # to the largest
        self.image = ColumnDataSource({"weights": [np.zeros((1, 1))], "dw": [1], "dh": [1]})
        self.figure.image("weights", x=-0.5, y=-0.5, dw="dw", dh="dh", color_mapper=colours, source=self.image)
        self.figure.grid.visible = False

    def show(self, weights: np.ndarray) -> None:
        rows, columns = weights.shape
        self.figure.x_range.end, self.figure.y_range.start = columns - 0.5, rows - 0.5
        self.image.data = {"weights": [weights], "dw": [columns], "dh": [rows]}
