"""What the commands share: how they end on bad input, progress, figures, and the parts that need torch."""

import functools
import importlib
import inspect
import os
import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from threading import Event, Thread
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from primal_dual.io import files
from primal_dual.io.text import printable

SILENCE = 30  # seconds at most
Figure = Annotated[Path | None, typer.Option("--figure", help="Draw it to this file: .png, .pdf or .svg.")]
Json = Annotated[Path | None, typer.Option("--json", help="Write the numbers to this file, too.")]


def command(app: typer.Typer, *examples: str, **options: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a function a command: bad input, and files that cannot be read or written, end in one line and status 2.

    The help has the examples below the options. Each of its paragraphs is one line, which typer breaks to the width of
    the terminal.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def run(*args: Any, **options: Any) -> None:
            try:
                function(*args, **options)
            except (ValueError, OSError) as error:
                raise typer.Exit(fail(error)) from error

        run.__doc__ = re.sub(r"(?<!\n)\n(?!\n)", " ", inspect.getdoc(function) or "")
        return app.command(epilog="\n\n".join(("For example:", *examples)), **options)(run)

    return decorate


def torch_part(name: str) -> Any:
    """A module of torch_impl. ValueError where torch is missing."""
    try:
        return importlib.import_module(f"torch_impl.{name}")
    except ImportError as error:
        raise ValueError(f'this needs torch: pip install ".[train]" in the checkout ({error})') from error


def choose_device(device: str | None) -> None:
    """Compute on a device, before torch has looked for one. ValueError for one that is not there."""
    if device not in (None, "cpu", "cuda"):
        raise ValueError(f"--device: expected cpu or cuda; got {device!r}")
    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if device == "cuda" and torch_part("training.runs.machine").default_device() == "cpu":
        raise ValueError("--device: expected cpu, since torch sees no GPU here; got cuda")


def plots_for(figure: Path | None) -> Any:
    """The module that draws, before long work; None without a figure."""
    if figure is None:
        return None
    check_figure(figure)
    return torch_part("analysis.plots")


def check_figure(figure: Path) -> None:
    """ValueError, before long work, for a figure that could not be written after it."""
    if find_spec("matplotlib") is None:
        raise ValueError('the figure needs matplotlib: pip install ".[plot]" in the checkout')
    if figure.suffix not in (".png", ".pdf", ".svg"):
        raise ValueError(f"{figure}: expected a name that ends in .png, .pdf or .svg")
    files.check_writable(figure)


def write_figure(figure: Path | None, make: Callable[[], Any]) -> None:
    """Write the matplotlib figure that `make` draws, and say where it is."""
    if figure:
        files.write_file(figure, make().savefig)
        Console(soft_wrap=True).print(f"Figure: {shown(figure)}")


class ProgressBar(Progress):
    """A progress bar on standard error; where that is no terminal, a line every 30 seconds."""

    def __init__(self) -> None:
        columns = TextColumn("{task.description:12}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        console = Console(stderr=True, highlight=False)
        is_bar = console.is_terminal
        super().__init__(*columns, console=console, transient=True, disable=not is_bar, auto_refresh=is_bar)
        self._stopped = Event()

    def start(self) -> None:
        """Show the progress."""
        super().start()
        if self.disable:
            Thread(target=self._print_lines, daemon=True).start()

    def stop(self) -> None:
        """Show it no longer."""
        self._stopped.set()
        if not self.disable:  # rich before 15 would print an empty line
            super().stop()

    def _print_lines(self) -> None:
        while not self._stopped.wait(SILENCE):
            for task in self.tasks:
                if task.total is not None and not task.finished:
                    self.console.print(f"{task.description}: {task.completed:g} of {task.total:g}", soft_wrap=True)


def shown(text: object) -> str:
    """Text from outside as rich prints it: nothing in it is taken for markup or reaches the terminal as a control."""
    return escape(printable(text))


def say(message: object) -> None:
    """A line on standard error."""
    Console(stderr=True, soft_wrap=True, highlight=False).print(shown(message))


def fail(error: object) -> int:
    """Print an error in one line, and return its exit status."""
    message = shown(" ".join(str(error).split()))
    Console(stderr=True, soft_wrap=True, highlight=False).print(f"[bold red]error:[/] {message}")
    return 2
