"""What the command line prints: tables that fit 80 columns."""

from collections.abc import Sequence
from itertools import takewhile
from textwrap import wrap
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table

from primal_dual.certificates.verification import Verified
from primal_dual.cli.console import shown
from primal_dual.io.text import printable

MOST_CASES = 20  # that are shown
NAME_WIDTH = 22  # of data sets
Rows = Sequence[dict[str, Any]]

CERTIFICATE = {
    "log_C": "log of the penalty C",
    "log_norm": "log of the norm |W|",
    "log_scale": "log of the unit of the next two",
    "primal_value": "1/2 |W|^2 + C times the slack",
    "dual_value": "lower bound of its minimum",
    "relative_gap": "between the two: zero if optimal",
    "stationarity": "expansion against W",
    "feasibility": "share of C by which a bound is missed",
    "complementarity": "largest share of the gap of one target",
    "query": "whose SVR: the worst of all positions",
}


LEGEND = """\
SVR: the worst of an entry's queries or heads, from 0. N x D: keys, unpooled.
gap: between primal and dual value, relative. diff: largest |f - attention|,
f the primal's, relative to f and targets. SV: share of support vectors.
bound: largest error at the keys, by the certificate."""


def certificate(primal: Any, certificates: Any) -> Table:
    """The certificates of a primal's heads, a column each."""
    table = _table(f"The SVR that these values solve: {primal}")
    for heading in ("", *(f"head {s}" if len(certificates) > 1 else "" for s in range(len(certificates))), "meaning"):
        table.add_column(heading, justify="right" if heading != "meaning" and table.columns else "left", no_wrap=True)
    for name, meaning in CERTIFICATE.items():
        values = [getattr(one, name) for one in certificates]
        if values[0] is not None:
            table.add_row(name, *(f"{value:.6g}" for value in values), meaning)
    return table


def fields(groups: dict[str, list[Any]]) -> Table:
    """The fields of the recipes, a group for each kind of data."""
    table = Table("field", "default", "meaning", box=SIMPLE_HEAD, title="Fields of the recipe", title_justify="left")
    table.columns[0].no_wrap = True
    for group, rows in groups.items():
        table.add_section()
        table.add_row(f"[bold]{group}[/]")
        for each in rows:
            table.add_row(f"--{each.name.replace('_', '-')}", shown(each.default), shown(each.meaning))
    return table


HEADS = (
    "gap: the largest of all queries of all heads of a module, relative. Then for the SVR of the last query, median "
    "(smallest to largest) over the heads: |W|, the norm as a function, and C, the smallest penalty, both log10; SV: "
    "how many of all delta are not zero with a tube of 5% of the range of the outputs on either side; keys: how many "
    "carry 90% of all |delta|."
)


def heads_of_model(heads: Sequence[Any]) -> Table:
    """The `head_complexity.Head` of a model, a row a module."""
    modules = list(dict.fromkeys(head.module for head in heads))
    start, end = _common_ends(modules)
    title = f"{len(heads)} heads, each the optimum of an SVR with {heads[0].keys} keys"
    headings = ("module", "heads", "gap", "|W|", "C", "SV", "keys")
    table = _table(f"{title}, in {start}*{end}" if len(modules) > 1 else title, headings, left=("module",))
    table.caption, table.caption_justify = HEADS, "left"
    for module in modules:
        own = [head for head in heads if head.module == module]
        norms, penalties = ([getattr(head, name) / np.log(10) for head in own] for name in ("log_norm", "log_C"))
        table.add_row(
            shown(module[len(start) : len(module) - len(end)]),
            str(len(own)),
            f"{max(head.relative_gap for head in own):.0e}",
            _range(norms, "{:.0f}"),
            _range(penalties, "{:.0f}"),
            _range([head.support_vectors for head in own], "{:.0%}"),
            _range([head.most_keys for head in own], "{:.0f}"),
        )
    return table


def _common_ends(names: Sequence[str]) -> tuple[str, str]:
    """What all names begin and end with; none of it for a single name."""
    if len(names) < 2:
        return "", ""
    start = _common_start(names)
    return start, _common_start([name[len(start) :][::-1] for name in names])[::-1]


def _common_start(names: Sequence[str]) -> str:
    return "".join(each[0] for each in takewhile(lambda each: len(set(each)) == 1, zip(*names, strict=False)))


def _range(numbers: Sequence[float], form: str) -> str:
    """Median (smallest to largest)."""
    middle, low, high = (form.format(each(numbers)) for each in (np.median, min, max))
    return f"{middle} ({low} to {high})"


