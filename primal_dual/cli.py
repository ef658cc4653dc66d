"""The command line `primal-dual`."""

import functools
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from primal_dual import checks, data
from primal_dual.certificate import certify as certify_values
from primal_dual.primal import Heads, catalog
from primal_dual.supports import Everything, positions
from primal_dual.verify import svrs
from primal_dual.verify import verify as verify_primal

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Self-attention as the support vector expansion of a support vector regression.",
)
Names = Annotated[list[str] | None, typer.Argument(help="Catalog entries; all of them without a name.")]
Penalty = Annotated[float, typer.Option("--C", help="The penalty C, in multiples of the median of |h(k_j)|.")]
Epsilon = Annotated[float, typer.Option("--epsilon", help="Half the width of the tube, in units of the targets.")]
Solver = Annotated[str, typer.Option("--solver", help="Any cvxpy solver that is installed.")]
Json = Annotated[Path | None, typer.Option("--json", help="Write the numbers to this file, too.")]


def command(function):
    """Make a function a command, of which bad input ends in one line and exit status 2."""

    @functools.wraps(function)
    def run(*args, **options):
        try:
            function(*args, **options)
        except ValueError as error:
            Console(stderr=True, soft_wrap=True, highlight=False).print(f"[bold red]error:[/] {_escaped(error)}")
            raise typer.Exit(2) from error

    return app.command()(run)


@command
def verify(
    names: Names = None,
    C: Penalty = 10.0,
    epsilon: Epsilon = 0.1,
    dataset: Annotated[str, typer.Option(help="japanese-vowels (needs aeon) or digits.")] = "japanese-vowels",
    keys: Annotated[Path | None, typer.Option(help="Instead: keys from a .npy file, (N, D) ...")] = None,
    targets: Annotated[Path | None, typer.Option(help="... and their targets, (N, Dv).")] = None,
    solver: Solver = "CLARABEL",
    json: Json = None,
):
    """Solve the primal and the dual SVR of catalog entries on real input, and compare both with attention.

    The default input is the longest training utterance of JapaneseVowels: keys are its frames, targets the next
    frames, so each row is a one-step forecaster trained by convex optimisation. An entry whose queries have SVRs of
    their own is verified at every position, and the worst one is shown. Exit status 1 if one fails.
    """
    if json:
        data.check_writable(json)
    rows = _verify(names, *_input(dataset, keys, targets), C, epsilon, solver)
    if json:
        source = {"keys": str(keys), "targets": str(targets)} if keys else {"dataset": dataset}
        config = source | {"C": C, "epsilon": epsilon, "solver": solver}
        data.write_json(json, {"config": config, "rows": [asdict(row) for row in rows]})
    if not all(row.passed for row in rows):
        raise typer.Exit(1)


@command
def certify(
    keys: Annotated[Path, typer.Option(help="A head's keys, a .npy file (N, D); (H, N, D) for multi-head.")],
    values: Annotated[Path, typer.Option(help="Its values, a .npy file (N, Dv).")],
    primal: Annotated[str, typer.Option(help="Which attention it is: a catalog name.")] = "softmax",
    json: Json = None,
):
    """Print the certificate of a head: the SVR that its keys and values solve, and the gap that proves it."""
    declared = catalog[primal]
    if json:
        data.check_writable(json)
    certificates = _certify(declared, data.load_array(keys), data.load_array(values))
    table = Table(title=f"The SVR that these values solve: {primal}", title_justify="left")
    table.add_column("in units of exp(log_scale)")
    for head in range(len(certificates)):
        table.add_column(f"head {head}" if len(certificates) > 1 else "", justify="right")
    shown = (
        "log_C",
        "log_scale",
        "primal_value",
        "dual_value",
        "relative_gap",
        "stationarity",
        "feasibility",
        "complementarity",
        "query",
    )
    numbers = [{name: getattr(certificate, name) for name in shown} for certificate in certificates]
    for name in shown:
        table.add_row(name, *(_number(each[name]) for each in numbers))
    Console().print(table)
    if json:
        data.write_json(
            json, {"config": {"keys": str(keys), "values": str(values), "primal": primal}, "heads": numbers}
        )


@command
def demo(
    output: Annotated[Path, typer.Option(help="The figure: .png, .pdf or .svg.")] = Path("primal-dual-demo.png"),
):
    """Verify the whole catalog on JapaneseVowels, then draw softmax, BN and SH: forecast, attention map, duality."""
    try:
        from primal_dual.figures import draw
    except ImportError as error:
        raise ValueError("the figure needs matplotlib: pip install 'primal-dual-attention[plot]'") from error
    if output.suffix not in (".png", ".pdf", ".svg"):
        raise ValueError(f"{output}: expected a name that ends in .png, .pdf or .svg")
    keys, targets = data.japanese_vowels()
    data.check_writable(output)
    rows = _verify(None, keys, targets, 10.0, 0.1, "CLARABEL")
    data.write_file(output, draw(keys, targets).savefig)
    Console().print(f"Figure: {output}")
    if not all(row.passed for row in rows):
        raise typer.Exit(1)


