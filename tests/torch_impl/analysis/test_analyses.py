"""Head redundancy, efficiency, and the pictures of results."""

import json
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from rich.progress import Progress
from typer.testing import CliRunner

import torch_impl
from primal_dual import BatchNorm, Heads, attention, attention_weights, heads
from primal_dual.cli.commands import app
from torch_impl import MultiheadAttention
from torch_impl.analysis import efficiency, plots, redundancy_table
from torch_impl.analysis.accuracy_table import table
from torch_impl.analysis.efficiency import flops
from torch_impl.analysis.head_redundancy import redundancy
from torch_impl.models.encoders import TimeSeriesEncoder
from torch_impl.models.vision_transformer import VisionTransformer
from torch_impl.recorder import recording
from torch_impl.training.runs.schedule import train_all


def call(*words):
    return CliRunner().invoke(app, list(map(str, words)))


BETAS = (0.2, 0.5, 0.7, 0.9)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    options = dict(epochs=1, layers=2, width=16, num_heads=4, feedforward=16)
    train_all("BasicMotions", ["softmax", "bn"], 2, None, folder, options, Progress(disable=True))
    return folder


@pytest.mark.parametrize("name", ["softmax", "bn+sh"])
def test_redundancy_is_the_mean_distance_of_heads(name):
    """Evaluated once more in NumPy, query by query, from what each layer's attention was called with."""
    torch.manual_seed(0)
    model = TimeSeriesEncoder(3, 11, 5, name, layers=2, width=12, num_heads=4, learn_beta=True).double()
    members = heads(name, 4)
    if name == "bn+sh":
        members = Heads(*(replace(head, transform=BatchNorm(b)) for head, b in zip(members, BETAS, strict=True)))
        for block in model.blocks:
            block.beta.data.copy_(torch.tensor(BETAS, dtype=torch.double))
    x, valid = torch.randn(3, 11, 3).double(), torch.arange(11) < torch.tensor([[11], [4], [7]])
    found = redundancy(model, x, valid)
    with torch.no_grad(), recording(model) as calls:
        model(x, valid)
    for layer, (_, recorded) in enumerate(calls):
        q, k, v = (each.cpu().numpy() for each in (recorded.q, recorded.k, recorded.v))
        mask = recorded.key_mask.cpu().numpy()
        outputs = attention(members, q, k, v, mask)
        for each, distances in (
            (outputs, found.outputs),
            (outputs / np.linalg.norm(outputs, axis=-1, keepdims=True), found.directions),
            (attention_weights(members, q, k, mask), found.maps),
        ):
            for s, t in combinations(range(4), 2):
                apart = [np.linalg.norm(each[b, s, i] - each[b, t, i]) for b, i in np.argwhere(mask)]
                assert distances[layer, s, t] == pytest.approx(np.mean(apart), rel=1e-10)
                assert distances[layer, t, s] == distances[layer, s, t] and distances[layer, s, s] == 0
        for s in range(4):
            rows = [(each[b, s, i][mask[b]], mask[b].sum()) for b, i in np.argwhere(mask)]
            shares = [-(row * np.log(row)).sum() / np.log(keys) for row, keys in rows]
            assert found.entropies[layer, s] == pytest.approx(np.mean(shares), rel=1e-10)
    pairs = [[found.maps[layer, s, t].item() for s, t in combinations(range(4), 2)] for layer in range(2)]
    assert found.means()["maps"] == pytest.approx(np.mean(pairs))


