"""Figures of results: accuracies with their paired differences, distances between heads, and the cost of layers."""

import math
from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from torch_impl.analysis.colours import COLOURS, styles
from torch_impl.analysis.head_complexity import Head
from torch_impl.analysis.head_redundancy import Redundancy

NUMBERS = {"flops": "operations", "bytes": "peak memory", "seconds": "time"}  # of `efficiency.run`, and their titles


def plot_accuracies(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Test accuracies with their standard deviations, and their paired differences to softmax.

    Parameters
    ----------
    rows : sequence of dict
        Those of `accuracy_table.table`.
    """
    recipes = list(dict.fromkeys(row["recipe"] for row in rows))
    attentions = list(dict.fromkeys(row["attention"] for row in rows))
    figure = Figure(figsize=(9, 1.4 + 0.9 * len(recipes)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for i, (attention, style) in enumerate(styles(attentions).items()):
        shift = 0.6 * ((i + 0.5) / len(attentions) - 0.5)  # attentions lie side by side at a recipe
        own_rows = [row for row in rows if row["attention"] == attention]
        heights = [recipes.index(row["recipe"]) + shift for row in own_rows]
        _draw_attention(left, right, attention, own_rows, heights, style)
    left.set(yticks=range(len(recipes)), yticklabels=[fill(recipe, 28) for recipe in recipes])
    left.set_ylim(len(recipes) - 0.5, -0.5)
    left.set_xlabel("test accuracy, %\nmean and deviation over seeds")
    right.axvline(0, color=COLOURS[0], linewidth=1)
    right.set_xlabel("minus softmax, percentage points\nmean and 95% interval over the same seeds")
    for axes in (left, right):
        axes.grid(True, axis="x", alpha=0.3)
        for line in range(1, len(recipes)):
            axes.axhline(line - 0.5, color="0.8", linewidth=0.8)
    figure.legend(loc="outside upper center", ncols=min(len(attentions), 6), frameon=False)
    return figure


def plot_by_field(rows: Sequence[Mapping[str, Any]], field: str) -> Figure:
    """Test accuracies against a field of the recipe, with their standard deviations; a panel for each recipe.

    Parameters
    ----------
    rows : sequence of dict
        Those of `by_field.accuracies_by_field`.
    field : str
        The field.
    """
    recipes, attentions = (list(dict.fromkeys(row[name] for row in rows)) for name in ("recipe", "attention"))
    rows_of_panels = math.ceil(len(recipes) / 3)
    columns = math.ceil(len(recipes) / rows_of_panels)
    figure = Figure(figsize=(1 + 3.5 * columns, 0.6 + 3 * rows_of_panels), layout="constrained")
    panels = figure.subplots(rows_of_panels, columns, sharey=True, squeeze=False).flat
    for axes in panels[len(recipes) :]:
        axes.remove()
    for axes, recipe in zip(panels, recipes, strict=False):
        values = sorted({row["value"] for row in rows if row["recipe"] == recipe})
        for attention, style in styles(attentions).items():
            mine = [row for row in rows if (row["recipe"], row["attention"]) == (recipe, attention)]
            places = [values.index(row["value"]) for row in mine]
            means, deviations = [row["mean"] for row in mine], [row["deviation"] or 0 for row in mine]
            options: dict[str, Any] = dict(markersize=5, capsize=3, label=fill(attention, 32))
            axes.errorbar(places, means, deviations, **options, **style)
        axes.set(title=fill(recipe, 32), xlabel=field, xticks=range(len(values)), xticklabels=values)
        axes.grid(True, alpha=0.3)
    figure.supylabel("test accuracy, %")
    handles = {handle.get_label(): handle for axes in figure.axes for handle in axes.get_legend_handles_labels()[0]}
    figure.legend(
        handles=list(handles.values()), loc="outside upper center", ncols=min(len(attentions), 6), frameon=False
    )
    return figure


def plot_head_distances(found: Mapping[str, Redundancy]) -> Figure:
    """The distances between the outputs of the heads: a row an attention, a column a layer.

    Parameters
    ----------
    found : mapping of Redundancy
        By the name of the attention.
    """
    layers = len(next(iter(found.values())).outputs)
    largest = max(redundancy.outputs.max().item() for redundancy in found.values())
    figure = Figure(figsize=(1.2 + 2.2 * layers, 0.8 + 2.2 * len(found)), layout="constrained")
    grid = figure.subplots(len(found), layers, squeeze=False)
    for axes_row, (name, redundancy) in zip(grid, found.items(), strict=True):
        for layer, (axes, distances) in enumerate(zip(axes_row, redundancy.outputs, strict=True), 1):
            image = axes.imshow(distances.numpy(), cmap="viridis", vmin=0, vmax=largest)
            axes.set(xticks=range(len(distances)), yticks=range(len(distances)))
            axes.tick_params(labelsize=6)
            axes.set_title(f"{name}, layer {layer}", fontsize=9)
    figure.supxlabel("head", fontsize=9)
    figure.supylabel("head", fontsize=9)
    figure.colorbar(image, ax=grid, shrink=0.6, label="L2 distance of outputs")
    return figure


def plot_head_complexity(heads: Sequence[Head]) -> Figure:
    """Two maps of the heads of a model, a row a module: their norm, and how many keys carry 90% of sum |delta|.

    Parameters
    ----------
    heads : sequence of Head
        Those of `head_complexity.describe_heads`, of one example.
    """
    modules = list(dict.fromkeys(head.module for head in heads))
    shape = len(modules), 1 + max(head.head for head in heads)
    figure = Figure(figsize=(9, 1.6 + 0.35 * shape[0]), layout="constrained")
    titles = {
        "log10 of the norm |W|": lambda head: head.log_norm / math.log(10),
        f"keys, of {heads[0].keys}, with 90% of all |δ|": lambda head: head.most_keys,
    }
    for axes, (title, number) in zip(figure.subplots(1, 2), titles.items(), strict=True):
        numbers = np.full(shape, np.nan)
        for head in heads:
            numbers[modules.index(head.module), head.head] = number(head)
        image = axes.imshow(numbers, cmap="viridis", aspect="auto")
        axes.set(xlabel="head", ylabel="layer", title=title, xticks=range(shape[1]), yticks=range(shape[0]))
        figure.colorbar(image, ax=axes)
    return figure


def plot_efficiency(result: Mapping[str, Any]) -> Figure:
    """Operations, memory and time of a layer beside softmax's, against the number of tokens.

    Parameters
    ----------
    result : dict
        That of `efficiency.run`.
    """
    names = list(dict.fromkeys(row["attention"] for row in result["rows"]))
    lengths = sorted({row["N"] for row in result["rows"]})
    figure = Figure(figsize=(10, 6), layout="constrained")
    grid = figure.subplots(2, 3, sharex=True, sharey=True)
    dashes = "-", "--"  # a curve that lies under another is seen between its dashes
    for axes_row, mode in zip(grid, ("training", "inference"), strict=True):
        for axes, (what, title) in zip(axes_row, NUMBERS.items(), strict=True):
            for i, (name, style) in enumerate(styles(names).items()):
                rows = {row["N"]: row for row in result["rows"] if (row["attention"], row["mode"]) == (name, mode)}
                ratios = [rows[N][f"{what}_ratio"] for N in lengths]
                axes.plot(lengths, ratios, label=name, markersize=4, linestyle=dashes[i % 2], **style)
            axes.set_xscale("log", base=2)
            axes.set_xticks(lengths, [f"{N:,}" for N in lengths])
            axes.set_title(f"{title}, {mode}", fontsize=10)
            axes.yaxis.set_major_formatter(PercentFormatter(1))
            axes.grid(True, alpha=0.3)
    grid[1, 0].set_ylim(bottom=0)
    grid[1, 1].set_xlabel("tokens")
    figure.supylabel("share of softmax's")
    handles, labels = grid[1, 2].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(names), frameon=False)
    return figure


def _draw_attention(
    left: Axes,
    right: Axes,
    attention: str,
    rows: Sequence[Mapping[str, Any]],
    heights: Sequence[float],
    look: dict[str, Any],
) -> None:
    """The accuracies of one attention on the left, and its differences to softmax on the right."""
    options: dict[str, Any] = dict(linestyle="none", markersize=5, capsize=3) | look
    means, deviations = [row["mean"] for row in rows], [row["deviation"] or 0 for row in rows]
    left.errorbar(means, heights, xerr=deviations, label=fill(attention, 32), **options)
    for row, height in zip(rows, heights, strict=True):
        if row["difference"]:
            mean, low, high = row["difference"]
            right.errorbar(mean, height, xerr=[[mean - low], [high - mean]], **options)
