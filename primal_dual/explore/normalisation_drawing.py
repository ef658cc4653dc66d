"""The figures of `normalisation.py`."""

from dataclasses import replace
from typing import Any

import numpy as np
from bokeh.models import FactorRange
from bokeh.transform import dodge

from primal_dual import colours
from primal_dual.explore import drawing
from primal_dual.explore.normalisation import REACH, NormalisationState, keys_of, votes, weights_of_query
from primal_dual.explore.points import Points, inside

LARGEST = 70  # pixels across a weight of one
LOWEST = 0.2  # of the axis of votes, so that rounding is not drawn large
COLOURS = {"softmax": colours.BLUE, "Attention-BN": colours.VERMILION}


class NormalisationDrawing:
    """The keys in the plane, once for each attention, with their weights as areas; and the votes of all queries."""

    points = Points(("keys_x", "keys_y"), (REACH, REACH))

    def __init__(self) -> None:
        self.keys = drawing.source("x", "y", *COLOURS)
        self.query, self.mean = drawing.source("x", "y"), drawing.source("x", "y", "width", "height")
        self.votes = drawing.source("key", *COLOURS)
        self.pointed = [self._plane(name) for name in COLOURS]
        self.bars = drawing.plot("key", "vote of all queries", 240, x_range=FactorRange(), y_range=(-1, 1))
        for name, place in zip(COLOURS, (-0.2, 0.2), strict=True):
            self.bars.vbar(
                dodge("key", place, self.bars.x_range), top=name, width=0.35, color=COLOURS[name], source=self.votes
            )
        self.bars.hspan(y=[0], line_color=colours.GREY)
        self.figures = {"softmax": self.pointed[0], "bn": self.pointed[1], "votes": self.bars}

    def _plane(self, name: str) -> Any:
        plane = drawing.plot("first feature", "second feature", 340, x_range=(-REACH, REACH), y_range=(-REACH, REACH))
        plane.title = name
        plane.hspan(y=[0], line_color=colours.GREY, line_alpha=0.5)
        plane.vspan(x=[0], line_color=colours.GREY, line_alpha=0.5)
        plane.ellipse(
            "x", "y", "width", "height", source=self.mean, fill_alpha=0, line_color=colours.PURPLE, line_dash="dashed"
        )
        plane.scatter("x", "y", source=self.mean, marker="cross", size=14, color=colours.PURPLE, line_width=3)
        plane.scatter("x", "y", size=name, source=self.keys, color=COLOURS[name], alpha=0.5)
        plane.scatter("x", "y", source=self.keys, size=6, color=colours.BLACK)
        plane.scatter("x", "y", source=self.query, marker="diamond", size=14, color=colours.ORANGE, line_color="black")
        return plane

    def draw(self, state: NormalisationState) -> None:
        keys, weights = keys_of(state), weights_of_query(state)
        mu, sigma = keys.mean(axis=0), keys.std(axis=0)
        areas = {name: LARGEST * np.sqrt(each) for name, each in weights.items()}
        self.keys.data = {"x": keys[:, 0], "y": keys[:, 1], **areas}
        self.mean.data = {"x": mu[:1], "y": mu[1:], "width": 2 * sigma[:1], "height": 2 * sigma[1:]}
        self.query.data = {"x": [state.query_x], "y": [state.query_y]}
        names = [str(number + 1) for number in range(len(keys))]
        if self.bars.x_range.factors != names:
            self.bars.x_range.factors = names
        shared = votes(state)
        highest = 1.1 * max(LOWEST, *(abs(vote).max() for vote in shared.values()))
        self.bars.y_range.start, self.bars.y_range.end = -highest, highest
        self.votes.data = {"key": names, **shared}

    def point(self, state: NormalisationState, x: float, y: float) -> NormalisationState:
        return replace(state, query_x=inside(x, REACH), query_y=inside(y, REACH))
