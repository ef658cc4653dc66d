import dataclasses
import json
import re
import subprocess
import sys

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from primal_dual import Primal, attention, catalog
from primal_dual.certificates.verification import verify
from primal_dual.cli import commands, training_commands
from primal_dual.io import datasets, files
from torch_impl.training.recipes.kinds import SeriesRecipe


def run(*arguments, columns="200"):
    return CliRunner(env={"COLUMNS": columns, "NO_COLOR": "1"}).invoke(
        commands.app, [str(argument) for argument in arguments]
    )


@pytest.fixture
def arrays(tmp_path):
    rng = np.random.default_rng(0)
    for name, shape in (("keys", (9, 3)), ("values", (9, 2)), ("heads", (2, 9, 3)), ("nan", (9, 3))):
        np.save(tmp_path / f"{name}.npy", np.where(name == "nan", np.nan, rng.standard_normal(shape)))
    np.save(tmp_path / "pickled.npy", np.array([{}], object), allow_pickle=True)
    (tmp_path / "text.npy").write_text("no array")
    return tmp_path


def test_verify_the_whole_catalog_on_real_data(tmp_path):
    result = run("verify", "--json", tmp_path / "rows.json")
    assert result.exit_code == 0, result.output
    content = json.loads((tmp_path / "rows.json").read_text())
    assert content["config"] == {"dataset": "japanese-vowels", "C": 10.0, "epsilon": 0.1, "solver": "CLARABEL"}
    assert [row["name"] for row in content["rows"]] == list(catalog)
    for row in content["rows"]:
        assert (
            row["passed"]
            and row["relative_gap"] <= 1e-10
            and row["difference"] <= 1e-7
            and row["name"] in result.output
        )
        assert row["keys"] == 25 and row["dimension"] == (6 if row["name"] == "multi-head" else 12)
        assert 0.3 < row["support_vectors"] <= 1 and row["error_bound"] < 1e-3
    assert "21 catalog entries, 190 SVRs: all passed" in result.output


def test_verify_other_input(arrays):
    result = run("verify", "bn", "sh", "--dataset", "digits", "--C", 3, columns="80")
    assert result.exit_code == 0 and "7x8" in result.output and "…" not in result.output
    result = run(
        "verify",
        "window",
        "multi-head",
        "--keys",
        arrays / "keys.npy",
        "--targets",
        arrays / "values.npy",
        "--solver",
        "PIQP",
    )
    assert (
        result.exit_code == 0 and "9x3" in result.output and "9x2" in result.output
    )  # three features, dealt to two heads


def test_verify_fails_with_exit_status_1(monkeypatch):
    """An attention that is off by a millionth is caught."""

    def wrong(*arguments):
        return attention(*arguments) * (1 + 1e-6)

    monkeypatch.setitem(verify.__globals__, "attention", wrong)
    result = run("verify", "softmax", "--dataset", "digits")
    assert result.exit_code == 1 and "failed: softmax" in result.output


def test_the_worst_svr_is_told_and_fails_the_whole(monkeypatch):
    keys, targets = np.random.default_rng(0).standard_normal((2, 5, 3))

    def wrong(*arguments):
        f = attention(*arguments)
        f[2] *= 1 + 1e-5
        return f

    monkeypatch.setitem(verify.__globals__, "attention", wrong)
    found = verify("causal", catalog["causal"], keys, targets)
    assert found.svrs == 5 and found.query == 2 and found.difference > 1e-7 and not found.passed


def test_certify(arrays):
    result = run(
        "certify",
        "--keys",
        arrays / "keys.npy",
        "--values",
        arrays / "values.npy",
        "--primal",
        "bn",
        "--json",
        arrays / "c.json",
    )
    assert result.exit_code == 0 and "relative_gap" in result.output
    (head,) = json.loads((arrays / "c.json").read_text())["heads"]
    assert abs(head["relative_gap"]) < 1e-12
    result = run("certify", "--keys", arrays / "heads.npy", "--values", arrays / "heads.npy", "--primal", "multi-head")
    assert result.exit_code == 0 and "head 1" in result.output


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["verify", "sofmax"], "did you mean softmax"),
        (["verify", "--C", "0", "--dataset", "digits"], "--C: expected a finite number > 0"),
        (["verify", "--epsilon", "-1", "--dataset", "digits"], "--epsilon: expected"),
        (["verify", "--dataset", "mnist"], "expected japanese-vowels or digits; got 'mnist'"),
        (["verify", "--solver", "NONE", "--dataset", "digits"], "solver: expected one that is installed"),
        (["verify", "--keys", "keys.npy"], "expected both or none"),
        (["verify", "bn", "--dataset", "digits", "--json", "missing/rows.json"], "cannot be written"),
        (["verify", "--keys", "nan.npy", "--targets", "values.npy"], "keys: expected finite numbers"),
        (["certify", "--keys", "missing.npy", "--values", "values.npy"], "missing.npy: expected a .npy file"),
        (["certify", "--keys", "pickled.npy", "--values", "values.npy"], "pickled.npy: expected a .npy file"),
        (["certify", "--keys", "text.npy", "--values", "values.npy"], "text.npy: expected a .npy file"),
        (["certify", "--keys", "keys.npy", "--values", "heads.npy"], "expected shape"),
        (["certify", "--model", "pretrained:JapaneseVowels/bn", "--primal", "bn"], "--values and --primal"),
        (["demo", "--output", "missing/figure.png"], "cannot be written"),
        (["verify", "--dataset", "digits", "--keys", "keys.npy", "--targets", "values.npy"], "expected none beside"),
        (["verify", "bn", "--dataset", "digits", "--json", "."], "not a regular file"),
        (["demo", "--output", "figure.nothing"], "figure.nothing: expected"),
    ],
)
def test_bad_input_is_one_line_and_exit_status_2(arguments, message, arrays, monkeypatch):
    monkeypatch.chdir(arrays)
    before = sorted(arrays.iterdir())
    result = run(*arguments)
    assert result.exit_code == 2 and message in result.stderr, result.output
    assert len(result.stderr.strip().splitlines()) == 1 and "Traceback" not in result.output
    assert sorted(arrays.iterdir()) == before


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "aeon", None)
    monkeypatch.setitem(sys.modules, "aeon.datasets", None)
    result = run("verify")
    assert result.exit_code == 2 and 'pip install ".[data]" in the checkout' in result.stderr
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = run("demo")
    assert result.exit_code == 2 and 'pip install ".[plot]" in the checkout' in result.stderr


