"""The command line `primal-dual`."""

import functools
import importlib
import sys
from dataclasses import asdict
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from primal_dual import checks, data, report
from primal_dual.certificate import certify as certify_values
from primal_dual.primal import Heads, catalog
from primal_dual.supports import svr_queries
from primal_dual.verify import svrs
from primal_dual.verify import verify as verify_primal

NAMES = f"Catalog entries: {', '.join(catalog)}."
DATASET = "japanese-vowels"
FOUR = ["softmax", "bn", "sh", "bn+sh"]
EMBEDDED = "JapaneseVowels, BasicMotions, digits and ListOps"

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Self-attention as the support vector expansion of a support vector regression (SVR).",
)
Figure = Annotated[Path | None, typer.Option("--figure", help="Draw it to this file: .png, .pdf or .svg.")]
Json = Annotated[Path | None, typer.Option("--json", help="Write the numbers to this file, too.")]


def one_line(function):
    """Let bad input end in one line and exit status 2."""

    @functools.wraps(function)
    def run(*args, **options):
        try:
            function(*args, **options)
        except ValueError as error:
            raise typer.Exit(_fail(error)) from error

    return run


def command(function):
    """Make a function a command, of which bad input ends in one line and exit status 2."""
    return app.command()(one_line(function))


@command
def verify(
    names: Annotated[list[str] | None, typer.Argument(help=f"{NAMES} All of them without a name.")] = None,
    C: Annotated[float, typer.Option("--C", help="The penalty C, in multiples of the median of |h(k_j)|.")] = 10.0,
    epsilon: Annotated[float, typer.Option(help="Half the width of the tube, in units of the targets.")] = 0.1,
    dataset: Annotated[str | None, typer.Option(help="japanese-vowels (default; needs aeon) or digits.")] = None,
    keys: Annotated[
        Path | None, typer.Option(help="Your own keys instead, a .npy file (N, D); with --targets.")
    ] = None,
    targets: Annotated[Path | None, typer.Option(help="Their targets, a .npy file (N, Dv).")] = None,
    solver: Annotated[str, typer.Option(help="A cvxpy solver of quadratic programs that is installed.")] = "CLARABEL",
    json: Json = None,
):
    """Solve the primal and the dual SVR of catalog entries on real input, and compare both with attention.

    The default input is the longest training utterance of JapaneseVowels: keys are its frames, targets the next
    frames, so each row is a one-step forecaster trained by convex optimisation. digits: the rows of an image. Where
    each query has an SVR of its own, all are verified and the worst is shown; multi-head deals the features to its
    heads. Exit status 1 if one fails.
    """
    declared = {name: catalog[name] for name in names or catalog}
    checks.number("--C", C, above=0)
    checks.number("--epsilon", epsilon, least=0)
    if json:
        data.check_writable(json)
    rows = _verify(declared, *_input(dataset, keys, targets), C, epsilon, solver)
    if json:
        source = {"keys": str(keys), "targets": str(targets)} if keys else {"dataset": dataset or DATASET}
        config = source | {"C": C, "epsilon": epsilon, "solver": solver}
        data.write_json(json, report.plain({"config": config, "rows": [asdict(row) for row in rows]}))
    if not all(row.passed for row in rows):
        raise typer.Exit(1)


@command
def certify(
    keys: Annotated[Path, typer.Option(help="A head's keys, a .npy file (N, D); (2, N, D) for multi-head.")],
    values: Annotated[Path, typer.Option(help="Its values, a .npy file (N, Dv); (2, N, Dv) for multi-head.")],
    primal: Annotated[str, typer.Option(help=f"Which attention it is. {NAMES}")] = "softmax",
    json: Json = None,
):
    """Print the certificate of a head: the SVR that its keys and values solve, and the gap that proves it.

    The file of --json has the targets of that SVR, too.
    """
    declared = catalog[primal]
    if json:
        data.check_writable(json)
    certificates = _certify(declared, data.load_array(keys), data.load_array(values))
    Console().print(report.certificate(primal, certificates))
    if json:
        heads = [{name: getattr(one, name) for name in (*report.CERTIFICATE, "targets")} for one in certificates]
        config = {"keys": str(keys), "values": str(values), "primal": primal}
        data.write_json(json, report.plain({"config": config, "heads": heads}))


