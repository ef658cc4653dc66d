"""The help of `train` has every field of every recipe, with its default and its meaning."""

from dataclasses import fields

import pytest
from typer.testing import CliRunner

from primal_dual.cli.commands import app
from torch_impl.training.recipes.base_recipe import Recipe
from torch_impl.training.recipes.recipe_fields import GROUPS, fields_by_kind


@pytest.mark.parametrize("group", GROUPS)
def test_every_field_has_a_meaning(group):
    found, common = fields_by_kind(), {each.name for each in fields_by_kind()["all data"]}
    names = {field.name for field in fields(GROUPS[group])} - {"name"}
    assert names == common | {each.name for each in found[group]}
    for name, default, meaning in found[group]:
        assert GROUPS[group].__dataclass_fields__[name].default == default
        assert meaning.endswith(".") and len(meaning) > 15, name
    assert group == "all data" or all(
        getattr(Recipe, each.name, None) != each.default for each in found[group]
    )  # what is as in all data is not said again


def test_the_help_of_train():
    done = CliRunner(env={"COLUMNS": "100", "NO_COLOR": "1"}).invoke(app, ["train", "--help"])
    assert done.exit_code == 0 and "--seeds" in done.output
    for rows in fields_by_kind().values():
        for name, default, _ in rows:
            option = f"--{name.replace('_', '-')}"
            rows_of_it = [line for line in done.output.splitlines() if line.split()[:1] == [option]]
            assert any(str(default) in line for line in rows_of_it), option


def test_the_version():
    done = CliRunner().invoke(app, ["--version"])
    assert done.exit_code == 0 and done.output.strip()[0].isdigit()