def verified(rows: Sequence[Verified]) -> Table:
    """The Verified of catalog entries, a row each."""
    headings = ("attention", "SVR", "N x D", "primal", "dual", "gap", "diff", "SV", "bound", "")
    table = _table(None, headings, left=("attention",))
    for row in rows:
        which = f"head {row.head}" if row.head is not None else f"{row.query}/{row.svrs}"
        table.add_row(
            row.name,
            which if row.svrs > 1 else "",
            f"{row.keys}x{row.dimension}",
            f"{row.primal_value:.4g}",
            f"{row.dual_value:.4g}",
            f"{row.relative_gap:.0e}",
            f"{row.difference:.0e}",
            f"{row.support_vectors:.0%}",
            f"{row.error_bound:.0e}",
            "[green]pass[/]" if row.passed else "[red]fail[/]",
        )
    return table


def verdict(rows: Sequence[Verified]) -> str:
    """A line: how many were verified, and which failed."""
    failed = [row.name for row in rows if not row.passed]
    passed = f"[red]failed: {', '.join(failed)}[/]" if failed else "[green]all passed[/]: primal = dual = attention"
    svrs = sum(row.svrs for row in rows)
    plural = "y" if len(rows) == 1 else "ies", "" if svrs == 1 else "s"
    return f"{len(rows)} catalog entr{plural[0]}, {svrs} SVR{plural[1]}: {passed}"


def measured(results: dict[str, Any]) -> Table:
    """The rows of `benchmarks.run`, beside the most that each should measure."""
    table = _table("Measured, and the most it should be", ("what", "measured", "at most", ""), left=("what",))
    for row in results["rows"]:
        most, value = row["at_most"], row["measured"]
        met = "" if most is None else "[green]met[/]" if value <= most else "[red]missed[/]"
        table.add_row(row["what"], f"{value:.3g}", "" if most is None else f"{most:g}", met)
    return table


def experiments(statuses: Sequence[Any]) -> Table:
    """The statuses of `torch_impl.training.reproduction`, a row an experiment."""
    table = _table("The plan: runs that are done, and minutes of one core for the rest")
    for heading in ("experiment", "claim", "done", "of", "min", ""):
        numbers = heading in ("done", "of", "min")
        table.add_column(heading, justify="right" if numbers else "left", no_wrap=heading != "experiment")
    for status in statuses:
        experiment = status.experiment
        cost = "?" if status.minutes is None else f"{status.minutes:.0f}"
        cells = experiment.title, experiment.claim, status.done, experiment.runs, cost, status.state
        table.add_row(*(shown(cell) for cell in cells))
    missing = dict.fromkeys(each.experiment.folder for each in statuses if each.state == "missing data")
    if missing:
        table.caption = f"In no folder of --data: {', '.join(missing)} (docs/how-to/train.md)"
        table.caption_justify = "left"
    return table


def runs(rows: Rows) -> Table:
    """The table of trained runs, from the rows of `torch_impl.analysis.accuracy_table.table`."""
    table = _table("Test accuracy of the last epoch, percent")
    for heading in ("data set", "attention", "n", "mean", "sd", "minus softmax, 95%", "best", "s"):
        left = heading in ("data set", "attention")
        table.add_column(heading, justify="left" if left else "right", no_wrap=heading != "attention", overflow="fold")
    for name, row in _named_once(rows):
        deviation = "" if row["deviation"] is None else f"{row['deviation']:.1f}"
        accuracy = str(row["seeds"]), f"{row['mean']:.1f}", deviation, _paired(row)
        best_and_seconds = f"{row['best_test_epoch']:.1f}", f"{row['seconds']:.0f}"
        name_lines = "\n".join(map(shown, wrap(name, NAME_WIDTH)))
        table.add_row(name_lines, shown(row["attention"]), *accuracy, *best_and_seconds)
    return table


def signed_rank(rows: Rows, rope: float) -> Table:
    """The rows of `torch_impl.analysis.bayesian_test.signed_rank`."""
    title = "Probability, over data sets, of an accuracy beside softmax's that is"
    headings = ("attention", "sets", f"{rope:g} lower", f"within {rope:g}", f"{rope:g} higher")
    table = _table(title, headings, left=("attention",))
    for row in rows:
        probabilities = (f"{row[name]:.3f}" for name in ("less", "equal", "more"))
        table.add_row(shown(row["attention"]), str(row["sets"]), *probabilities)
    return table


