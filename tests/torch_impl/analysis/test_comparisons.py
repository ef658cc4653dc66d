"""Comparisons of many runs: over all data sets together, and against one field of the recipe."""

import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from primal_dual.cli.commands import app
from torch_impl.analysis import over_sets
from torch_impl.analysis.accuracy_table import load, table, title
from torch_impl.analysis.bayesian_test import signed_rank
from torch_impl.analysis.by_field import accuracies_by_field
from torch_impl.analysis.over_sets import averages, hierarchical_interval
from torch_impl.analysis.plots import plot_by_field
from torch_impl.training.experiments import STEPS
from torch_impl.training.recipes.benchmarks import recipe
from torch_impl.training.recipes.kinds import SeriesRecipe, to_config

SETS = "JapaneseVowels", "Handwriting", "BasicMotions"


def result(data, attention, seed, accuracy, commit="abc", **changes):
    config = to_config(replace(recipe(data), **changes))
    return {
        "recipe": config,
        "data": data,
        "attention": attention,
        "seed": seed,
        "test_accuracy": accuracy,
        "best_test_epoch": accuracy,
        "seconds": 1.0,
        "machine": {"commit": commit},
    }


def runs(advantage, seeds=5, sets=SETS, rng=None):
    """Softmax and bn on some sets; bn is better by `advantage` and noise of one point a run."""
    rng = rng or np.random.default_rng(0)
    found = []
    for i, data in enumerate(sets):
        for seed in range(seeds):
            common = 0.5 + 0.1 * i + 0.01 * seed
            found.append(result(data, "softmax", seed, common))
            found.append(result(data, "bn", seed, common + advantage[i] + 0.01 * rng.standard_normal()))
    return found


def test_the_average_is_that_of_the_tables_rows():
    found = runs((0.1, 0.2, 0.0))
    extra = [result("Handwriting", "bn", 0, 0.01, lr=0.5), result("BasicMotions", "sh", 0, 0.3)]
    softmax, bn = averages(found + extra)
    rows = {(row["recipe"], row["attention"]): row for row in table(found)}
    for row, name in ((softmax, "softmax"), (bn, "bn")):
        assert row["recipe"] == "average of 3 data sets" and row["seeds"] == 15
        assert row["mean"] == pytest.approx(np.mean([rows[data, name]["mean"] for data in SETS]))
    assert bn["difference"][0] == pytest.approx(np.mean([rows[data, "bn"]["difference"][0] for data in SETS]))
    assert softmax["difference"] is None
    assert averages(found[:10]) == []
    twice = found + [result("Handwriting", name, 0, 0.9, "def") for name in ("softmax", "bn")]
    assert averages(twice)[0]["recipe"] == "average of 2 data sets"
    fewer = [run for run in found if (run["data"], run["attention"]) != (SETS[0], "bn")]
    assert [row["recipe"] for row in averages(fewer)] == [
        "average of 3 data sets",
        f"average of 2 data sets, without {SETS[0]}",
    ]
    alone = found + [result(data, "qk-norm", 0, 0.9, "def") for data in SETS]  # no softmax of its commit
    assert averages(alone) == [softmax, bn]


def test_runs_of_different_settings_are_never_averaged():
    """The data set has no recipe of its own, whose changes a title could name."""
    runs = []
    for attention, epochs in (("softmax", 40), ("softmax", 15), ("bn", 15)):
        config = to_config(SeriesRecipe("mine", epochs=epochs))
        runs.append(
            result("Handwriting", attention, int(epochs == 15), epochs / 100) | {"recipe": config, "data": "mine"}
        )
    rows = {(row["recipe"], row["attention"]): row["mean"] for row in table(runs)}
    assert rows == {
        ("mine, epochs 15", "softmax"): 15,
        ("mine, epochs 15", "bn"): 15,
        ("mine, epochs 40", "softmax"): 40,
    }
    assert [row["recipe"] for row in table(runs[1:])] == ["mine", "mine"]