@command
def bench(
    json: Json = None,
    long: Annotated[bool, typer.Option(help="Also the memory of attention at N = 16,384, for every support.")] = True,
):
    """Measure speed and memory: solvers, certificate and attention, as ratios inside one run."""
    from primal_dual import bench as benchmark

    if json:
        data.check_writable(json)
    with _progress() as progress:
        results = benchmark.run(long, lambda text: progress.console.print(text))
    Console().print(benchmark.table(results))
    if json:
        data.write_json(json, results)


def main():
    """The entry point of `primal-dual`."""
    app()


def _input(dataset, keys, targets):
    if (keys is None) != (targets is None):
        raise ValueError("--keys and --targets: expected both or none")
    if keys is not None:
        return data.load_array(keys), data.load_array(targets)
    if dataset not in data.DATASETS:
        raise ValueError(f"--dataset: expected {' or '.join(data.DATASETS)}; got {dataset!r}")
    return data.DATASETS[dataset]()


def _certify(declared, keys, values):
    """The certificate of each head; the worst of all positions under a support, with a progress bar."""
    if isinstance(declared, Heads):
        return certify_values(declared, keys, values)
    if isinstance(declared.support, Everything):
        return (certify_values(declared, keys, values),)
    keys = checks.matrix("keys", keys, "N D")
    with _progress() as progress:
        queries = progress.track(range(positions(declared.support, len(keys))), description="positions")
        each = (certify_values(declared, keys, values, query=query) for query in queries)
        return (max(each, key=lambda certificate: certificate.relative_gap),)


def _verify(names, keys, targets, C, epsilon, solver):
    """Verify catalog entries with a progress bar, and print the table."""
    declared = {name: catalog[name] for name in names or catalog}
    keys, targets = checks.matrix("keys", keys, "N D"), checks.matrix("targets", targets, "N Dv")
    checks.number("C", C, above=0)
    rows = []
    with _progress() as progress:
        task = progress.add_task("", total=sum(len(svrs(primal, keys)) for primal in declared.values()))
        for name, primal in declared.items():
            progress.update(task, description=name)
            rows.append(
                verify_primal(
                    name,
                    primal,
                    keys,
                    targets,
                    C=C,
                    epsilon=epsilon,
                    solver=solver,
                    advance=lambda: progress.advance(task),
                )
            )
    Console().print(_table(rows))
    failed = [row.name for row in rows if not row.passed]
    verdict = f"[red]failed: {', '.join(failed)}[/]" if failed else "[green]all passed[/]: primal = dual = attention"
    Console().print(f"{len(rows)} of the catalog, {sum(row.svrs for row in rows)} SVRs: {verdict}")
    return rows


def _table(rows):
    table = Table(
        box=SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        caption_justify="left",
        caption=(
            "SVR: which was the worst, of an entry with several. N x D: keys. gap: relative, primal to dual.\n"
            "|f-attn|: the primal's f against attention with the dual's values, relative to the largest |f|.\n"
            "SV: share of support vectors. bound: largest error at the keys, from the certificate."
        ),
    )
    for heading in ("attention", "SVR", "N x D", "primal", "dual", "gap", "|f-attn|", "SV", "bound", ""):
        table.add_column(heading, justify="left" if heading in ("attention", "SVR") else "right", no_wrap=True)
    for row in rows:
        which = f"head {row.head}" if row.query is None and row.head is not None else f"{row.query} of {row.svrs}"
        table.add_row(
            row.name,
            which if row.svrs > 1 else "",
            f"{row.keys} x {row.dimension}",
            f"{row.primal_value:.5g}",
            f"{row.dual_value:.5g}",
            f"{row.relative_gap:.0e}",
            f"{row.difference:.0e}",
            f"{row.support_vectors:.0%}",
            f"{row.error_bound:.0e}",
            "[green]pass[/]" if row.passed else "[red]fail[/]",
        )
    return table


def _progress():
    columns = TextColumn("{task.description:12}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    return Progress(*columns, console=Console(stderr=True), transient=True)


def _number(x):
    return "" if x is None else f"{x:.6g}" if np.isfinite(x) else str(x)


def _escaped(error):
    from rich.markup import escape

    return escape(" ".join(str(error).split()))


if __name__ == "__main__":
    sys.exit(main())