def markdown(rows: Rows) -> str:
    """The same as a table in Markdown."""
    lines = [
        "| data set | attention | seeds | test accuracy | minus softmax, 95% | best epoch | s a run |",
        "|" + "---|" * 7,
    ]
    for name, row in _named_once(rows):
        accuracy = f"{row['mean']:.1f}" + ("" if row["deviation"] is None else f" ± {row['deviation']:.1f}")
        names = (printable(text).replace("|", "\\|") for text in (name, row["attention"]))
        cells = *names, row["seeds"], accuracy, _paired(row)
        lines.append("| " + " | ".join(map(str, cells)) + f" | {row['best_test_epoch']:.1f} | {row['seconds']:.0f} |")
    return "\n".join(lines)


def _paired(row: dict[str, Any]) -> str:
    """The difference to softmax and its interval; with the number of pairs, where not every run has one."""
    if row["difference"] is None:
        return ""
    count = len(row["differences"])
    pairs = f", {count} pairs" if 0 < count < row["seeds"] else ""  # an average over data sets has no differences
    return "{:+.1f} ({:+.1f} to {:+.1f})".format(*row["difference"]) + pairs


def _named_once(rows: Rows) -> list[tuple[str, dict[str, Any]]]:
    """Each row with the name of its recipe, blank where the row above has the same."""
    above = [None, *(row["recipe"] for row in rows)]
    return [("" if row["recipe"] == name else row["recipe"], row) for name, row in zip(above, rows, strict=False)]


def predictions(probabilities: Sequence[Sequence[float]], classes: Sequence[str], names: Sequence[str]) -> Table:
    """A row a case: the class and its probability; the first MOST_CASES."""
    count = len(probabilities)
    title = f"The first {MOST_CASES} of {count} cases" if count > MOST_CASES else None
    table = _table(title, ("case", "class", "probability"), left=("class",), no_wrap=False)
    for name, row in zip(names[:MOST_CASES], probabilities, strict=False):
        best = max(range(len(classes)), key=row.__getitem__)
        table.add_row(shown(name), shown(classes[best]), f"{row[best]:.3f}")
    return table


def redundancy(rows: Rows) -> Group:
    """The rows of `torch_impl.analysis.redundancy_table.table`, a table a data set."""
    what = "L2 distance between two heads or, from two seeds on, how many percent it is above softmax's, 95%\n"
    parts: list[str | Table] = [what]
    for name, row in _named_once(rows):
        if name:
            table = _redundancy_table(name)
            parts.append(table)
        cells = (_redundancy_cell(row[distance]) for distance in ("outputs", "directions", "maps"))
        entropy = "" if row["entropies"] is None else f"{row['entropies']:.2f}"
        table.add_row(shown(row["attention"]), str(row["seeds"]), *cells, entropy)
    return Group(*parts)


def _redundancy_table(name: str) -> Table:
    """An empty one, whose columns are as wide as those of the other data sets."""
    table = _table(shown(name))
    table.add_column("attention", min_width=9)
    for heading, width in (("n", 2), ("of outputs", 16), ("of directions", 13), ("of maps", 20), ("entropy", 7)):
        table.add_column(heading, justify="right", min_width=width, no_wrap=True)
    return table


def _redundancy_cell(distance: dict[str, Any]) -> str:
    """The difference to softmax, in percent, where there is one, and else the distance."""
    paired = distance["difference"]
    return f"{distance['mean']:.2f}" if paired is None else "{:+z.0f} ({:+z.0f} to {:+z.0f})".format(*paired)


def efficiency(rows: Rows) -> Table:
    """The rows of `torch_impl.analysis.efficiency.run`, beside softmax."""
    headings = ("tokens", "attention", "mode", "operations", "memory", "time")
    table = _table("Shares of softmax's", headings, left=("attention", "mode"), no_wrap=False)
    for row in rows:
        if row["attention"] != "softmax":
            ratios = (f"{row[f'{what}_ratio']:.2f}" for what in ("flops", "bytes", "seconds"))
            table.add_row(f"{row['N']:,}", row["attention"], row["mode"], *ratios)
    return table


def tutorials(listed: Sequence[Any]) -> Table:
    """A row a tutorial."""
    table = _table(None, ("", "name", "title"), left=("name", "title"), no_wrap=False)
    for tutorial in listed:
        table.add_row(str(tutorial.number), tutorial.name, tutorial.title)
    return table


def _table(title: str | None, headings: Sequence[str] = (), left: Sequence[str] = (), no_wrap: bool = True) -> Table:
    """An empty table; its columns are justified to the right, but for some."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=0)
    for heading in headings:
        table.add_column(heading, justify="left" if heading in left else "right", no_wrap=no_wrap)
    return table
