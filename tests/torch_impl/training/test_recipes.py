"""Recipes, their fields and their defaults."""

import json
from dataclasses import asdict, replace

import pytest
import torch

from torch_impl.data.dataset import Split
from torch_impl.data.series import load_series
from torch_impl.training.benchmarks import RECIPES, recipe
from torch_impl.training.recipes import SeriesRecipe, from_config, to_config
from torch_impl.training.trainer import learning_rate


def test_recipes(tmp_path):
    assert recipe("JapaneseVowels", epochs="7", lr="0.1").epochs == 7 and recipe("Else").name == "Else"
    assert recipe("cifar10", bf16="False").bf16 is False and recipe("cifar10", compile="true").compile is True
    (tmp_path / "Photos" / "train").mkdir(parents=True)
    assert recipe("Photos", tmp_path).patch == 4 and isinstance(recipe("Photos"), SeriesRecipe)
    for wrong, message in (
        (dict(speed=1), "speed: expected a field of the recipe, one of epochs"),
        (dict(epochs="many"), "epochs: expected int; got 'many'"),
        (dict(bf16="maybe"), "bf16: expected bool; got 'maybe'"),
        (dict(epochs=-1), "epochs: expected 0 or more; got -1"),
        (dict(accumulate=0), "accumulate: expected 1 or more; got 0"),
        (dict(label_smoothing=5), "label_smoothing: expected 0 to 1; got 5.0"),
        (dict(beta="nan"), "beta: expected -1000000.0 to 1000000.0; got nan"),
    ):
        with pytest.raises(ValueError, match=message):
            recipe("JapaneseVowels", **wrong)
    for kind in RECIPES.values():
        config = json.loads(json.dumps(to_config(kind(beta=0.25))))
        assert asdict(from_config(config)) == asdict(kind(beta=0.25))
    betas = {part.beta for member in SeriesRecipe("x", beta=0.3).primal("bn+sh") for part in member.transform}
    assert betas == {0.3}
    assert [each.scale for each in SeriesRecipe("x", scales="1 3").primal("bn+sh")] == [1] * 4 + [3] * 4
    assert [each.scale for each in SeriesRecipe("x", scales="4").primal("bn")] == [1] * 8
    for wrong in ("", "1 two", "-1"):
        with pytest.raises(ValueError, match='scales: expected whole numbers, such as "1 2 4 8"; got '):
            SeriesRecipe("x", scales=wrong).primal("sh")
    long = load_series("BasicMotions")
    long = long._replace(train=Split(torch.empty(40, 4000, 1), None, torch.zeros(40)))
    assert (SeriesRecipe("x").resolve_defaults(long).epochs, SeriesRecipe("x").resolve_defaults(long).patch) == (
        200,
        125,
    )
    chosen = SeriesRecipe("x", patch=3)
    assert (
        chosen.resolve_defaults(long) == replace(chosen, epochs=75)
        and replace(chosen, epochs=7).resolve_defaults(long).epochs == 7
    )
    rates = [learning_rate(step, 100, 0.1) for step in range(100)]
    assert (
        rates[0] == 0.1
        and rates[9] == rates[10] == 1
        and rates[-1] < 1e-3
        and rates[10:] == sorted(rates[10:], reverse=True)
    )
