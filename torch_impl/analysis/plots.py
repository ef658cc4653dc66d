"""Pictures of results: accuracies with their paired differences, head redundancy, efficiency."""

from textwrap import fill

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

# colour-blind safe (Okabe, Ito)
COLOURS = ("#000000", "#0072B2", "#D55E00", "#CC79A7", "#009E73", "#E69F00", "#56B4E9")


def accuracies(rows):
    """The rows of `tables.table` -> a Figure: test accuracy with its deviation, and the difference to softmax."""
    names = list(dict.fromkeys(row["recipe"] for row in rows))
    attentions = list(dict.fromkeys(row["attention"] for row in rows))
    figure = Figure(figsize=(9, 1.4 + 0.9 * len(names)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for i, (attention, colour) in enumerate(zip(attentions, COLOURS, strict=False)):
        style = dict(fmt="o", color=colour, markersize=5, capsize=3)
        mine = [row for row in rows if row["attention"] == attention]
        y = [names.index(row["recipe"]) + 0.6 * ((i + 0.5) / len(attentions) - 0.5) for row in mine]
        deviations = [row["deviation"] or 0 for row in mine]
        left.errorbar([row["mean"] for row in mine], y, xerr=deviations, label=attention, **style)
        for row, each in zip(mine, y, strict=True):
            if row["difference"]:
                mean, low, high = row["difference"]
                right.errorbar(mean, each, xerr=[[mean - low], [high - mean]], **style)
    left.set(yticks=range(len(names)), yticklabels=[fill(name, 28) for name in names], ylim=(len(names) - 0.5, -0.5))
    left.set_xlabel("test accuracy, %\nmean and deviation over seeds")
    right.axvline(0, color=COLOURS[0], linewidth=1)
    right.set_xlabel("less softmax, percentage points\nmean and 95% interval over the same seeds")
    for axes in (left, right):
        axes.grid(True, axis="x", alpha=0.3)
        for line in range(1, len(names)):
            axes.axhline(line - 0.5, color="0.8", linewidth=0.8)
    figure.legend(loc="outside upper center", ncols=len(attentions), frameon=False)
    return figure


def heads(found):
    """{attention: Redundancy} -> a Figure: distances between heads, a row an attention, a column a layer."""
    layers = len(next(iter(found.values())).outputs)
    most = max(each.outputs.max().item() for each in found.values())
    figure = Figure(figsize=(1.2 + 2.2 * layers, 0.8 + 2.2 * len(found)), layout="constrained")
    grid = figure.subplots(len(found), layers, squeeze=False)
    for row, (name, each) in zip(grid, found.items(), strict=True):
        for layer, (axes, distances) in enumerate(zip(row, each.outputs, strict=True), 1):
            image = axes.imshow(distances.numpy(), cmap="viridis", vmin=0, vmax=most)
            axes.set(xticks=range(len(distances)), yticks=range(len(distances)))
            axes.tick_params(labelsize=6)
            axes.set_title(f"{name}, layer {layer}", fontsize=9)
    figure.supxlabel("head", fontsize=9)
    figure.supylabel("head", fontsize=9)
    figure.colorbar(image, ax=grid, shrink=0.6, label="L2 distance of outputs")
    return figure


def efficiency(result):
    """The result of `efficiency.run` -> a Figure: operations, memory and time beside softmax's, against length."""
    names = list(dict.fromkeys(row["attention"] for row in result["rows"]))
    lengths = sorted({row["N"] for row in result["rows"]})
    figure = Figure(figsize=(10, 6), layout="constrained")
    for axes_row, mode in zip(figure.subplots(2, 3, sharex=True, sharey=True), ("training", "inference"), strict=True):
        for axes, what in zip(axes_row, ("flops", "bytes", "seconds"), strict=True):
            for name, colour in zip(names, COLOURS, strict=False):
                rows = {row["N"]: row for row in result["rows"] if (row["attention"], row["mode"]) == (name, mode)}
                ratios = [rows[N][f"{what}_ratio"] for N in lengths]
                axes.plot(lengths, ratios, "o-", color=colour, label=name, markersize=4)
            axes.set_xscale("log", base=2)
            axes.set_xticks(lengths, [f"{N:,}" for N in lengths])
            title = {"flops": "operations", "bytes": "peak memory", "seconds": "time"}[what]
            axes.set_title(f"{title}, {mode}", fontsize=10)
            axes.yaxis.set_major_formatter(PercentFormatter(1))
            axes.grid(True, alpha=0.3)
    axes_row[0].set_ylim(bottom=0)
    axes_row[1].set_xlabel("tokens")
    figure.supylabel("share of softmax's")
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(names), frameon=False)
    return figure
