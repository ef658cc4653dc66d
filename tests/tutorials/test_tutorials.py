"""Every tutorial runs and keeps the conventions; the machinery around them, on a small tutorial made here.

Tutorial 0, the idea in one file, has conventions of its own: see test_the_idea.py.
"""

import io
import json
import re
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import pytest
from rich.console import Console
from typer.testing import CliRunner

from primal_dual.cli.commands import app
from primal_dual.cli.equations import ACCENTS, SIGNS, TEXTS, WORDS, unicode_math
from primal_dual.cli.tutorial_scripts import find, list_tutorials, notebook, with_install, write_notebooks
from primal_dual.cli.tutorial_terminal import claims, run

FOLDER = Path(__file__).parents[2] / "tutorials"
PATHS = sorted(FOLDER.glob("[0-9][0-9]_*.py"))
IDEA, *STEPS = PATHS
EVERY = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
EVERY_STEP = pytest.mark.parametrize("path", STEPS, ids=lambda path: path.stem)
MOST_LINES = 15
MOST_BYTES = 500_000
KNOWN = {*SIGNS, *WORDS, *ACCENTS, *TEXTS, "frac", "tfrac", "sqrt", "binom", "underbrace"}

SMALL = r"""# %% [markdown]
# # 1. A small one
#
# About $\alpha*2*\beta$ and `code`.
#
# $$ \sum_{j=1}^n
#    x_j * y_j * z_j $$

# %%
import matplotlib.pyplot as plt

half = 21
print("twice:", 2 * half)
assert half % 2, "it is odd"

# %% [markdown]
# ## The figure

# %%
plt.style.use("tableau-colorblind10")
plt.figure()
plt.plot([1, 2])
plt.show()

# %% [markdown]
# Next: [2. Another & one](02_another.ipynb).
"""


@pytest.fixture
def small(tmp_path):
    folder = tmp_path / "scripts"
    folder.mkdir()
    (folder / "01_small.py").write_text(SMALL)
    (folder / "02_another.py").write_text("# %% [markdown]\n# # 2. Another & one\n#\n# Short.\n\n# %%\nassert True\n")
    return list_tutorials(folder)


def console():
    return Console(file=io.StringIO(), width=120)


@EVERY
def test_tutorial_runs(path, tmp_path):
    tutorial = find(path.stem, FOLDER)
    shown, colours = plt.show, plt.rcParams["axes.prop_cycle"]
    figures = run(tutorial, tmp_path, console=console())
    assert bool(figures) == (path != IDEA) and all(figure.read_bytes().startswith(b"\x89PNG") for figure in figures)
    assert plt.get_fignums() == [] and plt.show is shown and plt.rcParams["axes.prop_cycle"] == colours


@EVERY_STEP
def test_tutorial_keeps_the_conventions(path):
    cells = notebook(find(path.stem, FOLDER)).cells
    title, *_, last = (cell.source for cell in cells if cell.cell_type == "markdown")
    assert re.match(rf"# {int(path.stem[:2])}\. .+\n\n.+", title) and re.search(r"^- ", title, re.MULTILINE)
    assert last.startswith("Next: ") or path == PATHS[-1]
    for cell in cells:
        if cell.cell_type == "code":
            lines = [line for line in cell.source.splitlines() if line.strip() and not line.strip().startswith("#")]
            assert len(lines) <= MOST_LINES, cell.source
            assert "plt.show()" not in cell.source or cell.source.endswith("plt.show()")
    steps = "\n".join(cell.source for cell in cells).split("## Exercises")[0].count("\n## ")
    asserting = [
        cell.source for cell in cells if cell.cell_type == "code" and re.search(r"^\s*assert ", cell.source, re.M)
    ]
    assert len(asserting) >= max(5, steps - 1)
    assert 'plt.style.use("tableau-colorblind10")' in path.read_text()


@EVERY_STEP
def test_exercises_have_solutions_that_are_checked(path):
    text = path.read_text()
    exercises = re.split(r"^# ### Exercise (\d+): .+$", text, flags=re.MULTILINE)[1:]
    assert exercises[::2] == ["1", "2", "3"]
    for solution in exercises[1::2]:
        assert re.search(r"# %% \[markdown\]\n# \*\*Solution\.\*\*(.|\n)+# %%\n(.|\n)*assert ", solution)


