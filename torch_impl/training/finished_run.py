"""A run that is finished: its model, its accuracy on the test split once more, and classes of new cases."""

import json
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from torch_impl.training.distributed import this_process
from torch_impl.training.recipes import Recipe, from_config
from torch_impl.training.runs import fold_of_seed
from torch_impl.training.trainer import accuracy


class Run(NamedTuple):
    """A finished run: its recipe, attention and seed, the model in eval mode, and what it knows of its data set."""

    recipe: Recipe
    attention: str
    seed: int
    model: torch.nn.Module
    data: dict


def load_run(folder):
    """The folder of a run -> the Run. Raises ValueError for one that is not finished, and for damaged files."""
    config, weights = Path(folder) / "config.json", Path(folder) / "model.safetensors"
    if not (config.exists() and weights.exists()):
        raise ValueError(f"{folder}: expected a finished run, RUNS/DATA/ATTENTION/SEED with model.safetensors")
    try:
        config = json.loads(config.read_text())
        with safe_open(weights, "pt") as file:
            data = json.loads(file.metadata()["data"])
        recipe = from_config(config["recipe"])
        model = recipe.model(data["sizes"], config["attention"])
        model.load_state_dict(load_file(weights))
    except (SafetensorError, KeyError, TypeError, RuntimeError, json.JSONDecodeError) as error:
        raise ValueError(f"{folder}: expected the config and weights of this program; got {error}") from error
    return Run(recipe, config["attention"], config["seed"], model.eval(), data)


def evaluate(folder, data_folder=None, say=print):
    """The accuracy of a run on what it was tested on, and the number of cases. data_folder: as in training.

    Raises ValueError for another data set of the same name, and what loading raises.
    """
    run = load_run(folder)
    data = tested_on(run, data_folder, say)
    if data.described() != run.data:
        expected = "expected the data set that it was trained on"
        raise ValueError(f"{folder}: {expected}; got another {run.recipe.name} in {data_folder}")
    world = this_process()
    return accuracy(run.recipe, run.model.to(world.device), data.test, data, world), len(data.test)


def tested_on(run, data_folder, say=print):
    """The data set of a run, or its folds of it."""
    return fold_of_seed(run.recipe.load(data_folder, say), run.recipe, run.seed)


@torch.no_grad()
def predict(folder, file):
    """New cases, a .ts file, or an image or a folder of them -> the probabilities of the classes, (n, classes), the
    names of the classes and those of the cases."""
    run = load_run(folder)
    inputs, key_mask, names = run.recipe.read(Path(file), run.data)
    logits = []
    for index in torch.arange(len(inputs)).split(256):
        prepared = run.recipe.prepare(inputs[index], run.data["mean"], run.data["deviation"])
        logits.append(run.model(prepared, None if key_mask is None else key_mask[index]))
    return torch.cat(logits).softmax(-1), run.data["classes"], names
