"""Recipes, their fields and their defaults."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from torch_impl.data.dataset import DataSet, Split
from torch_impl.data.images.augmentation import ImageAugmentation
from torch_impl.training.recipes import kinds
from torch_impl.training.recipes.benchmarks import RECIPES, recipe
from torch_impl.training.recipes.kinds import ImageRecipe, SeriesRecipe, from_config, to_config
from torch_impl.training.runs.trainer import learning_rate


@pytest.mark.parametrize(
    "name, given, field, value",
    [
        ("JapaneseVowels", dict(epochs="7"), "epochs", 7),
        ("JapaneseVowels", dict(lr="0.1"), "lr", 0.1),
        ("cifar10", dict(bf16="False"), "bf16", False),
        ("cifar10", dict(compile="true"), "compile", True),
        ("Else", {}, "name", "Else"),
    ],
)
def test_fields_are_read_as_the_command_line_gives_them(name, given, field, value):
    read = getattr(recipe(name, **given), field)
    assert read == value and type(read) is type(value)


def test_a_name_that_is_no_benchmark_is_a_folder_of_images_or_a_set_of_series(tmp_path):
    (tmp_path / "Photos" / "train").mkdir(parents=True)
    photos = recipe("Photos", tmp_path)
    assert isinstance(photos, ImageRecipe) and photos.patch == 4
    assert isinstance(recipe("Photos"), SeriesRecipe)


@pytest.mark.parametrize(
    "wrong, message",
    [
        (dict(speed=1), "speed: expected a field of the recipe, one of epochs"),
        (dict(epochs="many"), "epochs: expected a whole number; got 'many'"),
        (dict(bf16="maybe"), "bf16: expected true or false; got 'maybe'"),
        (dict(epochs="inf"), "epochs: expected a whole number; got 'inf'"),
        (dict(epochs=float("inf")), "epochs: expected a whole number; got inf"),
        (dict(epochs=-1), "epochs: expected 0 to 1000000000; got -1"),
        (dict(accumulate=0), "accumulate: expected 1 to 1000000000; got 0"),
        (dict(label_smoothing=5), "label_smoothing: expected 0 to 1; got 5.0"),
        (dict(ema=1), "ema: expected 0 to 0.9999999; got 1.0"),
        (dict(stochastic_depth=1), "stochastic_depth: expected 0 to 0.9999999; got 1.0"),
        (dict(beta="nan"), "beta: expected -1000000.0 to 1000000.0; got nan"),
    ],
)
def test_wrong_fields_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        recipe("JapaneseVowels", **wrong)


def test_the_data_of_a_recipe_are_not_trained_by_another_under_a_name_in_other_case(tmp_path):
    (tmp_path / "Handwriting").mkdir()
    assert isinstance(recipe("handwriting", tmp_path), SeriesRecipe)  # a data set of one's own
    (tmp_path / "handwriting").symlink_to(tmp_path / "Handwriting")  # as where case makes no difference
    with pytest.raises(ValueError, match="expected Handwriting, the name of its recipe; got handwriting"):
        recipe("handwriting", tmp_path)
    assert recipe("Handwriting", tmp_path).convolutions == 3
    np.savez(tmp_path / "Text.npz", **{name: np.zeros((2, 3)) for name in ("X_train", "y_train", "X_test", "y_test")})
    (tmp_path / "text.npz").symlink_to(tmp_path / "Text.npz")
    with pytest.raises(ValueError, match="expected Text, the name of its recipe; got text"):
        recipe("text", tmp_path)


@pytest.mark.parametrize("name", RECIPES)
def test_the_config_of_a_run_gives_the_recipe_back(name):
    own = RECIPES[name](beta=0.25)
    config = json.loads(json.dumps(to_config(own)))
    assert asdict(from_config(config)) == asdict(own) != asdict(RECIPES[name]())


def test_beta_is_that_of_every_head():
    betas = [part.beta for member in SeriesRecipe("x", beta=0.3).primal("bn+sh") for part in member.transform]
    assert betas == [0.3] * 8


@pytest.mark.parametrize(
    "scales, attention, expected", [("1 3", "bn+sh", [1] * 4 + [3] * 4), ("4", "bn", [1] * 8), ("4", "sh", [4] * 8)]
)
def test_scales_are_those_of_attention_sh_alone(scales, attention, expected):
    assert [each.scale for each in SeriesRecipe("x", scales=scales).primal(attention)] == expected


@pytest.mark.parametrize("wrong", ["", "1 two", "-1", "0"])
def test_wrong_scales_are_refused(wrong):
    with pytest.raises(ValueError, match='scales: expected whole numbers above 0, such as "1 2 4 8"; got '):
        SeriesRecipe("x", scales=wrong)


@pytest.mark.parametrize("kind, field", [(SeriesRecipe, "norm"), (SeriesRecipe, "pooling"), (ImageRecipe, "crop")])
def test_words_are_refused_before_any_data_is_loaded(kind, field):
    for name in (field, "optimizer"):
        with pytest.raises(ValueError, match=f"{name}: expected one of .*; got 'none of them'"):
            kind("x", **{name: "none of them"})


def test_no_scale_is_left_out_where_there_are_as_many_heads():
    for count in range(1, 9):
        scales = list(range(1, count + 1))
        for heads in range(count, 9):
            own = SeriesRecipe("x", num_heads=heads, scales=" ".join(map(str, scales)))
            assert sorted({each.scale for each in own.primal("sh")}) == scales


def test_a_single_head_is_scaled_or_refused():
    assert [each.scale for each in SeriesRecipe("x", num_heads=1, scales="4").primal("sh")] == [4]
    assert [each.scale for each in SeriesRecipe("x", num_heads=1, scales="1").primal("sh")] == [1]
    with pytest.raises(ValueError, match="num_heads: expected a head with a scale above 1 of '1 2 4 8'; got 1"):
        SeriesRecipe("x", num_heads=1).primal("bn+sh")


def test_defaults_that_depend_on_the_data_give_way_to_what_is_chosen(motions):
    long = motions._replace(train=Split(torch.empty(40, 4000, 1), None, torch.zeros(40)))
    resolved = SeriesRecipe("x").resolve_defaults(long)
    assert (resolved.epochs, resolved.patch) == (200, 125)
    chosen = SeriesRecipe("x", patch=3)
    assert chosen.resolve_defaults(long) == replace(chosen, epochs=75)
    assert replace(chosen, epochs=7).resolve_defaults(long).epochs == 7


def test_the_learning_rate_rises_over_a_tenth_of_the_steps_and_falls_to_nothing():
    rates = [learning_rate(step, 100, 0.1) for step in range(100)]
    assert rates[0] == 0.1 and rates[9] == rates[10] == 1 and 0 < rates[-1] < 1e-3
    assert rates[:10] == sorted(rates[:10]) and rates[10:] == sorted(rates[10:], reverse=True)


def test_small_images_are_augmented_several_batches_at_a_time(monkeypatch):
    """Each batch comes back with its own images and labels, in its place."""
    images = torch.arange(10, dtype=torch.uint8)[:, None, None, None].expand(10, 3, 4, 4)
    data = DataSet("mine", Split(images, None, torch.arange(10)), None, range(10), {}, [0.0] * 3, [1.0] * 3)
    batches = [data.train.take(index) for index in torch.tensor([7, 3, 1, 9, 0, 2, 4, 8, 6, 5]).split(3)]
    together, change_each = [], ImageAugmentation.change_each
    monkeypatch.setattr(
        ImageAugmentation, "change_each", lambda self, x: together.append(len(x)) or change_each(self, x)
    )
    monkeypatch.setattr(kinds, "PIXELS_AT_A_TIME", 2 * 3 * images[0].numel())
    plain = ImageRecipe("mine", crop="none", flip=0, rand_augment=0, erasing=0, mixup=0, cutmix=0)
    for batch, (x, key_mask, targets) in zip(batches, plain.augmented(iter(batches), data), strict=True):
        assert key_mask is None and torch.equal(targets.argmax(1), batch.labels) and targets.sum(1).eq(1).all()
        torch.testing.assert_close(x, batch.inputs / 255)
    assert together == [6, 4]
    torch.manual_seed(0)
    mixed = replace(plain, mixup=1.0)
    for batch, (x, _, targets) in zip(batches, mixed.augmented(iter(batches), data), strict=True):
        assert set(targets.nonzero()[:, 1].tolist()) == set(batch.labels.tolist())  # not with those of another batch
        torch.testing.assert_close(x.mean((1, 2, 3)), targets @ (torch.arange(10.0) / 255))
