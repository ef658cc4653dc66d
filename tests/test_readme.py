"""The README's Python runs, from top to bottom, and what it says about the catalog and the packaging is so."""

import json
import re
import tomllib
from pathlib import Path

import pytest

from primal_dual import catalog
from primal_dual.cli import tables
from torch_impl.analysis import accuracy_table
from torch_impl.training.benchmarks import RECIPES

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_python_blocks_run(capsys):
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 9
    namespace = {"__name__": "readme"}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), namespace)
    assert capsys.readouterr().out


def test_every_name_of_the_catalog_is_in_the_table():
    table = README.split("| choice in the primal")[1].split("And the converse")[0]
    assert [name for name in catalog if f"`{name}`" not in table] == []


def test_benchmark_table_is_that_of_the_result_file():
    result = json.loads((ROOT / "torch_impl" / "results" / "bench_cpu.json").read_text())
    for row in result["rows"]:
        assert f"| {row['what']} | {row['N']:,} | {row['ratio']:.3f} |" in README


def test_results_table_is_that_of_the_result_file_by_the_recipes_as_they_are():
    """And what the docstring of a recipe claims is what was measured."""
    runs = accuracy_table.load(ROOT / "torch_impl" / "results" / "runs.json")
    rows = accuracy_table.table(runs)
    assert tables.markdown(rows) in README and all(len(run["machine"]["commit"]) == 40 for run in runs)
    whole = {row["recipe"] for row in rows if row["seeds"] >= 5} & set(RECIPES)  # no other title: nothing is changed
    assert {"JapaneseVowels", "Handwriting", "UWaveGestureLibrary", "SpokenArabicDigits"} <= whole
    for row in rows:
        if row["recipe"] in RECIPES:
            claim = f"{row['attention']} {row['mean']:.1f}" + (f" ± {row['deviation']:.1f}" if row["deviation"] else "")
            assert claim in RECIPES[row["recipe"]].__doc__.replace("\n    ", " ")
    for run in runs:
        if accuracy_table.title(run) in RECIPES:
            machine = run["machine"]["name"].replace("(R)", "").removesuffix(" Processor")
            assert f"on one core of an {machine}." in RECIPES[run["data"]].__doc__


def test_links_and_picture_exist():
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).exists(), target


@pytest.mark.parametrize("extra", ["torch", "transformers", "data", "plot", "tutorials", "demo", "test", "piqp"])
def test_extras(extra):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert extra in project["optional-dependencies"] and project["name"] == "primal-dual-attention"