def test_runs_on_other_data_or_by_another_file_have_rows_of_their_own(tmp_path):
    one, two = "a" * 64, "b" * 64
    softmax = [result("Handwriting", "softmax", seed, 0.5) | {"fingerprint": f"150 SHA-256 {one}"} for seed in (0, 1)]
    own = [
        result("Handwriting", "Primal()", seed, accuracy)
        | {"fingerprint": f"150 SHA-256 {data}", "attention_files": {"my.py": file}}
        for accuracy, data, file in ((0.6, one, one), (0.7, one, two), (0.8, two, two))
        for seed in (0, 1)
    ]
    for i, each in enumerate(softmax + own):
        (tmp_path / f"{i}.json").write_text(json.dumps({"runs": [each]}))
    rows = {row["recipe"]: row for row in table(load(*sorted(tmp_path.iterdir())))}
    assert {name: row["mean"] for name, row in rows.items()} == {
        "Handwriting": 50,
        "Handwriting, data aaaaaaa, file aaaaaaa": 60,
        "Handwriting, data aaaaaaa, file bbbbbbb": 70,
        "Handwriting, data bbbbbbb, file bbbbbbb": 80,
    }
    differences = [
        rows[f"Handwriting, data {data}, file {file}"]["difference"]
        for data, file in (("aaaaaaa", "bbbbbbb"), ("bbbbbbb", "bbbbbbb"))
    ]
    assert differences == [(pytest.approx(20),) * 3, None]


def test_changes_are_told_in_the_words_of_the_plan():
    planned = [result("Handwriting", "bn", 0, 0.5, **changes) for changes in (STEPS, {"lr": 0.016}, {})]
    assert [title(run) for run in planned] == ["Handwriting, steps as tokens", "Handwriting, lr 0.016", "Handwriting"]
    unplanned = result("Handwriting", "bn", 0, 0.5, **(STEPS | {"taps": 3}))
    assert title(unplanned) == "Handwriting, norm batch, convolutions 0, taps 3, pooling flatten, mix 0.0"


def test_the_interval_sees_the_scatter_over_sets_and_over_seeds():
    """Of groups that are alike it has the width of a bootstrap of all numbers; of groups that differ, theirs."""
    rng = np.random.default_rng(1)
    alike = rng.standard_normal((17, 11))
    mean, low, high = hierarchical_interval(alike.tolist())
    assert mean == pytest.approx(alike.mean())
    expected = 2 * 1.96 * np.sqrt(alike.mean(axis=1).var() / 17 + alike.var(axis=1).mean() / (17 * 11))
    assert high - low == pytest.approx(expected, rel=0.05) and low < mean < high
    apart = np.arange(17.0)[:, None] + np.zeros((17, 3))
    _, low, high = hierarchical_interval(apart.tolist())
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(apart[:, 0].var() / 17), rel=0.05)


def test_an_interval_of_nothing_holds_zero_about_as_often_as_it_says(monkeypatch):
    """Five sets of five seeds: somewhat less than 95 %, as the docstring warns."""
    monkeypatch.setattr(over_sets, "DRAWS", 1000)
    rng, holds = np.random.default_rng(2), 0
    for _ in range(200):
        groups = 0.5 * rng.standard_normal((5, 1)) + rng.standard_normal((5, 5))
        _, low, high = hierarchical_interval(groups.tolist())
        holds += low < 0 < high
    assert 0.8 < holds / 200 < 0.99


@pytest.mark.parametrize("advantage", [(0.02, -0.004, 0.031), (-0.05, -0.02, 0.04), (0.003, -0.002, 0.001)])
def test_the_signed_rank_test_compares_means_of_pairs_of_differences(advantage):
    """As written in its docstring, with 20,000 draws of weights of its own."""
    found = runs(advantage)
    [row] = signed_rank(found, rope=1.5)
    rows = {(each["recipe"], each["attention"]): each["mean"] for each in table(found)}
    z = np.array([0.0] + [rows[data, "bn"] - rows[data, "softmax"] for data in sorted(SETS)])
    middles = (z[:, None] + z) / 2
    regions = np.stack([middles < -1.5, abs(middles) <= 1.5, middles > 1.5])
    weights = np.random.default_rng(3).dirichlet([0.5, 1, 1, 1], 20_000)
    shares = np.einsum("di,rij,dj->dr", weights, regions, weights)
    expected = np.bincount(shares.argmax(axis=1), minlength=3) / len(shares)
    assert (row["attention"], row["sets"]) == ("bn", 3)
    np.testing.assert_allclose([row["less"], row["equal"], row["more"]], expected, atol=0.02)


