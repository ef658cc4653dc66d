"""A run that is finished: its model, its accuracy on the test split once more, and classes of new cases."""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from torch_impl.models import TimeSeriesEncoder
from torch_impl.recipes import Recipe
from torch_impl.runs import part
from torch_impl.series import load_cases, load_series
from torch_impl.train import accuracy, primal


def load_run(run):
    """The folder of a run -> its model in eval mode, its config, and what it knows of its data set (a dictionary).

    Raises ValueError for a folder that is no finished run, and for damaged weights.
    """
    config, weights = Path(run) / "config.json", Path(run) / "model.safetensors"
    if not (config.exists() and weights.exists()):
        raise ValueError(f"{run}: expected a finished run, RUNS/RECIPE/ATTENTION/SEED with model.safetensors")
    try:
        config = json.loads(config.read_text())
        with safe_open(weights, "pt") as file:
            data = json.loads(file.metadata()["data"])
        recipe = Recipe(**config["recipe"])
        model = TimeSeriesEncoder(**data["sizes"], primal=primal(config["attention"], recipe), **recipe.model)
        model.load_state_dict(load_file(weights))
    except (SafetensorError, KeyError, TypeError, RuntimeError, json.JSONDecodeError) as error:
        raise ValueError(f"{run}: expected the config and weights of this program; got {error}") from error
    return model.eval(), config, data


def evaluate(run, folder=None):
    """The accuracy of a run on what it was tested on, and the number of cases. folder: of the data, as in training.

    Raises ValueError for another data set of the same name, and what loading raises.
    """
    model, config, known = load_run(run)
    recipe = Recipe(**config["recipe"])
    data = part(load_series(recipe.name, folder), recipe, config["seed"])
    if data.described() != known:
        raise ValueError(f"{run}: expected the data set that it was trained on; got another {recipe.name} in {folder}")
    return accuracy(model, data.test), len(data.test)


@torch.no_grad()
def predict(run, file):
    """The cases of a .ts file -> the probabilities of the classes, (n, classes), and the names of the classes."""
    model, _, data = load_run(run)
    inputs, key_mask = load_cases(file, data)
    parts = torch.arange(len(inputs)).split(256)
    logits = [model(inputs[some], None if key_mask is None else key_mask[some]) for some in parts]
    return torch.cat(logits).softmax(-1), data["classes"]