@command
def demo(
    output: Annotated[Path, typer.Option(help="The figure: .png, .pdf or .svg.")] = Path("primal-dual-demo.png"),
):
    """Verify the whole catalog on JapaneseVowels; draw softmax, BN and SH: forecast, attention map, duality; train.

    The training is short, for a look: 10 epochs and one seed of each attention. Exit status 1 if an entry fails.
    """
    runs, tables = _torch_part("runs"), _torch_part("tables")
    _check_figure(output)
    from primal_dual.figures import draw

    keys, targets = data.japanese_vowels()
    rows = _verify(catalog, keys, targets, 10.0, 0.1, "CLARABEL")
    _draw(output, lambda: draw(keys, targets))
    with _progress() as progress, TemporaryDirectory() as folder:
        fields = "JapaneseVowels", FOUR, 1, None, folder, 1, {"epochs": 10}
        summaries = runs.train_all(*fields, progress)
    Console().print(report.runs(tables.table(summaries)))
    Console(soft_wrap=True).print("10 epochs, one seed: a look, no result. primal-dual train JapaneseVowels is one.")
    if not all(row.passed for row in rows):
        raise typer.Exit(1)


@command
def bench(
    json: Json = None,
    memory: Annotated[bool, typer.Option(help="Also the memory of attention at N = 16,384: minutes.")] = True,
):
    """Measure speed and memory of solvers, certificate and attention, each beside the most that it should be."""
    from primal_dual import bench as benchmark

    if json:
        data.check_writable(json)
    with _progress() as progress:
        results = benchmark.run(memory, progress.track)
    Console().print(report.benchmarks(results))
    if json:
        data.write_json(json, report.plain(results))


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
@one_line
def train(
    context: typer.Context,
    recipe: Annotated[str, typer.Argument(help=f"A data set: {EMBEDDED} need no download; else a folder in --data.")],
    seeds: Annotated[int, typer.Option(help="How many runs of each attention, with seeds from 0.")] = 5,
    data: Annotated[Path | None, typer.Option(help="Where the folders of data sets are.")] = None,
    folder: Annotated[Path, typer.Option(help="Where the runs go, and go on from.")] = Path("runs"),
    jobs: Annotated[int, typer.Option(help="How many runs at a time, each in a process of its own.")] = 1,
):
    """Train transformers: --attention NAME ... (softmax bn sh bn+sh), and any --field of the recipe.

    The folder RECIPE in --data has RECIPE_TRAIN.ts and RECIPE_TEST.ts of the UEA archive; images as
    train/CLASS/FILE and val/CLASS/FILE, or both as .tar; CIFAR-10's .bin files; or listops' and IMDb's files.
    A run that was interrupted goes on; one that is done is not run again.
    """
    checks.integer("--seeds", seeds, 1)
    checks.integer("--jobs", jobs, 1)
    runs, tables = _torch_part("runs"), _torch_part("tables")
    fields = _fields(context.args)
    attentions = fields.pop("attention", FOUR)
    changes = {name: values[0] if len(values) == 1 else " ".join(values) for name, values in fields.items()}
    first = runs.this_process().first
    with _progress() as progress:
        summaries = runs.train_all(recipe, attentions, seeds, data, folder, jobs, changes, progress)
    if first:
        Console().print(report.runs(tables.table(summaries)))


@command
def results(
    folder: Annotated[Path, typer.Argument(help="A folder of runs, or a file of results.")] = Path("runs"),
    json: Json = None,
    figure: Figure = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table in Markdown.")] = False,
):
    """The table of all runs: mean and deviation over the seeds, and the paired difference to softmax."""
    tables, plots = _torch_part("tables"), _plots(figure)
    if json:
        data.check_writable(json)
    summaries = tables.load(folder)
    rows = tables.table(summaries)
    if markdown:
        print(report.markdown(rows))
    else:
        Console().print(report.runs(rows))
    if json:
        data.write_json(json, {"runs": summaries})
    _draw(figure, lambda: plots.accuracies(rows))