def test_results_print_the_signed_rank_test(tmp_path):
    (tmp_path / "runs.json").write_text(json.dumps({"runs": runs((0.1, 0.2, 0.1))}))
    printed = CliRunner().invoke(app, ["results", str(tmp_path / "runs.json"), "--rope", "1"])
    assert "within 1" in printed.output and "bn           3" in printed.output, printed.output
    refused = CliRunner().invoke(app, ["results", str(tmp_path / "runs.json"), "--rope", "0"])
    assert refused.exit_code == 2 and "--rope: expected a finite number > 0; got 0.0" in refused.stderr


@pytest.mark.parametrize(("recipes", "rows", "columns"), [(1, 1, 1), (3, 1, 3), (4, 2, 2), (5, 2, 3)])
def test_panels_are_in_rows_of_three_at_most(recipes, rows, columns):
    cells = [
        dict(recipe=f"set {i}", attention="bn", value=value, mean=10 * i, deviation=None)
        for i in range(recipes)
        for value in (0.1, 0.2)
    ]
    axes = plot_by_field(cells, "lr").axes
    assert [each.get_title() for each in axes] == [f"set {i}" for i in range(recipes)]
    assert axes[0].get_gridspec().get_geometry() == (rows, columns)
    assert [each.containers[0].lines[0].get_ydata().tolist() for each in axes] == [[10 * i] * 2 for i in range(recipes)]


def test_accuracies_against_a_field():
    rates = {0.002: 0.7, 0.016: 0.2}
    found = [
        result("Handwriting", name, seed, accuracy + 0.01 * seed, lr=lr)
        for name in ("bn", "softmax")
        for lr, accuracy in rates.items()
        for seed in range(2)
    ]
    others = [result("BasicMotions", "softmax", 0, 0.9), result("Handwriting", "bn", 0, 0.1, lr=0.1, dropout=0.9)]
    rows = accuracies_by_field(found + others, "lr")
    assert [(row["attention"], row["value"]) for row in rows] == [
        (name, rate) for name in ("softmax", "bn") for rate in rates
    ]
    assert {row["recipe"] for row in rows} == {"Handwriting"} and {row["seeds"] for row in rows} == {2}
    assert rows[0]["mean"] == pytest.approx(70.5) and rows[0]["deviation"] == pytest.approx(np.sqrt(0.5))
    apart = [result("Handwriting", "bn", 0, 0.4, lr=lr, **STEPS) for lr in (0.002, 0.001)]  # another recipe, of its own
    both = accuracies_by_field(found + apart, "lr")
    assert both[:4] == rows and {row["recipe"] for row in both[4:]} == {"Handwriting, steps as tokens"}
    own = [
        result("Handwriting", "bn", 0, 0.4, lr=lr, epochs=n) | {"data": "own"}
        for n, lr in ((5, 1), (5, 2), (7, 2), (7, 1))
    ]
    own = [run | {"recipe": run["recipe"] | {"name": "own"}} for run in own]
    assert {row["recipe"] for row in accuracies_by_field(own, "lr")} == {"own, epochs 5", "own, epochs 7"}
    for field in ("dropout", "depth"):
        with pytest.raises(ValueError, match=f"{field}: expected runs whose recipes differ in this field alone"):
            accuracies_by_field(found, field)
    with pytest.raises(ValueError, match=r"lr 0.002, softmax, seed 0: expected one run; got several"):
        accuracies_by_field([*found, result("Handwriting", "softmax", 0, 0.1, "def", lr=0.002)], "lr")


def test_the_command(tmp_path):
    found = runs((0.1, 0.2, 0.0)) + [result("Handwriting", "bn", seed, 0.3, lr=0.5) for seed in range(2)]
    (tmp_path / "runs.json").write_text(json.dumps({"runs": found}))

    def call(*words):
        done = CliRunner(env={"COLUMNS": "120"}).invoke(app, ["results", str(tmp_path / "runs.json"), *map(str, words)])
        return done.exit_code, done.output

    status, output = call("--against", "lr", "--figure", tmp_path / "lr.png")
    assert status == 0 and "average of 3 data sets" in output and (tmp_path / "lr.png").stat().st_size > 10_000
    assert "| average of 3 data sets | softmax | 15 |" in call("--markdown")[1]
    for words, message in (
        (["--against", "lr"], "--against: expected --figure FILE beside it; got none"),
        (["--against", "width", "--figure", tmp_path / "width.png"], "width: expected runs whose recipes differ"),
    ):
        status, output = call(*words)
        assert status == 2 and message in output, output
    assert not (tmp_path / "width.png").exists()