def test_redundancy_is_that_of_attention_as_it_was_called():
    """Causal in one call, with a mask of floats in another, and with queries of another sequence, fewer and as many."""

    class Calls(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = MultiheadAttention(8, 2, batch_first=True, primal="conv1d", learn_taps=True).double()

        def forward(self, x, key_mask):
            later = torch.ones(6, 6, dtype=torch.bool).triu(1)
            self.layer(x, x, x, is_causal=True)
            self.layer(x, x, x, attn_mask=torch.zeros(6, 6).double().masked_fill(later, float("-inf")))
            self.layer(x[:, :4], x, x, ~key_mask)
            self.layer(x + 1, x, x, ~key_mask)

    torch.manual_seed(0)
    model, x, valid = Calls(), torch.randn(2, 6, 8).double(), torch.arange(6) < torch.tensor([[6], [3]])
    model.layer.taps.data.normal_()
    found = redundancy(model, x, valid)
    with torch.no_grad(), recording(model) as calls:
        model(x, valid)
    for maps, (_, call) in zip(found.maps, calls, strict=True):
        options = dict(query_mask=call.query_mask, attn_mask=call.attn_mask, is_causal=call.is_causal, taps=call.taps)
        weights = torch_impl.attention_weights(call.primal, call.q, call.k, call.key_mask, **options)
        apart = (weights[:, 0] - weights[:, 1]).norm(dim=-1).mean()
        assert maps[0, 1].item() == pytest.approx(apart.item())

    class NoAttention(torch.nn.Module):
        def forward(self, x, key_mask):
            return x

    with pytest.raises(ValueError, match="expected a model with attention of torch_impl; got NoAttention"):
        redundancy(NoAttention(), x, valid)


def test_redundancy_of_images_and_of_one_head():
    model = VisionTransformer("sh", classes=3, size=8, patch=4, layers=2, width=12, num_heads=3)
    assert redundancy(model, torch.randn(2, 3, 8, 8)).outputs.shape == (2, 3, 3)
    with pytest.raises(ValueError, match="two heads or more"):
        redundancy(TimeSeriesEncoder(3, 11, 5, width=8, num_heads=1), torch.randn(2, 11, 3))


def test_operations_are_those_of_the_matrix_products():
    """width 512, feed-forward 1,024: 8 W^2 of projections and 4 N W of attention a token; twice that backward."""
    for N in (256, 512):
        inference = 2 * N * 512 * (4 * 512 + 2 * 1024 + 2 * N)
        assert flops("softmax", N, "inference") == inference == flops("bn", N, "inference")
        pooled = inference - 2 * N * 512 * 2 * N * (1 - 15 / 32)
        assert flops("sh", N, "inference") == pooled == flops("bn+sh", N, "inference")
        assert 2 * inference < flops("softmax", N, "training") < 3 * inference


def test_differences_of_redundancy_are_shares_of_softmaxs_paired_by_seed():
    results, means = [], []

    def run(data, attention, seed, distance, commit="old", **changes):
        fields = {"name": data, "kind": "SeriesRecipe", "folds": 0} | changes
        results.append(dict(data=data, attention=attention, seed=seed, recipe=fields, machine={"commit": commit}))
        means.append(dict(outputs=distance, directions=1.4, maps=0.1 * distance, entropies=0.5))

    for seed in range(3):
        run("A", "softmax", seed, 2.0 + seed)
        run("B", "softmax", seed, 2.0 + seed)
        run("A", "bn", seed, 1.1 * (2.0 + seed))
        run("A", "bn", seed, 9.0, commit="new")
        run("A", "sh", seed, 2.0 + seed)
    run("B", "bn", 7, 9.0)
    for seed in range(2):
        run("B", "sh", seed, (2.0 + seed) * (1.0 + 0.1 * seed))
        run("Handwriting", "softmax", seed, 1.0, lr=0.5)
        run("Handwriting", "sh", seed, 7.0, lr=0.5)
    rows = {(row["recipe"], row["attention"]): row for row in redundancy_table.table(results, means)}
    assert rows["A, commit old", "bn"]["outputs"]["difference"] == pytest.approx((10, 10, 10))
    assert rows["A, commit old", "bn"]["directions"]["difference"] == (0, 0, 0)
    assert rows["A, commit new", "bn"]["outputs"]["difference"] is None  # softmax is of another commit
    assert rows["B", "bn"]["outputs"] == {"mean": 9.0, "percent": [], "difference": None}  # softmax lacks seed 7
    assert rows["B", "sh"]["maps"]["percent"] == pytest.approx([0, 10]) and rows["B", "sh"]["entropies"] == 0.5
    (average,) = [name for name in rows if name[0].startswith("average")]  # without the changed recipe
    assert average == ("average of 2 data sets", "sh")
    mean, low, high = rows[average]["outputs"]["difference"]
    assert mean == pytest.approx(2.5) and low == 0 and 5 <= high <= 10


def test_redundancy_command(trained, tmp_path):
    runs = [trained / "BasicMotions" / name / "0" for name in ("softmax", "bn")]
    done = call("redundancy", trained, "--figure", tmp_path / "h.png", "--json", tmp_path / "h.json")
    assert done.exit_code == 0 and "softmax" in done.output, done.output
    kept = json.loads((tmp_path / "h.json").read_text())
    softmax, bn = kept["rows"]
    measured = [(run["attention"], run["seed"]) for run in kept["runs"]]
    assert measured == [("bn", 0), ("bn", 1), ("softmax", 0), ("softmax", 1)]
    assert softmax["seeds"] == bn["seeds"] == 2 and softmax["maps"]["difference"] is None and bn["maps"]["mean"] > 0
    with Image.open(tmp_path / "h.png") as picture:
        assert picture.size[0] > 300
    alone = call("redundancy", *runs, "--json", tmp_path / "h.json")
    assert (
        alone.exit_code == 0 and json.loads((tmp_path / "h.json").read_text())["rows"][1]["maps"]["difference"] is None
    )
    for words, message in (
        ((tmp_path,), "expected a finished run"),
        ((*runs, "--figure", tmp_path / "h.xyz"), "ends in .png"),
        ((*runs, "--figure", tmp_path / "none" / "h.png"), "cannot be written"),
    ):
        failed = call("redundancy", *words)
        assert failed.exit_code == 2 and message in " ".join(failed.output.split()), failed.output


def test_efficiency_command(tmp_path, monkeypatch):
    monkeypatch.setattr(efficiency, "TOKENS_TIMED", 64)
    done = call("efficiency", 32, 64, "--figure", tmp_path / "e.png", "--json", tmp_path / "e.json")
    assert done.exit_code == 0, done.output
    rows = json.loads((tmp_path / "e.json").read_text())["rows"]
    assert len(rows) == 2 * 2 * 4 and all(row["seconds"] > 0 and row["bytes"] > 0 for row in rows)
    assert all(row["flops_ratio"] == 1 for row in rows if row["attention"] in ("softmax", "bn"))
    assert call("efficiency", 1).exit_code == 2


def test_results_command_draws(trained, tmp_path):
    done = call("results", trained, "--figure", tmp_path / "r.svg")
    assert done.exit_code == 0 and (tmp_path / "r.svg").read_text().startswith("<?xml")
    *_, softmax, bn = (line.split() for line in done.output.splitlines() if line.strip() and "Figure" not in line)
    assert softmax[:2] == ["BasicMotions", "softmax"] and bn[0] == "bn"  # in the catalog's order, the set named once


def test_the_picture_of_accuracies_has_every_row():
    def run(data, name, seed, right):
        own = dict(data=data, attention=name, seed=seed, test_accuracy=right, best_test_epoch=right)
        return own | dict(recipe={"folds": 0, "name": data, "kind": "SeriesRecipe"}, seconds=1.0)

    runs = [run("A", "softmax", s, 0.5 + 0.01 * s) for s in range(3)]
    runs += [run("B", name, s, 0.8) for name in ("sh", "softmax") for s in range(3)] + [run("B", "bn", 0, 0.7)]
    figure = plots.plot_accuracies(table(runs))
    left, right = figure.axes
    shown = {round(x, 6) for line in left.lines if len(line.get_xdata()) for x in line.get_xdata()}
    assert isinstance(figure, Figure) and {51.0, 80.0, 70.0} <= shown
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["softmax", "bn", "sh"]
    assert len(right.containers) == 1  # sh against softmax; one seed has no interval