def without_outputs(book):
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.update(outputs=[], execution_count=None)
    return book


@EVERY
def test_notebook_on_disk_is_that_of_the_script_with_its_outputs(path):
    """Made by python -m primal_dual.cli.tutorial_scripts NUMBER."""
    twin = FOLDER / "notebooks" / f"{path.stem}.ipynb"
    book = nbformat.read(twin, as_version=4)
    assert twin.stat().st_size <= MOST_BYTES
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    kinds = [{kind for output in cell.outputs for kind in output.get("data", {})} for cell in code]
    assert ["image/png" in each for each in kinds] == ["plt.show()" in cell.source for cell in code]
    assert {output.get("name", "stdout") for cell in code for output in cell.outputs} <= {"stdout"}
    assert without_outputs(book) == with_install(notebook(find(path.stem, FOLDER)))


def test_every_script_is_listed_and_every_notebook_has_a_script():
    listed = list_tutorials()
    assert [tutorial.path.name for tutorial in listed] == [path.name for path in PATHS]
    assert [tutorial.number for tutorial in listed] == list(range(11))
    assert {book.stem for book in (FOLDER / "notebooks").glob("*")} == {path.stem for path in PATHS}
    assert listed[0].title == "The idea in one file" and find(0) == find("the_idea_in_one_file") == find(IDEA.stem)
    assert find("bn").name == "attention_bn" and find("GPU").number == 8  # a word of one name
    assert listed[1].title == "SVR in pictures" and find(1) == find("svr_in_pictures") == find(STEPS[0].stem)


def test_run_prints_text_code_and_figures(small, tmp_path, capsys, monkeypatch):
    plt.figure()  # of before, which is not shown
    enters, terminal = [], console()
    monkeypatch.setattr(terminal, "input", enters.append)
    figures = run(small[0], tmp_path / "figures", pause=True, console=terminal)
    text = terminal.file.getvalue()
    for part in ("1. A small one", "α*2*β", "∑ⱼ₌₁ⁿ xⱼ * yⱼ * zⱼ", "cell 1 of 2", "half = 21", "holds: it is odd"):
        assert part in text
    assert capsys.readouterr().out == "twice: 42\n"
    assert len(enters) == 2
    assert figures == [tmp_path / "figures" / "01_small_1.png"] and f"figure: {figures[0]}" in text


