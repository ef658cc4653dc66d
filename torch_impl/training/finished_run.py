"""A finished run: its model, its accuracy measured once more, and the classes of new examples."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from primal_dual.types import Float
from torch_impl.data.dataset import DataSet
from torch_impl.data.messages import Say
from torch_impl.training.base_recipe import Recipe
from torch_impl.training.distributed import this_process
from torch_impl.training.recipes import from_config
from torch_impl.training.runs import fold_of_seed
from torch_impl.training.trainer import accuracy


class Run(NamedTuple):
    """A finished run.

    Parameters
    ----------
    recipe : Recipe
        How it was trained.
    attention : str
        A name of the catalog.
    seed : int
        Of its random numbers.
    model : nn.Module
        In eval mode.
    data : dict
        `DataSet.described()` of the data set that it was trained on.
    """

    recipe: Recipe
    attention: str
    seed: int
    model: torch.nn.Module
    data: dict


def load_run(folder: Path | str) -> Run:
    """Load the model of a finished run.

    Parameters
    ----------
    folder : path
        The folder of the run, RUNS/DATA/ATTENTION/SEED.

    Raises
    ------
    ValueError
        For a run that is not finished, and for damaged files.
    """
    config_file, weights_file = Path(folder) / "config.json", Path(folder) / "model.safetensors"
    if not (config_file.exists() and weights_file.exists()):
        raise ValueError(f"{folder}: expected a finished run, RUNS/DATA/ATTENTION/SEED with model.safetensors")
    try:
        config = json.loads(config_file.read_text())
        with safe_open(weights_file, "pt") as file:
            description = json.loads(file.metadata()["data"])
        recipe = from_config(config["recipe"])
        model = recipe.model(description["sizes"], config["attention"])
        model.load_state_dict(load_file(weights_file))
    except (SafetensorError, KeyError, TypeError, RuntimeError, json.JSONDecodeError) as error:
        raise ValueError(f"{folder}: expected the config and weights of this program; got {error}") from error
    return Run(recipe, config["attention"], config["seed"], model.eval(), description)


def evaluate(folder: Path | str, data_folder: Path | str | None = None, say: Say = print) -> tuple[float, int]:
    """Test a finished run once more, from its weights, on the split that it was tested on.

    Parameters
    ----------
    folder : path
        The folder of the run.
    data_folder : path, optional
        The folder of data sets, as in training.
    say : callable
        Is called with messages about the progress of loading.

    Returns
    -------
    accuracy : float
        The fraction of the examples that are classified correctly.
    count : int
        The number of examples.

    Raises
    ------
    ValueError
        For another data set of the same name, and for what `load_run` and loading the data refuse.
    """
    run = load_run(folder)
    data = load_data_of_run(run, data_folder, say)
    if data.described() != run.data:
        expected = "expected the data set that it was trained on"
        raise ValueError(f"{folder}: {expected}; got another {run.recipe.name} in {data_folder}")
    world = this_process()
    return accuracy(run.recipe, run.model.to(world.device), data.test, data, world), len(data.test)


def load_data_of_run(run: Run, data_folder: Path | str | None, say: Say = print) -> DataSet:
    """What a run was trained and tested on: its data set, or one fold of it."""
    return fold_of_seed(run.recipe.load(data_folder, say), run.recipe, run.seed)


@torch.no_grad()
def predict(
    folder: Path | str, file: Path | str
) -> tuple[Float[torch.Tensor, "n classes"], list[str], Sequence[object]]:
    """Classify new examples by a finished run.

    Parameters
    ----------
    folder : path
        The folder of the run.
    file : path
        A .ts file, whose labels are not used; or an image, or a folder of images.

    Returns
    -------
    probabilities : tensor, (n, classes)
        One row an example.
    classes : list of str
        The names of the classes.
    names : sequence
        Those of the examples: their numbers, or their files.

    Raises
    ------
    ValueError
        For what `load_run` refuses, and for a file that is malformed or does not fit the model.
    """
    run = load_run(folder)
    inputs, key_mask, names = run.recipe.read(Path(file), run.data)
    logits = []
    for index in torch.arange(len(inputs)).split(256):
        prepared = run.recipe.prepare(inputs[index], run.data["mean"], run.data["deviation"])
        logits.append(run.model(prepared, None if key_mask is None else key_mask[index]))
    return torch.cat(logits).softmax(-1), run.data["classes"], names
