"""What the site shows but docs/ does not keep: the notebooks, the help of every command, MathJax."""

import json
import re
import shutil
from importlib.util import find_spec
from pathlib import Path

import typer
from sphinx.application import Sphinx
from typer.cli import get_docs_for_click

from primal_dual.cli.commands import app as command_line

DOCS = Path(__file__).parents[1]
NOTEBOOKS = DOCS.parent / "tutorials" / "notebooks"
MATHJAX = "tex-chtml.js", "output/chtml/fonts"  # of the 24 MB of MathJax, what the site needs


def write_if_new(path: Path, text: str) -> None:
    """Write a file, unless it has that text already: what did not change is not built again."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def commands() -> str:
    """The help of all commands as Markdown, a section each."""
    command = typer.main.get_command(command_line)
    context = typer.Context(command, info_name="primal-dual")
    _, *sections = get_docs_for_click(obj=command, ctx=context, name="primal-dual").split("\n## ")
    return "\n".join(f"## {_with_examples(section)}\n" for section in sections).replace("$ primal-dual", "primal-dual")


def _with_examples(section: str) -> str:
    """The help of a command, whose examples at its end are set as commands."""
    text, title, examples = section.rstrip().partition("For example:\n\n")
    return f"{text}{title}```console\n" + examples.replace("\n\n", "\n") + "\n```"


def page(notebook: Path) -> str:
    """A notebook as the site shows it: without its first cell, and with cells that only draw folded.

    The description of a figure, for those who do not see it, is the heading above it.
    """
    book = json.loads(notebook.read_text(encoding="utf-8"))
    book["cells"] = [cell for cell in book["cells"] if 'find_spec("primal_dual")' not in "".join(cell["source"])]
    heading = ""
    for cell in book["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            heading = (re.findall(r"^#+ (.+)$", source, re.MULTILINE) or [heading])[-1]
        elif "plt.show()" in source:
            cell["metadata"]["mystnb"] = {"image": {"alt": heading}}
            if source.endswith("plt.show()") and "assert " not in source:
                cell["metadata"]["tags"] = ["hide-input"]
    return json.dumps(book)


def write_pages(app: Sphinx) -> None:
    for notebook in sorted(NOTEBOOKS.glob("*.ipynb")):
        write_if_new(DOCS / "tutorials" / notebook.name, page(notebook))
    write_if_new(DOCS / "how-to" / "commands.txt", commands())


def copy_mathjax(app: Sphinx, error: Exception | None) -> None:
    source = Path(find_spec("sphinx-mathjax-offline").origin).parent / "static" / "mathjax"
    target = Path(app.outdir) / "_static" / "mathjax"
    for part in MATHJAX:
        if not error and not (target / part).exists():
            (target / part).parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if (source / part).is_dir() else shutil.copy)(source / part, target / part)


def setup(app: Sphinx) -> dict:
    app.connect("builder-inited", write_pages)
    app.connect("build-finished", copy_mathjax)
    return {"parallel_read_safe": True}