@command
def redundancy(
    runs: Annotated[list[Path], typer.Argument(help="Finished runs: RUNS/RECIPE/ATTENTION/SEED, one an attention.")],
    data_folder: Annotated[Path | None, typer.Option("--data", help="Where the folders of data sets are.")] = None,
    figure: Figure = None,
    json: Json = None,
):
    """How far apart the heads of trained models are, on what they were tested on: the nearer, the more redundant."""
    analysis, plots = _torch_part("redundancy"), _plots(figure)
    if json:
        data.check_writable(json)
    found = {}
    for folder in runs:
        each, run = analysis.of_run(folder, data_folder, say=Console(stderr=True).print)
        found[run.attention if run.attention not in found else str(folder)] = each
    summaries = {name: each.summary() for name, each in found.items()}
    Console().print(report.redundancy(summaries))
    if json:
        data.write_json(json, report.plain({"runs": list(map(str, runs)), "redundancy": summaries}))
    _draw(figure, lambda: plots.heads(found))


@command
def efficiency(
    lengths: Annotated[list[int] | None, typer.Argument(help="Tokens: 256 512 1024 2048 4096 8192.")] = None,
    figure: Figure = None,
    json: Json = None,
):
    """Operations, memory and time of softmax, bn, sh and bn+sh in a layer, training and inference, against length."""
    measure, plots = _torch_part("efficiency"), _plots(figure)
    for N in lengths or ():
        checks.integer("lengths", N, 2)
    if json:
        data.check_writable(json)
    with _progress() as progress:
        result = measure.run(measure.device(), lengths or measure.LENGTHS, track=progress.track)
    Console().print(report.efficiency(result["rows"]))
    if json:
        data.write_json(json, result)
    _draw(figure, lambda: plots.efficiency(result))


@command
def evaluate(
    run: Annotated[Path, typer.Argument(help="A finished run: RUNS/RECIPE/ATTENTION/SEED.")],
    data: Annotated[Path | None, typer.Option(help="The folder of data sets that it was trained with.")] = None,
):
    """Test a finished run once more, from its weights."""
    share, cases = _torch_part("trained").evaluate(run, data, Console(stderr=True).print)
    Console().print(f"test accuracy {100 * share:.1f} on {cases} cases")


@command
def predict(
    run: Annotated[Path, typer.Argument(help="A finished run: RUNS/RECIPE/ATTENTION/SEED.")],
    file: Annotated[Path, typer.Argument(help="New cases: a .ts file, of which labels are ignored, or images.")],
    json: Json = None,
):
    """Classify new cases by a finished run. The file of --json has all of them, with all probabilities."""
    if json:
        data.check_writable(json)
    probabilities, classes, names = _torch_part("trained").predict(run, file)
    rows, names = probabilities.tolist(), list(map(str, names))
    Console().print(report.predictions(rows, classes, names))
    if json:
        data.write_json(json, {"classes": classes, "cases": names, "probabilities": rows})


@command
def tutorials(
    which: Annotated[str | None, typer.Argument(help="A number or a name; without it, they are listed.")] = None,
    through: Annotated[bool, typer.Option("--all", help="Run through, without waiting for Enter.")] = False,
    figures: Annotated[Path, typer.Option(help="Where its figures go.")] = Path("primal-dual-tutorials"),
    notebooks: Annotated[Path | None, typer.Option(help="Write executed notebooks to this folder instead.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a small web site to this folder instead.")] = None,
):
    """List the tutorials; run one in the terminal, cell by cell; or write notebooks or pages, of one or of all."""
    from primal_dual import site
    from primal_dual import tutorials as scripts

    chosen = [scripts.find(which)] if which else scripts.tutorials()
    console = Console()
    if notebooks or html:
        with _progress() as progress:
            tasks = {each: progress.add_task(each.name, total=None) for each in chosen}

            def advance(tutorial, done, cells):
                progress.update(tasks[tutorial], completed=done, total=cells)

            paths = scripts.write_notebooks(notebooks, chosen, progress=advance) if notebooks else []
            paths += site.write_site(html, chosen, progress=advance) if html else []
        Console(soft_wrap=True).print("\n".join(escape(str(path)) for path in paths))
    elif which:
        scripts.run(chosen[0], figures, pause=not through and sys.stdin.isatty() and console.is_terminal)
    else:
        console.print(report.tutorials(chosen))
        console.print("Run one: primal-dual tutorials 1", highlight=False)


