"""The command line `primal-dual`."""

import functools
import sys
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from primal_dual import checks
from primal_dual.certificates.certificate import certify as certify_values
from primal_dual.certificates.verification import Verified, list_svrs
from primal_dual.certificates.verification import verify as verify_primal
from primal_dual.cli import tables, training_commands
from primal_dual.cli.console import (
    Figure,
    Json,
    ProgressBar,
    check_figure,
    command,
    fail,
    plots_for,
    say,
    shown,
    torch_part,
    write_figure,
)
from primal_dual.io import datasets, files
from primal_dual.io.text import print_in_any_locale
from primal_dual.primal import Heads, Primal, catalog
from primal_dual.types import Array

NAMES = f"Catalog entries: {', '.join(catalog)}; or FILE.py:NAME, a primal of your own."
DATASET = "japanese-vowels"

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Self-attention as the support vector expansion of a support vector regression (SVR).",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        Console().print(version("primal-dual-attention"))
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def find_attention(name: str) -> Primal | Heads:
    """An entry of the catalog, or the primal FILE.py:NAME."""
    found = torch_part("training.recipes.attentions").find_attention(name) if ".py:" in name else name
    return catalog[found] if isinstance(found, str) else found


@command(
    app,
    "primal-dual verify bn sh bn+sh",
    "primal-dual verify rbf --keys keys.npy --targets targets.npy --C 1",
)
def verify(
    names: Annotated[list[str] | None, typer.Argument(help=f"{NAMES} All of them without a name.")] = None,
    C: Annotated[float, typer.Option("--C", help="The penalty C, in multiples of the median of |h(k_j)|.")] = 10.0,
    epsilon: Annotated[float, typer.Option(help="The half-width of the tube, in units of the targets.")] = 0.1,
    dataset: Annotated[str | None, typer.Option(help="japanese-vowels (default; needs aeon) or digits.")] = None,
    keys: Annotated[
        Path | None, typer.Option(help="Your own keys instead, a .npy file (N, D); with --targets.")
    ] = None,
    targets: Annotated[Path | None, typer.Option(help="Their targets, a .npy file (N, Dv).")] = None,
    solver: Annotated[str, typer.Option(help="A cvxpy solver of quadratic programs that is installed.")] = "CLARABEL",
    json: Json = None,
) -> None:
    """Solve the primal and the dual SVR of catalog entries on real input, and compare both with attention.

    The default input is the longest training utterance of JapaneseVowels: keys are its frames, targets the next
    frames, so each row is a one-step forecaster trained by convex optimisation. digits: the rows of an image. Where
    each query has an SVR of its own, all are verified and the worst is shown; multi-head deals the features to its
    heads. Exit status 1 if one fails.
    """
    declared = {name: find_attention(name) for name in names or catalog}
    checks.number("--C", C, above=0)
    checks.number("--epsilon", epsilon, least=0)
    if json:
        files.check_writable(json)
    key_array, target_array = _input(dataset, keys, targets)
    rows = _verify(declared, key_array, target_array, C, epsilon, solver)
    if json:
        source = {"keys": str(keys), "targets": str(targets)} if keys else {"dataset": dataset or DATASET}
        config = source | {"C": C, "epsilon": epsilon, "solver": solver}
        files.write_json(json, {"config": config, "rows": [asdict(row) for row in rows]})
    if not all(row.passed for row in rows):
        raise typer.Exit(1)


@command(
    app,
    "primal-dual certify --keys keys.npy --values values.npy --primal bn",
    "primal-dual certify --model pretrained:JapaneseVowels/softmax --figure heads.png",
)
def certify(
    keys: Annotated[
        Path | None, typer.Option(help="A head's keys, a .npy file (N, D); (2, N, D) for multi-head.")
    ] = None,
    values: Annotated[
        Path | None, typer.Option(help="Its values, a .npy file (N, Dv); (2, N, Dv) for multi-head.")
    ] = None,
    primal: Annotated[
        str | None, typer.Option(help=f"Which attention it is, softmax where none is named. {NAMES}")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Every head of a model instead: a run, pretrained:DATA/ATTENTION, or Hugging Face's folder."),
    ] = None,
    input: Annotated[
        Path | None,
        typer.Option(
            help="What the model sees: a text or an image; for a run, the first case of a file as in predict. Without "
            "it: a paragraph of English, a photograph, or the first case that the run was tested on."
        ),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="The folder of data sets that a run was trained with.")] = None,
    figure: Figure = None,
    json: Json = None,
) -> None:
    """Print the certificate of a head, or of all heads of a model: the SVRs that they solve, and the gaps as proof.

    The file of --json has the targets of a head's SVR, too; the figure is of a model. 500 tokens take about a second a
    head.
    """
    of_head, of_model = (keys, values, primal), (input, data, figure)
    if model is not None and not any(each is not None for each in of_head):
        return _certify_model(model, input, data, figure, json)
    if keys is None or values is None or any(each is not None for each in (model, *of_model)):
        raise ValueError(
            "certify: expected --keys, --values and --primal of a head, or --model with --input, --data and --figure"
        )
    primal = primal or "softmax"
    declared = find_attention(primal)
    if json:
        files.check_writable(json)
    certified = certify_values(declared, files.load_array(keys), files.load_array(values))
    certificates = certified if isinstance(certified, tuple) else (certified,)
    Console().print(tables.certificate(primal, certificates))
    if json:
        heads = [{name: getattr(one, name) for name in (*tables.CERTIFICATE, "targets")} for one in certificates]
        config = {"keys": str(keys), "values": str(values), "primal": primal}
        files.write_json(json, {"config": config, "heads": heads})


