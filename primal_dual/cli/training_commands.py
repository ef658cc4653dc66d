"""The commands of training: runs, their results, and what is made of trained models."""

import time
from math import inf
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperCommand

from primal_dual import checks
from primal_dual.cli import tables
from primal_dual.cli.console import (
    Figure,
    Json,
    ProgressBar,
    choose_device,
    command,
    plots_for,
    say,
    shown,
    torch_part,
    write_figure,
)
from primal_dual.io.files import check_writable, write_json
from primal_dual.primal import COMPARED, catalog

RUN = "A finished run, RUNS/RECIPE/ATTENTION/SEED, or pretrained:RECIPE/ATTENTION."
EMBEDDED = "JapaneseVowels, BasicMotions, digits and ListOps"

app = typer.Typer()


class _WithFields(TyperCommand):
    """A command whose help ends with the fields of the recipes."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        super().format_help(ctx, formatter)
        try:
            Console().print(tables.fields(torch_part("training.recipes.recipe_fields").fields_by_kind()))
        except ValueError as error:  # without torch
            say(error)


@command(
    app,
    "primal-dual train JapaneseVowels --attention softmax bn sh --seeds 3",
    "primal-dual train Mine --data DIR --attention FILE.py:NAME --epochs 50 --lr 0.002",
    cls=_WithFields,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def train(
    context: typer.Context,
    recipe: Annotated[str, typer.Argument(help=f"A data set: {EMBEDDED} need no download; else a folder in --data.")],
    seeds: Annotated[int, typer.Option(help="How many runs of each attention, with seeds from 0.")] = 5,
    data: Annotated[Path | None, typer.Option(help="Where the folders of data sets are.")] = None,
    folder: Annotated[Path, typer.Option(help="Where the runs go, and go on from.")] = Path("runs"),
    jobs: Annotated[
        int | None,
        typer.Option(help="Runs at a time, each in a process; by default one a core, on a GPU 8 of series or 1."),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="Threads of each run; by default, 1 for series, else its share of the cores.")
    ] = None,
) -> None:
    """Train transformers: --attention NAME ... (softmax bn sh bn+sh), and any --field of the recipe.

    An attention of your own is --attention FILE.py:NAME, a Primal or Heads called NAME in a Python file.

    --data has RECIPE.npz with the arrays X_train, y_train, X_test and y_test; or RECIPE_TRAIN.csv and RECIPE_TEST.csv,
    one series a row, its label last, with a header of words or none, and an empty cell for a missing value (or both
    .npz, with X and y); or a folder RECIPE with RECIPE_TRAIN.ts and RECIPE_TEST.ts of the UEA archive; images as
    train/CLASS/FILE and val/CLASS/FILE, or both as .tar; MNIST's idx files, gzipped or not; CIFAR-10's .bin files; or
    listops' and IMDb's files.
    A run that was interrupted goes on; one that is done is not run again.
    """
    if recipe.startswith("--"):
        raise ValueError(f"{recipe}: expected the data set first, as in primal-dual train digits --attention bn")
    checks.integer("--seeds", seeds, 1)
    for option, number in (("--jobs", jobs), ("--threads", threads)):
        if number is not None:
            checks.integer(option, number, 1)
    runs, accuracy_table = torch_part("training.runs.schedule"), torch_part("analysis.accuracy_table")
    fields = _fields(context.args)
    attentions = fields.pop("attention", COMPARED)
    if not attentions:
        raise ValueError("--attention: expected a name after it; got none")
    changes = {name: " ".join(values) or True for name, values in fields.items()}
    first = runs.this_process().first
    with ProgressBar() as progress:
        schedule = runs.Schedule(jobs, threads)
        summaries = runs.train_all(recipe, attentions, seeds, data, folder, changes, progress, schedule)
    if first:
        Console().print(tables.runs(accuracy_table.table(summaries)))


@command(
    app,
    "primal-dual results runs --figure accuracies.png",
    "primal-dual results runs --against lr --figure rates.png",
    "primal-dual results runs more.json --json all.json --markdown",
)
def results(
    sources: Annotated[
        list[Path] | None, typer.Argument(help="Folders of runs, and files of results; runs/ unless given.")
    ] = None,
    json: Json = None,
    figure: Figure = None,
    against: Annotated[
        str | None, typer.Option(help="A field of the recipe, such as lr: the figure is of the accuracies against it.")
    ] = None,
    rope: Annotated[
        float | None,
        typer.Option(help="Add the Bayesian signed-rank test over the data sets; so many points do not matter."),
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table in Markdown.")] = False,
) -> None:
    """The table of all runs: mean and deviation over the seeds, and the paired difference to softmax.

    With several sources, --json merges them into one file. Runs of different commits are never averaged.
    """
    if against and not figure:
        raise ValueError("--against: expected --figure FILE beside it; got none")
    if rope is not None:
        checks.number("--rope", rope, above=0)
    accuracy_table, plots = torch_part("analysis.accuracy_table"), plots_for(figure)
    if json:
        check_writable(json)
        if json.name == "result.json":
            raise ValueError(f"--json: expected another name than result.json, that of the result of a run; got {json}")
    summaries = accuracy_table.load(*sources or [Path("runs")])
    rows = accuracy_table.table(summaries) + torch_part("analysis.over_sets").averages(summaries)
    by_field = torch_part("analysis.by_field").accuracies_by_field(summaries, against) if against else None
    if markdown:
        print(tables.markdown(rows))
    else:
        Console().print(tables.runs(rows))
    if rope:
        Console().print(tables.signed_rank(torch_part("analysis.bayesian_test").signed_rank(summaries, rope), rope))
    if json:
        write_json(json, {"runs": summaries})
    write_figure(figure, lambda: plots.plot_by_field(by_field, against) if by_field else plots.plot_accuracies(rows))


@command(
    app,
    "primal-dual reproduce --list",
    "primal-dual reproduce --only JapaneseVowels --minutes 30",
    "primal-dual reproduce --data DIR --merge others.json",
)
def reproduce(
    list_only: Annotated[bool, typer.Option("--list", help="Show the plan, what is done of it, and its cost.")] = False,
    only: Annotated[str, typer.Option(help="Leave out the experiments whose title or claim lacks this text.")] = "",
    minutes: Annotated[float, typer.Option(help="Stop after so many minutes; what is begun goes on next time.")] = inf,
    data: Annotated[list[Path] | None, typer.Option(help="A folder of data sets; may be given several times.")] = None,
    folder: Annotated[Path, typer.Option(help="Where the runs go, and go on from.")] = Path("runs"),
    merge: Annotated[list[Path] | None, typer.Option(help="A file of results, which count as done.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; by default, a GPU if there is one.")] = None,
) -> None:
    """Run the experiments that RESULTS.md rests on, in order of value for time, and print their tables."""
    if minutes != inf:
        checks.number("--minutes", minutes, least=0)
    until = time.time() + 60 * minutes
    choose_device(device)
    reproduction, accuracy_table = torch_part("training.reproduction"), torch_part("analysis.accuracy_table")
    results_below = torch_part("training.runs.run_folder").results_below
    plan = [each for each in torch_part("training.experiments").PLAN if only in f"{each.title} {each.claim}"]
    if not plan:
        raise ValueError(f"--only: expected a part of a title or claim that --list shows; got {only!r}")

    def found() -> list[dict]:
        sources = [*(merge or ()), *results_below(folder)]
        return accuracy_table.load(*sources) if sources else []

    none_failed = True
    if not list_only:
        with ProgressBar() as progress:
            none_failed = reproduction.reproduce(plan, found(), data or [], folder, progress, say, until)
    summaries = found()
    Console().print(tables.experiments(reproduction.statuses(plan, summaries, data or [])))
    if summaries and not list_only:
        Console().print(tables.runs(accuracy_table.table(summaries)))
    if not none_failed:
        raise typer.Exit(1)


@command(
    app,
    "primal-dual redundancy runs/JapaneseVowels --figure heads.png",
    "primal-dual redundancy runs --data DIR --json heads.json",
)
def redundancy(
    runs: Annotated[list[Path], typer.Argument(help=f"{RUN} Or a folder of several.")],
    data_folder: Annotated[Path | None, typer.Option("--data", help="Where the folders of data sets are.")] = None,
    figure: Figure = None,
    json: Json = None,
) -> None:
    """How far apart the heads of trained models are, on what they were tested on: the nearer, the more redundant.

    The distances are means over the pairs of heads and the layers: of the outputs, of the outputs at unit length, and
    of the attention maps. The figure shows those of the outputs, for the first run of each attention by the first
    run's recipe.
    """
    analysis, table = torch_part("analysis.head_redundancy"), torch_part("analysis.redundancy_table")
    plots = plots_for(figure)
    if json:
        check_writable(json)
    folders = [each for folder in runs for each in analysis.runs_below(folder)]
    results, means = [], []
    pictures: dict[str, Any] = {}  # the first of each attention, by the first recipe
    with ProgressBar() as progress:
        for folder in progress.track(folders):
            each, run = analysis.of_run(folder, data_folder, say=say)
            results.append(run.result)
            means.append(each.means())
            if run.result["recipe"] == results[0]["recipe"]:
                pictures.setdefault(run.attention, each)
    rows = table.table(results, means)
    Console().print(tables.redundancy(rows))
    if json:
        write_json(json, {"runs": table.measured(results, means), "rows": rows})
    drawn = {name: pictures[name] for name in sorted(pictures, key=(*catalog, *pictures).index)}
    write_figure(figure, lambda: plots.plot_head_distances(drawn))


@command(app, "primal-dual efficiency 512 1024 --figure efficiency.png")
def efficiency(
    lengths: Annotated[list[int] | None, typer.Argument(help="Tokens: 256 512 1024 2048 4096 8192.")] = None,
    figure: Figure = None,
    json: Json = None,
) -> None:
    """Operations, memory and time of softmax, bn, sh and bn+sh in a layer, training and inference, against length."""
    measure, plots = torch_part("analysis.efficiency"), plots_for(figure)
    for N in lengths or ():
        checks.integer("lengths", N, 2)
    if json:
        check_writable(json)
    with ProgressBar() as progress:
        device = torch_part("training.runs.machine").default_device()
        result = measure.run(device, lengths or measure.LENGTHS, track=progress.track)
    Console().print(tables.efficiency(result["rows"]))
    if json:
        write_json(json, result)
    write_figure(figure, lambda: plots.plot_efficiency(result))


@command(
    app,
    "primal-dual evaluate runs/JapaneseVowels/bn/0",
    "primal-dual evaluate pretrained:Handwriting/bn --data DIR",
)
def evaluate(
    run: Annotated[Path, typer.Argument(help=RUN)],
    data: Annotated[Path | None, typer.Option(help="The folder of data sets that it was trained with.")] = None,
) -> None:
    """Test a finished run once more, from its weights."""
    share, cases = torch_part("training.trained.finished_run").evaluate(run, data, say)
    Console().print(f"test accuracy {100 * share:.1f} on {cases} cases")


@command(
    app,
    "primal-dual predict pretrained:JapaneseVowels/softmax new.ts --json classes.json",
    "primal-dual predict runs/Mine/bn/0 new.csv",
)
def predict(
    run: Annotated[Path, typer.Argument(help=RUN)],
    file: Annotated[
        Path, typer.Argument(help="New cases: .ts (labels are ignored), .npz with X, .csv without labels, or images.")
    ],
    json: Json = None,
) -> None:
    """Classify new cases by a finished run. The file of --json has all of them, with all probabilities."""
    if json:
        check_writable(json)
    probabilities, classes, names = torch_part("training.trained.finished_run").predict(run, file)
    rows, names = probabilities.tolist(), list(map(str, names))
    Console().print(tables.predictions(rows, classes, names))
    if json:
        write_json(json, {"classes": classes, "cases": names, "probabilities": rows})


@command(app, "primal-dual export pretrained:JapaneseVowels/softmax vowels.onnx")
def export(
    run: Annotated[Path, typer.Argument(help=RUN)],
    file: Annotated[Path, typer.Argument(help="Where the model goes, a .onnx file.")],
) -> None:
    """Write a finished run as an ONNX file, and check by onnxruntime that it gives the same. About ten seconds.

    Its inputs are those of the data as measured, series in float64, any number of examples; its output is the
    probability of each class.
    """
    difference = torch_part("training.trained.exporting").export(run, file)
    Console(soft_wrap=True).print(f"{shown(file)}: probabilities differ from torch's by at most {difference:.1e}")


def _fields(words: list[str]) -> dict[str, list[str]]:
    """--name value ... --name value ... -> a dictionary of lists, which is empty for a --name without a value.

    The values of a name that is repeated are joined.
    """
    fields: dict[str, list[str]] = {}
    for word in words:
        if word.startswith("--"):
            name, _, value = word[2:].partition("=")
            values = fields.setdefault(name.replace("-", "_"), [])
            values += [value] if value else []
        elif not fields:
            raise ValueError(f"{word}: expected --attention NAME ... or a --field of the recipe before it")
        else:
            values.append(word)
    return fields
