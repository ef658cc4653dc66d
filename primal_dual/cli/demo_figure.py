"""The figure of `primal-dual demo`: three attentions trained by convex optimisation, each step told in a sentence."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from primal_dual import plots
from primal_dual.colours import BLUE, GREEN, VERMILION
from primal_dual.primal import Primal, catalog
from primal_dual.svr.solutions import DualSolution
from primal_dual.svr.solve import solve_dual
from primal_dual.svr.training_sets import training_set
from primal_dual.types import Float

ATTENTIONS = {
    "softmax": ("Softmax attention", "", BLUE),
    "bn": ("Attention-BN", "frames are standardised first", VERMILION),
    "sh": ("Attention-SH", "trained on averages of two frames", GREEN),
}
TRAIN = """\
1  Train.  An attention f forecasts the next frame of a vowel. Errors inside the tube are free; beyond it they cost C.
A target inside the tube corrects nothing: its frame gets the value 0. One outside has all the value that C allows."""
ATTEND = """\
2  Attend.  The forecast of a frame (row) averages the values of all frames (columns), by the weights in the map.
Only the frames that are marked above the map have a value other than 0 in this coefficient: the support vectors."""
PROVE = """\
3  Prove.  The primal trains the weights of a layer, the dual the values of an attention. No primal value is below a
dual value: where the two meet, both are optimal, and they are the same function. The attention is that layer."""


def draw(
    keys: Float[np.ndarray, "N D"], targets: Float[np.ndarray, "N Dv"], C: float = 10.0, epsilon: float = 0.1
) -> Figure:
    """A column each for softmax, BN and SH: the forecast, the attention map; below, their primal and dual values meet.

    The output shown is the one of largest variance. C is in multiples of the median of |h(k_j)|.
    """
    figure = Figure(figsize=(13, 13), layout="constrained")
    parts: Any = figure.subfigures(3, 1, height_ratios=(1, 1, 0.9), hspace=0.04)
    top, middle, bottom = parts
    forecasts, maps = top.subplots(1, 3, sharey=True), middle.subplots(1, 3, sharey=True)
    proof = bottom.subplots()
    output = int(np.argmax(targets.var(axis=0)))
    for (name, (title, what, colour)), forecast, weights in zip(ATTENTIONS.items(), forecasts, maps, strict=True):
        primal = catalog[name]
        assert isinstance(primal, Primal)
        problem: dict[str, Any] = dict(C=training_set(primal, keys).penalty(C), epsilon=epsilon)
        solution = solve_dual(primal, keys, targets, **problem)
        assert isinstance(solution, DualSolution)
        shown: dict[str, Any] = dict(targets=targets, epsilon=epsilon, output=output, ylabel="")
        plots.tube(primal, keys, solution.values, **shown, axes=forecast, xlabel="frame", title=f"{title}\n{what}")
        marks: dict[str, Any] = dict(values=solution.values[:, [output]], C=problem["C"])
        plots.attention_map(primal, keys, **marks, axes=weights, xlabel="key (frame)", ylabel="")
        plots.duality(primal, keys, targets, **problem, axes=proof, label=title, colour=colour)
    forecasts[0].set_ylabel(f"coefficient {output + 1}, standardised")
    maps[0].set_ylabel("query (frame)")
    proof.set_xlim(2, 5e-7)
    proof.legend(ncols=3, fontsize="small")
    legend = {mark: line for axes in forecasts for line, mark in zip(*axes.get_legend_handles_labels(), strict=True)}
    top.legend(legend.values(), legend.keys(), loc="outside lower center", ncols=len(legend), fontsize="small")
    for part, sentence in ((top, TRAIN), (middle, ATTEND), (bottom, PROVE)):
        part.suptitle(sentence, x=0.01, ha="left", fontsize="medium")
    return figure