def test_demo_draws_its_figure_and_certifies_a_trained_transformer(tmp_path, monkeypatch):
    passed = [verify("softmax", Primal(), *datasets.digit_rows())]
    monkeypatch.setattr(commands, "_verify", lambda *arguments: passed)
    result = run("demo", "--output", tmp_path / "figure.png")
    assert result.exit_code == 0 and (tmp_path / "figure.png").stat().st_size > 20_000
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    told = " ".join(result.stdout.split())
    assert (
        "of 370 utterances, it names the speaker of 99.2%." in told
        and "96 SVRs of 3 attention modules: worst relative gap" in told
    )
    assert re.search(r"says speaker \d with probability [\d.]+; it is speaker 1\.", told)
    assert re.search(r"Attention-SH takes [\d.]+ of the time of softmax attention at 4,096 tokens", told)


def test_bench(monkeypatch, tmp_path):
    from primal_dual.cli import benchmarks

    monkeypatch.setattr(benchmarks, "REPEATS", 1)
    monkeypatch.setattr(benchmarks, "LARGE", 100)
    monkeypatch.setattr(benchmarks, "MOST_EXAMPLES", 24)
    monkeypatch.setattr(benchmarks, "GRID", {"C": [1]})
    result = run("bench", "--no-memory", "--json", tmp_path / "bench.json")
    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / "bench.json").read_text())["rows"]
    assert {"certify / attention, N = 1024", "attention / torch, N = 1024, float64"} <= {row["what"] for row in rows}
    assert {"SVRAttention.fit, N = 100: seconds", "R2 of a tuned SVR, friedman1"} <= {row["what"] for row in rows}
    assert all(row["measured"] < 1e-8 for row in rows if row["what"].startswith("solve_dual") and "gap" in row["what"])


def test_help_says_what_there_is():
    result = run("--help")
    assert all(command in result.output for command in ("verify", "certify", "demo", "bench"))
    assert "multiples of the median" in run("verify", "--help").output


@pytest.mark.parametrize("name, command", typer.main.get_command(commands.app).commands.items())
def test_examples_of_the_help_are_commands(name, command):
    for example in command.epilog.split("\n\n")[1:]:
        program, called, *words = example.split()
        context = command.make_context(called, words)
        assert (program, called) == ("primal-dual", name)
        if name == "train":
            fields = training_commands._fields(context.args)
            assert set(fields) - {"attention"} <= {field.name for field in dataclasses.fields(SeriesRecipe)}


@pytest.mark.parametrize("arguments", [["nonsense"], ["verify", "--C", "abc"], ["certify"], ["verify", "--nothing"]])
def test_usage_errors_are_one_line_and_exit_status_2(arguments):
    command = [sys.executable, "-m", "primal_dual.cli", *arguments]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2 and len(result.stderr.splitlines()) == 1 and result.stderr.startswith("error: ")


def test_links_are_followed(tmp_path):
    (tmp_path / "link.json").symlink_to(tmp_path / "file.json")
    files.write_json(tmp_path / "link.json", [1])
    assert (tmp_path / "link.json").is_symlink() and json.loads((tmp_path / "file.json").read_text()) == [1]


def test_zero_targets_pass(tmp_path):
    assert verify("softmax", Primal(), np.eye(4), np.zeros((4, 2))).passed


def test_a_primal_of_your_own(arrays, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from primal_dual import *\nmine = Primal(Gaussian(2.0), transform=BatchNorm())\n"
    )
    name = f"{tmp_path / 'mine.py'}:mine"
    files_of_a_head = "--keys", arrays / "keys.npy", "--values", arrays / "values.npy"
    assert run("certify", *files_of_a_head, "--primal", name).exit_code == 0
    assert run("verify", name, "--keys", arrays / "keys.npy", "--targets", arrays / "values.npy").exit_code == 0
    refused = run("verify", name.replace(":mine", ":other"))
    assert refused.exit_code == 2 and "expected a Primal or Heads; got none of this name; it has mine" in refused.output
