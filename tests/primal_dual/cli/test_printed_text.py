"""Names and messages from outside are printed as text: no markup, no control characters, no way out of a folder."""

import json
import os
import subprocess
import sys

import pytest
from rich.console import Console
from typer.testing import CliRunner

from primal_dual.cli import tables
from primal_dual.cli.commands import app
from primal_dual.cli.console import fail, say, shown
from primal_dual.io.text import print_in_any_locale, printable
from torch_impl.training.trained.pretrained_models import WEIGHTS

NASTY = ["[x]", "[/foo]", "[red]a[/]", "a\x1b[31mb", "a\x07b", "a\x9b2Jb", "a\u202eb"]


@pytest.mark.parametrize("name", NASTY)
def test_names_are_printed_as_they_are(name, capsys):
    expected = printable(name)
    console = Console(width=200, record=True)
    console.print(tables.predictions([[0.4, 0.6]], ["one", name], [name]))
    distances = {key: dict(mean=1.0, difference=None) for key in ("outputs", "directions", "maps")}
    console.print(tables.redundancy([dict(recipe="one", attention=name, seeds=1, entropies=0.5) | distances]))
    row = dict(recipe=name, attention="bn", seeds=1, mean=1.0, deviation=None, difference=None)
    console.print(tables.runs([row | dict(best_test_epoch=1.0, seconds=1.0)]))
    console.print(shown(name))
    assert console.export_text().count(expected) == 5
    capsys.readouterr()
    fail(name)
    say(name)
    assert capsys.readouterr().err == f"error: {expected}\n{expected}\n"
    assert expected.isprintable()


def test_a_bar_in_a_name_is_no_column():
    row = dict(recipe="a|b", attention="bn", seeds=1, mean=1.0, deviation=None, difference=None)
    assert tables.markdown([row | dict(best_test_epoch=1.0, seconds=1.0)]).splitlines()[2].startswith("| a\\|b | bn |")


def test_a_difference_of_fewer_pairs_than_runs_says_so():
    row = dict(recipe="a", attention="bn", seeds=5, mean=1.0, deviation=2.0, difference=(0.5, -1.0, 2.0))
    row |= dict(best_test_epoch=1.0, seconds=1.0)
    for differences, expected in (([0.0, 1.0], "+0.5 (-1.0 to +2.0), 2 pairs"), ([0.0] * 5, "+0.5 (-1.0 to +2.0)")):
        assert f"| {expected} |" in tables.markdown([row | dict(differences=differences)])


def test_results_of_a_file_with_nasty_names(tmp_path):
    result = json.loads((WEIGHTS / "JapaneseVowels" / "softmax" / "result.json").read_text())
    del result["sha256"]
    result["recipe"]["name"] = "mine"
    result["data"] = result["attention"] = "a\x1b[31m[/foo]"
    (tmp_path / "runs.json").write_text(json.dumps({"runs": [result]}))
    printed = CliRunner().invoke(app, ["results", str(tmp_path / "runs.json")])
    assert printed.exit_code == 0 and "\x1b" not in printed.output and printed.output.count(r"a\x1b[31m") == 2


def test_a_closed_output_ends_nothing(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    print_in_any_locale()


@pytest.mark.parametrize("word", ["--version", "--help"])
def test_what_is_printed_to_a_full_disk_is_one_line(word):
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "primal_dual.cli", word]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2 and "No space left on device" in done.stderr and done.stderr.count("\n") == 1


def test_results_fit_a_terminal():
    printed = CliRunner().invoke(app, ["results", "torch_impl/results/runs.json"]).output
    assert "UWaveGestureLibrary,   softmax " in printed and "…" not in printed


@pytest.mark.parametrize("name", ["../esc", "/tmp/esc", "..", "a/b", "a\\b", "a\nb", "a\x1bb", ""])
def test_the_name_of_a_data_set_is_that_of_one_folder(tmp_path, name):
    folder = tmp_path / "runs"
    failed = CliRunner().invoke(app, ["train", name, "--folder", str(folder), "--data", str(tmp_path)])
    assert failed.exit_code == 2 and "expected the name of one folder, inside --data; got" in failed.output
    assert not list(tmp_path.iterdir())


def test_a_terminal_without_unicode():
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii", "COLUMNS": "20"}
    command = [sys.executable, "-m", "primal_dual.cli", "results", "torch_impl/results/runs.json", "--markdown"]
    done = subprocess.run(command, env=os.environ | ascii_only, capture_output=True)
    assert done.returncode == 0 and b" +- " in done.stdout and not done.stderr, done.stderr
