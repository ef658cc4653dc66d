"""The Python of the README and of the site's pages runs, and what they say about the project is so."""

import ast
import inspect
import json
import re
import sys
import tomllib
from dataclasses import fields
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import typer

import primal_dual
import torch_impl
from primal_dual import catalog
from primal_dual.cli import tables
from primal_dual.cli.commands import app
from torch_impl.analysis import accuracy_table
from torch_impl.analysis.over_sets import averages
from torch_impl.training.recipes.benchmarks import RECIPES

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
RESULTS = (ROOT / "RESULTS.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
PAGES = {str(path.relative_to(ROOT)): path.read_text() for path in sorted((ROOT / "docs").rglob("*.md"))}


def python_blocks(text):
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


@pytest.mark.parametrize("number", range(3))
def test_each_block_of_the_readme_runs_alone(number, capsys):
    assert len(python_blocks(README)) == 3
    exec(compile(python_blocks(README)[number], "README.md", "exec"), {"__name__": "readme"})
    assert capsys.readouterr().out


@pytest.mark.parametrize("page", [page for page, text in PAGES.items() if python_blocks(text)])
def test_blocks_of_a_page_run_from_top_to_bottom(page, monkeypatch):
    monkeypatch.setattr(primal_dual.primal, "catalog", type(catalog)(catalog))  # names that a page adds are its own
    namespace = {"__name__": "page"}
    for block in python_blocks(PAGES[page]):
        exec(compile(block, page, "exec"), namespace)
    plt.close("all")


def test_how_to_pages_have_examples():
    examples = {page: len(python_blocks(text)) for page, text in PAGES.items()}
    least = {"your-arrays": 5, "your-kernel": 3, "models": 4, "gpu": 1, "train": 2, "attention-file": 2}
    assert [name for name, count in least.items() if examples[f"docs/how-to/{name}.md"] < count] == []


def commands_told_of():
    """(page, command, options) of each `primal-dual ...` in a page, in a code span or on an indented line."""
    for page, text in {"README.md": README, "RESULTS.md": RESULTS, **PAGES}.items():
        spans = re.findall(r"`primal-dual ([^`]+)`", text) + re.findall(r"^    primal-dual (.+)$", text, re.MULTILINE)
        for words in (re.sub(r"\s#.*", "", span).split() for span in spans):
            yield page, words[0], [word for word in words if word.startswith("--")]


def test_commands_and_options_that_pages_tell_of_exist():
    known = {name: command.params for name, command in typer.main.get_command(app).commands.items()}
    told = list(commands_told_of())
    assert len(told) > 20 and {"train", "results", "tutorials"} <= {command for _, command, _ in told}
    for page, command, options in told:
        if command == "--help":
            continue
        assert command in known, f"{page}: primal-dual {command}"
        have = {option for parameter in known[command] for option in parameter.opts} | {"--help"}
        if command == "train":  # which takes any field of a recipe, too
            have |= {"--attention", *(f"--{each.name}" for recipe in RECIPES.values() for each in fields(recipe))}
        assert set(options) <= have, f"{page}: primal-dual {command} {options}"


def test_fields_of_recipes_that_the_page_names_exist():
    told = re.search(r"is an option: `([^`]+)`", PAGES["docs/how-to/train.md"])[1]
    known = {each.name for recipe in RECIPES.values() for each in fields(recipe)}
    assert len(re.findall(r"--(\w+)", told)) == 10 and set(re.findall(r"--(\w+)", told)) <= known


@pytest.mark.parametrize("package", [primal_dual, torch_impl], ids=lambda package: package.__name__)
def test_reference_has_every_public_name(package):
    page = PAGES[f"docs/api/{package.__name__}.md"]
    names = [name for name in package.__all__ if not inspect.ismodule(getattr(package, name))]
    assert [name for name in names if f":: {package.__name__}.{name}\n" not in page] == []


def test_readme_is_short():
    assert len(README.split()) <= 1300 and README.count("![") <= 3


def test_every_name_of_the_catalog_is_in_the_table():
    table = PAGES["docs/idea.md"].split("| choice in the primal")[1].split("The converse")[0]
    assert [name for name in catalog if f"`{name}`" not in table] == []


def test_benchmark_table_is_that_of_the_result_file():
    result = json.loads((ROOT / "torch_impl" / "results" / "bench_cpu.json").read_text())
    for row in result["rows"]:
        assert f"| {row['what']} | {row['N']:,} | {row['ratio']:.3f} |" in RESULTS


def test_results_table_is_that_of_the_result_file_by_the_recipes_as_they_are():
    """The table alone says what was measured, and the page on which processors: no docstring repeats the file."""
    runs = accuracy_table.load(ROOT / "torch_impl" / "results" / "runs.json")
    rows = accuracy_table.table(runs)
    assert tables.markdown(rows + averages(runs)) in RESULTS and all(
        len(run["machine"]["commit"]) == 40 for run in runs
    )
    whole = {row["recipe"] for row in rows if row["seeds"] >= 5} & set(RECIPES)  # no other title: nothing is changed
    assert {"JapaneseVowels", "Handwriting", "UWaveGestureLibrary", "SpokenArabicDigits"} <= whole
    processors = {run["machine"]["name"].replace("(R)", "").removesuffix(" Processor") for run in runs}
    assert [name for name in processors if name not in RESULTS] == []
    told = [f"{row['mean']:.1f}" for row in rows if row["recipe"] in RECIPES] + ["accuracy", *processors]
    assert [(name, word) for name, kind in RECIPES.items() for word in told if word in kind.__doc__] == []


def test_links_and_picture_exist():
    targets = re.findall(r"\]\(([^)]+)\)", README + RESULTS)
    assert targets[0] == "tutorials/notebooks/00_the_idea_in_one_file.ipynb"
    for target in targets:
        assert target.startswith("https://") or (ROOT / target).exists(), target


def folders(package):
    return {str(path.parent.relative_to(ROOT)) for path in (ROOT / package).rglob("*.py")}


def test_the_tree_has_every_folder():
    tree, parents, shown = CONTRIBUTING.split("## Layout")[1].split("## Where")[0], [], set()
    for indent, name in re.findall(r"^    ( *)([\w.]+)/ ", tree, re.MULTILINE):
        parents = [*parents[: len(indent) // 2], name]
        shown.add("/".join(parents))
    assert shown == {
        *folders("primal_dual"),
        *folders("torch_impl"),
        "torch_impl/results",
        "torch_impl/weights",
        "tutorials",
        "docs",
        "tests",
    }


def test_the_map_for_contributors_names_files_that_exist_and_every_folder():
    named = set()
    for where, what in re.findall(
        r"^\| (`[^|]+) \| ([^|]+) \|$", CONTRIBUTING.split("## Add a kernel")[0], re.MULTILINE
    ):
        paths = re.findall(r"`([\w./]+)`", where)
        folder = paths[0] if paths[0].endswith("/") else str(Path(paths[0]).parent)
        paths += re.findall(r"`(\w+\.py)`", what)
        named |= {path if "/" in path else f"{folder}/{path}" for path in paths}
    assert [path for path in named if not (ROOT / path).exists()] == []
    assert {*folders("primal_dual"), *folders("torch_impl")} <= {str(Path(path)) for path in named} | {
        str(Path(path).parent) for path in named
    }


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NOT_IN_AN_EXTRA = {
    "timm"
}  # a stranger's package whose models can be given our attention; it is imported if it is there


def distributions(requirements):
    """The names of the distributions that requirements ask for, those of our own extras included."""
    for requirement in requirements:
        name, extras = re.match(r"([\w.-]+)(?:\[([\w,-]+)\])?", requirement).groups()
        yield name.lower().replace("_", "-")
        if name == PROJECT["name"]:
            for extra in extras.split(","):
                yield from distributions(PROJECT["optional-dependencies"][extra])


def imported(folder):
    """The top-level modules that the files of a folder import, wherever in a file: (module, path)."""
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from ((each.name.split(".")[0], path) for each in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield node.module.split(".")[0], path


def normal(names):
    return {name.lower().replace("_", "-") for name in names}


@pytest.mark.parametrize("folder", ["primal_dual", "torch_impl", "tests"])
def test_what_is_imported_is_a_dependency_or_in_an_extra(folder):
    """Or required by one of these without an extra of its own, as scipy is by scikit-learn."""
    asked_for = {*distributions(PROJECT["dependencies"]), *distributions(PROJECT["optional-dependencies"]["test"])}
    needed = [each for name in asked_for - {PROJECT["name"]} for each in requires(name) or () if "extra ==" not in each]
    available = asked_for | normal(re.match(r"[\w.-]+", each)[0] for each in needed)
    own = {"primal_dual", "torch_impl", "tests"} | {path.stem for path in (ROOT / "docs" / "extensions").glob("*.py")}
    own |= NOT_IN_AN_EXTRA | set(sys.stdlib_module_names)
    modules = {module: path for module, path in imported(folder) if module not in own}
    provided_by = packages_distributions()
    assert {"numpy", "autograd", "jupytext"} <= modules.keys() or folder != "primal_dual"
    for module, path in modules.items():
        providers = normal(provided_by[module])
        assert providers & available, f"{path} imports {module} of {providers}: in no dependency, nor in the extra test"


def test_every_extra_that_is_told_of_exists():
    files = [
        ROOT / "README.md",
        *(ROOT / "docs").rglob("*.md"),
        *(path for folder in ("primal_dual", "torch_impl") for path in (ROOT / folder).rglob("*.py")),
    ]
    told = {extra for path in files for extra in re.findall(r'pip install (?:-e )?"\.\[(\w+)\]', path.read_text())}
    assert {"data", "docs", "plot", "tutorials", "piqp"} <= told <= set(PROJECT["optional-dependencies"])