@command(app, "primal-dual demo --output demo.png")
def demo(
    output: Annotated[Path, typer.Option(help="The figure: .png, .pdf or .svg.")] = Path("primal-dual-demo.png"),
) -> None:
    """Verify the whole catalog on JapaneseVowels; draw softmax, BN and SH; certify a trained transformer.

    It ends with what scaled heads cost on this machine. About a minute. Exit status 1 if an entry fails.
    """
    torch_part("training.trained.finished_run")
    check_figure(output)
    from primal_dual.cli.demo_figure import draw
    from primal_dual.cli.demo_model import told

    keys, targets = datasets.japanese_vowels()
    rows = _verify(catalog, keys, targets, 10.0, 0.1, "CLARABEL")
    write_figure(output, lambda: draw(keys, targets))
    for sentence in told():
        Console(highlight=False).print(shown(sentence))
    if not all(row.passed for row in rows):
        raise typer.Exit(1)


@command(app, "primal-dual bench --no-memory --json bench.json")
def bench(
    json: Json = None,
    memory: Annotated[bool, typer.Option(help="Also the memory of attention at N = 16,384: minutes.")] = True,
) -> None:
    """Measure speed and memory of solvers, certificate and attention, each beside the most that it should be."""
    from primal_dual.cli import benchmarks as benchmark

    if json:
        files.check_writable(json)
    with ProgressBar() as progress:
        results = benchmark.run(memory, progress.track)
    Console().print(tables.measured(results))
    if json:
        files.write_json(json, results)


@command(
    app,
    "primal-dual tutorials 1",
    "primal-dual tutorials bn --all --figures figures",
    "primal-dual tutorials --notebooks notebooks",
)
def tutorials(
    which: Annotated[
        str | None, typer.Argument(help="A number, a name or a word of one; without it, all are listed.")
    ] = None,
    through: Annotated[bool, typer.Option("--all", help="Run through, without waiting for Enter.")] = False,
    figures: Annotated[Path, typer.Option(help="Where its figures go.")] = Path("primal-dual-tutorials"),
    notebooks: Annotated[Path | None, typer.Option(help="Write executed notebooks to this folder instead.")] = None,
) -> None:
    """List the tutorials; run one in the terminal, cell by cell; or write notebooks, of one or of all."""
    from primal_dual.cli import tutorial_scripts as scripts
    from primal_dual.cli.tutorial_terminal import run

    chosen = [scripts.find(which)] if which else scripts.list_tutorials()
    console = Console()
    if notebooks:
        with ProgressBar() as progress:
            tasks = {each: progress.add_task(each.name, total=None) for each in chosen}

            def advance(tutorial: scripts.Tutorial, done: int, cells: int) -> None:
                progress.update(tasks[tutorial], completed=done, total=cells)

            paths = scripts.write_notebooks(notebooks, chosen, progress=advance)
        Console(soft_wrap=True).print("\n".join(shown(path) for path in paths))
    elif which:
        run(chosen[0], figures, pause=not through and sys.stdin.isatty() and console.is_terminal)
    else:
        console.print(tables.tutorials(chosen))
        console.print("Run one: primal-dual tutorials 1", highlight=False)