@app.command("version")
def show_version():
    """Print the version."""
    Console().print(version("primal-dual-attention"))


def main():
    """The entry point of `primal-dual`: a usage error is one line, too."""
    try:
        status = app(standalone_mode=False)
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        if not sys.argv[1:]:
            app()
        status = _fail(error.format_message())
    sys.exit(status)


def _torch_part(name):
    try:
        return importlib.import_module(f"torch_impl.{name}")
    except ImportError as error:
        raise ValueError(f"this needs torch: pip install 'primal-dual-attention[train]' ({error})") from error


def _plots(figure):
    """The module that draws, before long work; None without a figure."""
    if figure is None:
        return None
    _check_figure(figure)
    return _torch_part("plots")


def _check_figure(figure):
    if find_spec("matplotlib") is None:
        raise ValueError("the figure needs matplotlib: pip install 'primal-dual-attention[plot]'")
    if figure.suffix not in (".png", ".pdf", ".svg"):
        raise ValueError(f"{figure}: expected a name that ends in .png, .pdf or .svg")
    data.check_writable(figure)


def _draw(figure, make):
    if figure:
        data.write_file(figure, make().savefig)
        Console(soft_wrap=True).print(f"Figure: {escape(str(figure))}")


def _input(dataset, keys, targets):
    if (keys is None) != (targets is None):
        raise ValueError("--keys and --targets: expected both or none")
    if keys is not None:
        if dataset is not None:
            raise ValueError(f"--dataset: expected none beside --keys and --targets; got {dataset!r}")
        return data.load_array(keys), data.load_array(targets)
    if (dataset or DATASET) not in data.DATASETS:
        raise ValueError(f"--dataset: expected {' or '.join(data.DATASETS)}; got {dataset!r}")
    return data.DATASETS[dataset or DATASET]()


def _verify(declared, keys, targets, C, epsilon, solver):
    """Verify catalog entries with a progress bar, and print the table."""
    keys, targets = checks.matrix("keys", keys, "N D"), checks.matrix("targets", targets, "N Dv")
    rows = []
    with _progress() as progress:
        task = progress.add_task("", total=sum(len(svrs(primal, keys)) for primal in declared.values()))
        advance = functools.partial(progress.advance, task)
        for name, primal in declared.items():
            progress.update(task, description=name)
            row = verify_primal(name, primal, keys, targets, C=C, epsilon=epsilon, solver=solver, advance=advance)
            rows.append(row)
    Console().print(report.verified(rows))
    Console(highlight=False).print(f"{report.LEGEND}\n{report.verdict(rows)}")
    return rows


def _certify(declared, keys, values):
    """The certificate of each head; the worst of all positions under a support, with a progress bar."""
    if isinstance(declared, Heads):
        return certify_values(declared, keys, values)
    keys = checks.matrix("keys", keys, "N D")
    with _progress() as progress:
        queries = progress.track(svr_queries(declared.support, len(keys)), description="positions")
        each = (certify_values(declared, keys, values, query=query) for query in queries)
        return (max(each, key=lambda certificate: certificate.relative_gap),)


def _fields(words):
    """--name value ... --name value ... -> a dictionary of lists; a --name without a value is true."""
    fields = {}
    for word in words:
        if word.startswith("--"):
            name, _, value = word[2:].partition("=")
            values = fields[name.replace("-", "_")] = [value] if value else []
        elif not fields:
            raise ValueError(f"{word}: expected --attention NAME ... or a --field of the recipe before it")
        else:
            values.append(word)
    return {name: values or ["true"] for name, values in fields.items()}


def _progress():
    columns = TextColumn("{task.description:12}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _fail(error):
    """Print an error in one line, and return its exit status."""
    message = escape(" ".join(str(error).split()))
    Console(stderr=True, soft_wrap=True, highlight=False).print(f"[bold red]error:[/] {message}")
    return 2


if __name__ == "__main__":
    main()
