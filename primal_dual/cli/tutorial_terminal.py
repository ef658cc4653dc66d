"""A tutorial in the terminal, cell by cell: its text, its code, what the code prints, and each claim that held."""

import ast
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markdown import Markdown
from rich.syntax import Syntax
from rich.text import Text

from primal_dual.cli.equations import unicode_math
from primal_dual.cli.tutorial_scripts import Tutorial, missing, notebook
from primal_dual.io.files import ensure_folder, write_file


def run(
    tutorial: Tutorial,
    figures: str | Path = "primal-dual-tutorials",
    pause: bool = False,
    console: Console | None = None,
) -> list[Path]:
    """Run a tutorial in the terminal, cell by cell: its text, its code, what the code prints, what held.

    Figures are saved in the folder `figures`, and their paths printed. pause: wait for Enter before each code cell.
    ValueError for a folder that cannot be written, and for a missing extra.
    """
    book, folder, console = notebook(tutorial), ensure_folder(figures), console or Console()
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.close("all")  # figures of before are not the tutorial's
    saved: list[Path] = []

    def show() -> None:
        for number in plt.get_fignums():
            saved.append(folder / f"{tutorial.path.stem}_{len(saved) + 1}.png")
            write_file(saved[-1], partial(plt.figure(number).savefig, dpi=150))
            console.print(f"figure: {saved[-1]}", style="bold green", highlight=False, soft_wrap=True)
        plt.close("all")

    pyplot: Any = plt
    shown, pyplot.show = plt.show, show
    try:
        with plt.rc_context():
            _run_cells(tutorial, book, console, pause)
    except ModuleNotFoundError as error:
        raise missing(str(error)) from error
    finally:
        pyplot.show = shown
        plt.close("all")
    return saved


def _run_cells(tutorial: Tutorial, book: Any, console: Console, pause: bool) -> None:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    text, position, number = tutorial.path.read_text(encoding="utf-8"), 0, 0
    count = sum(cell.cell_type == "code" for cell in book.cells)
    for cell in book.cells:
        console.print()
        if cell.cell_type == "markdown":
            console.print(Markdown(_readable(cell.source)))
            continue
        number += 1
        console.print(f"cell {number} of {count}", style="dim", highlight=False)
        console.print(Syntax(cell.source, "python", word_wrap=True, background_color="default"))
        if pause:
            try:
                console.input("[dim]Enter runs it.[/dim] ")
            except EOFError:  # no one is there to press it
                pause = False
        position = text.index(cell.source, position)
        lines_above = text.count("\n", 0, position)  # so that a traceback quotes the script
        exec(compile("\n" * lines_above + cell.source, str(tutorial.path), "exec"), namespace)
        for claim in dict.fromkeys(claims(cell.source)):
            console.print(Text(f"holds: {claim}", style="green"))


def claims(source: str) -> Iterator[str]:
    """What the assertions of a cell say: their messages, or else their conditions.

    Examples
    --------
    >>> list(claims("for x in 1, 2:\\n    assert x > 0, 'x is positive'\\nvalues_meet = True\\nassert values_meet"))
    ['x is positive', 'values meet']
    """
    waiting: list[ast.AST] = [ast.parse(source)]
    while waiting:
        node = waiting.pop(0)
        if isinstance(node, ast.Assert):
            told = node.msg.value if isinstance(node.msg, ast.Constant) else None
            yield told if isinstance(told, str) else _condition(node.test)
        elif not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda):  # a function may not have been called
            waiting[:0] = ast.iter_child_nodes(node)


def _condition(test: ast.expr) -> str:
    """A condition, whose names are words."""
    return re.sub(r"\b[a-z]+(_[a-zA-Z]+){2,}\b|^\w+$", lambda name: name[0].replace("_", " "), ast.unparse(test))


def _readable(markdown: str) -> str:
    """Equations as Unicode, set as code, which Markdown leaves as it is: $$...$$ a block, $...$ inline."""
    block = re.compile(r"\$\$(.+?)\$\$", re.DOTALL)
    markdown = block.sub(lambda math: f"\n```text\n{unicode_math(math[1])}\n```\n", markdown)
    return re.sub(r"\$([^$]+)\$", lambda math: f"`{unicode_math(math[1])}`", markdown)
