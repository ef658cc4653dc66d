"""The fields of the recipes with their defaults and meanings, as their docstrings give them."""

import inspect
import re
from dataclasses import fields
from typing import Any, NamedTuple

from torch_impl.training.recipes.base_recipe import Recipe
from torch_impl.training.recipes.kinds import ImageRecipe, SeriesRecipe, TokenRecipe

GROUPS = {"all data": Recipe, "time series": SeriesRecipe, "sequences of tokens": TokenRecipe, "images": ImageRecipe}


class Field(NamedTuple):
    """A field of a recipe: its name, its default, and what it means."""

    name: str
    default: Any
    meaning: str


def fields_by_kind() -> dict[str, list[Field]]:
    """The fields that all recipes have, and for each kind of data those that are its own or have a default of its own.

    Examples
    --------
    >>> fields_by_kind()["time series"][1]
    Field(name='feedforward', default=256, meaning='The number of hidden features of the feed-forward networks.')
    """
    common = {field.name: field.default for field in fields(Recipe)}
    found = {}
    for group, recipe in GROUPS.items():
        meanings = _meanings(Recipe) | _meanings(recipe)
        found[group] = [
            Field(field.name, field.default, meanings[field.name])
            for field in fields(recipe)
            if field.name != "name" and (recipe is Recipe or common.get(field.name) != field.default)
        ]
    return found


def _meanings(recipe: type[Recipe]) -> dict[str, str]:
    """The section Parameters of a docstring, by name."""
    section = (inspect.getdoc(recipe) or "").split("----------\n", 1)[1].split("\nRaises\n")[0]
    entries = re.findall(r"^(\w[\w, ]*) : .*\n((?: {4}.*\n?)+)", section, re.MULTILINE)
    return {name: " ".join(text.split()) for names, text in entries for name in names.split(", ")}