def test_run_goes_on_where_no_one_presses_enter(small, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert run(small[0], tmp_path, pause=True, console=console())


def test_a_failing_cell_is_quoted_from_its_line_of_the_script(small, tmp_path):
    path = small[0].path
    path.write_text(SMALL + "\n# %%\nassert half == 42\n")
    with pytest.raises(AssertionError) as failure:
        run(small[0], tmp_path, console=console())
    line = failure.traceback[-1].lineno + 1
    assert path.read_text().splitlines()[line - 1] == "assert half == 42"


def test_claims_of_functions_are_not_told_since_they_may_not_have_been_called():
    assert list(claims("def f(x):\n    assert x, 'no'\nwith open(f) as g:\n    assert a_is_b and c > 0")) == [
        "a is b and c > 0"
    ]


@EVERY
def test_equations_are_readable_in_a_terminal(path):
    for cell in notebook(find(path.stem, FOLDER)).cells:
        for block, inline in re.findall(
            r"\$\$(.+?)\$\$|\$([^$]+)\$", cell.source * (cell.cell_type == "markdown"), re.S
        ):
            assert set(re.findall(r"\\([A-Za-z]+)", block or inline)) <= KNOWN
            text = unicode_math(block or inline)
            assert not re.search(r"[\\{}\ue000]|  [^ ]* ?$", text) and text.count("(") == text.count(")"), text


def test_notebooks_are_executed(small, tmp_path):
    steps = []
    path, _ = write_notebooks(tmp_path / "books", small, progress=lambda *step: steps.append(step))
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    install, _, code, _, figure, _ = book.cells
    assert 'find_spec("primal_dual")' in install.source and "primal-dual-attention[tutorials] @ git" in install.source
    assert code.outputs[0].text == "twice: 42\n" and "image/png" in figure.outputs[0].data
    assert steps == [(small[0], k, 3) for k in (1, 2, 3)] + [(small[1], k, 2) for k in (1, 2)]


def test_a_kernel_that_is_killed_is_one_line_and_writes_nothing(small, tmp_path):
    small[0].path.write_text(SMALL + "\n# %%\nimport os\n\nos.kill(os.getpid(), 9)\n")
    with pytest.raises(ValueError, match=r"01_small.py: expected a kernel that runs to the end; got one that was"):
        write_notebooks(tmp_path / "books", small[:1])
    assert not list((tmp_path / "books").iterdir())


def test_notebook_is_the_same_bytes_each_time(small, tmp_path):
    first, second = (write_notebooks(tmp_path / name, small[:1])[0].read_text() for name in ("first", "second"))
    assert first == second
    book = json.loads(first)
    assert all(cell["metadata"] == {} for cell in book["cells"]) and list(book["metadata"]) == ["kernelspec"]


def test_bad_numbers_names_and_folders(small, tmp_path):
    with pytest.raises(ValueError, match=r"expected a number or a name, one of 1 small, 2 another; got '9'"):
        find(9, small[0].path.parent)
    for words in ("nothing", "svr"):  # no name has the one, and two have the other
        with pytest.raises(ValueError, match="expected a number or a name"):
            find(words)
    with pytest.raises(ValueError, match=r"expected tutorials NN_name.py; got none"):
        list_tutorials(tmp_path)
    (tmp_path / "01_untitled.py").write_text("# %%\n")
    with pytest.raises(ValueError, match="expected a heading"):
        list_tutorials(tmp_path)
    file = tmp_path / "file"
    file.write_text("")
    for write in (lambda: write_notebooks(file, small), lambda: run(small[0], file)):
        with pytest.raises(ValueError, match="expected a folder that can be written"):
            write()


@pytest.mark.parametrize("name", ["aeon", "jupytext", "matplotlib", "nbclient", "PIL"])
def test_missing_extra(small, tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    for write in (
        lambda: write_notebooks(tmp_path, small),
        lambda: run(small[0], tmp_path),
        lambda: notebook(small[0]),
    ):
        with pytest.raises(ValueError, match=rf'{name}; pip install "\.\[tutorials\]" in the checkout'):
            write()


def test_a_module_that_a_cell_lacks_is_named(small, tmp_path):
    small[1].path.write_text("# %% [markdown]\n# # 2. Another\n\n# %%\nimport no_such_module\n")
    for write in (lambda: run(small[1], tmp_path, console=console()), lambda: write_notebooks(tmp_path, small[1:])):
        with pytest.raises(ValueError, match=r"No module named 'no_such_module'; pip install"):
            write()


def test_command_line(small, tmp_path, monkeypatch):
    monkeypatch.setattr("primal_dual.cli.tutorial_scripts.list_tutorials", lambda folder=None: small)

    def call(*words):
        return CliRunner().invoke(app, ["tutorials", *map(str, words)])

    listed = call()
    assert listed.exit_code == 0 and "A small one" in listed.output and "another" in listed.output
    ran = call(1, "--all", "--figures", tmp_path / "figures")
    assert ran.exit_code == 0 and "twice: 42" in ran.output and list((tmp_path / "figures").glob("*.png")), ran.output
    written = call("another", "--notebooks", tmp_path / "books")
    assert written.exit_code == 0 and (tmp_path / "books" / "02_another.ipynb").exists(), written.output
    (tmp_path / "file").write_text("")
    for words, message in (
        ((9,), "one of 1 small, 2 another; got '9'"),
        ((1, "--all", "--figures", tmp_path / "file" / "x"), "expected a folder that can be written"),
    ):
        failed = call(*words)
        assert failed.exit_code == 2 and message in " ".join(failed.output.split()), failed.output