@command(
    app,
    "primal-dual explore",
    "primal-dual explore heads.npz",
    "primal-dual explore --model pretrained:JapaneseVowels/bn+sh",
)
def explore(
    head: Annotated[
        Path | None, typer.Argument(help="Heads of your own: a .npz file with keys, values and, if you like, queries.")
    ] = None,
    keys: Annotated[
        Path | None, typer.Option(help="Or their keys, a .npy file: (N, D), (heads, N, D), (layers, heads, N, D).")
    ] = None,
    values: Annotated[Path | None, typer.Option(help="And their values, a .npy file (..., N, Dv).")] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Or a model: a run, pretrained:DATA/ATTENTION, or Hugging Face's folder."),
    ] = None,
    input: Annotated[Path | None, typer.Option(help="What the model sees, as in certify.")] = None,
    data: Annotated[Path | None, typer.Option(help="The folder of data sets that a run was trained with.")] = None,
    port: Annotated[int, typer.Option(help="Where it listens, on this machine alone; any free port for 0.")] = 5006,
    browser: Annotated[bool, typer.Option(help="Whether it is opened in a browser.")] = True,
) -> None:
    """Drag keys and targets in the browser, and see the SVR, its attention and its certificate change.

    Four pages: an SVR is an attention; what batch normalisation changes; what scaled heads see; a real head, of a
    trained model or your own. They are served on 127.0.0.1 until Ctrl-C, and need no network.
    """
    try:
        from primal_dual.cli import model_heads
        from primal_dual.explore import head_sources, server, views
    except ImportError as error:
        raise ValueError(f'this needs bokeh: pip install ".[explore]" in the checkout ({error})') from error
    sources: dict[str, head_sources.Source] = {}
    if any(given is not None for given in (head, keys, values)):
        sources["your files"] = head_sources.Files.load(keys, values, head)
    if model is not None:
        sources["your model"] = model_heads.OneModel(model, input, data)
    elif input is not None or data is not None:
        raise ValueError("--input and --data: expected --model beside them; got none")
    sources |= {"the spoken vowel": head_sources.Vowel()} | model_heads.sources()
    server.serve(server.start(views.all_views(sources), port), browser)


app.add_typer(training_commands.app)


def main() -> None:
    """The entry point of `primal-dual`: a usage error is one line, too."""
    print_in_any_locale()
    try:
        status = app(standalone_mode=False)
    except OSError as error:  # of the help or the version: what commands raise is told by themselves
        status = fail(error)
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        if not sys.argv[1:]:
            app()
        status = fail(error.format_message())
    sys.exit(status)


def _input(dataset: str | None, keys: Path | None, targets: Path | None) -> tuple[Array, Array]:
    if (keys is None) != (targets is None):
        raise ValueError("--keys and --targets: expected both or none")
    if keys is not None and targets is not None:
        if dataset is not None:
            raise ValueError(f"--dataset: expected none beside --keys and --targets; got {dataset!r}")
        return files.load_array(keys), files.load_array(targets)
    if (dataset or DATASET) not in datasets.DATASETS:
        raise ValueError(f"--dataset: expected {' or '.join(datasets.DATASETS)}; got {dataset!r}")
    return datasets.DATASETS[dataset or DATASET]()


def _verify(
    declared: Mapping[str, Primal | Heads], keys: Array, targets: Array, C: float, epsilon: float, solver: str
) -> list[Verified]:
    """Verify catalog entries with a progress bar, and print the table."""
    keys, targets = checks.matrix("keys", keys, "N D"), checks.matrix("targets", targets, "N Dv")
    rows = []
    with ProgressBar() as progress:
        task = progress.add_task("", total=sum(len(list_svrs(primal, keys)) for primal in declared.values()))
        advance = functools.partial(progress.advance, task)
        for name, primal in declared.items():
            progress.update(task, description=name)
            row = verify_primal(name, primal, keys, targets, C=C, epsilon=epsilon, solver=solver, advance=advance)
            rows.append(row)
    Console().print(tables.verified(rows))
    Console(highlight=False).print(f"{tables.LEGEND}\n{tables.verdict(rows)}")
    return rows


def _certify_model(model: str, file: Path | None, data: Path | None, figure: Path | None, json: Path | None) -> None:
    """Certify every head of a model, and print a row a module."""
    plots = plots_for(figure)
    if json:
        files.check_writable(json)
    module, inputs = torch_part("analysis.models_to_certify").load_model(model, file, data, say)
    with ProgressBar() as progress:
        heads = torch_part("analysis.head_complexity").describe_heads(
            module, inputs, functools.partial(progress.track, description="heads")
        )
    Console().print(tables.heads_of_model(heads))
    if json:
        config = {"model": model, "input": str(file) if file else None}
        files.write_json(json, {"config": config, "heads": [head._asdict() for head in heads]})
    write_figure(figure, lambda: plots.plot_head_complexity(heads))
