"""A finished run: its model, its accuracy measured once more, and the classes of new examples."""

import hashlib
from collections.abc import Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from primal_dual.types import Bool, Float, Num
from torch_impl.data.dataset import DataSet
from torch_impl.data.messages import Say, one_line
from torch_impl.training.recipes.attentions import Attention, rebuild_attention
from torch_impl.training.recipes.base_recipe import Recipe
from torch_impl.training.recipes.kinds import from_config
from torch_impl.training.runs.checkpoint import metadata
from torch_impl.training.runs.distributed import this_process
from torch_impl.training.runs.memory import expect_to_fit
from torch_impl.training.runs.run_files import Config, Description, Result, parse_json, read_json
from torch_impl.training.runs.schedule import fold_of_seed
from torch_impl.training.runs.trainer import accuracy
from torch_impl.training.trained.pretrained_models import PREFIX, folder_of_pretrained

FILES = ("config.json", "result.json", "model.safetensors")


class Run(NamedTuple):
    """A finished run.

    Parameters
    ----------
    recipe : Recipe
        How it was trained.
    attention : str
        A name of the catalog, or the text of a primal.
    seed : int
        Of its random numbers.
    model : nn.Module
        In eval mode.
    data : dict
        `DataSet.described()` of the data set that it was trained on.
    result : dict
        What `train` returned: test_accuracy, the machine, and more.
    """

    recipe: Recipe
    attention: str
    seed: int
    model: torch.nn.Module
    data: dict
    result: dict

    @property
    def classes(self) -> list[str]:
        """The names of the classes, in the order of the model's outputs."""
        return self.data["classes"]

    def prepare(self, inputs: Num[torch.Tensor, "n ..."]) -> Num[torch.Tensor, "n ..."]:
        """Inputs of a data set as the model takes them: images are standardised."""
        return self.recipe.prepare(inputs, self.data["mean"], self.data["deviation"])


def load_run(folder: Path | str) -> Run:
    """Load the model of a finished run.

    Parameters
    ----------
    folder : path
        The folder of the run, RUNS/DATA/ATTENTION/SEED; or "pretrained:DATA/ATTENTION", see `load_pretrained`.

    Raises
    ------
    ValueError
        For a run that is not finished, and for damaged files.
    """
    name = str(folder).replace("\\", "/")  # as Windows writes a path
    folder = folder_of_pretrained(name.removeprefix(PREFIX)) if name.startswith(PREFIX) else Path(folder)
    config_file, result_file, weights_file = (folder / name for name in FILES)
    if not (config_file.exists() and result_file.exists() and weights_file.exists()):
        raise ValueError(f"{folder}: expected a finished run, RUNS/DATA/ATTENTION/SEED with {', '.join(FILES)}")
    try:
        config, result = read_json(config_file, Config), read_json(result_file, Result)
        content = weights_file.read_bytes()
        _check_weights(weights_file, content, result.get("weights_sha256"))
        description = parse_json(str(weights_file), metadata(content)["data"], Description)
        recipe = from_config(config["recipe"], config_file)
        attention = rebuild_attention(config["attention"], config.get("attention_files", {}))
        model = rebuild_model(weights_file, content, recipe, attention, description["sizes"])
    except (SafetensorError, KeyError, TypeError, RuntimeError) as error:
        got = one_line(error)
        raise ValueError(f"{folder}: expected the config and weights of this program; got {got}") from error
    _check_configuration(folder, config, result)
    return Run(recipe, config["attention"], config["seed"], model, description, result)


def rebuild_model(
    file: Path, content: bytes, recipe: Recipe, attention: Attention, sizes: dict[str, Any]
) -> torch.nn.Module:
    """A model in eval mode, with the weights in the content of a safetensors file.

    Raises
    ------
    ValueError
        For a model that does not fit into memory, and for weights that are not finite.
    SafetensorError, RuntimeError
        For another file, and for the weights of another model.
    """
    make = partial(recipe.model, sizes, attention)
    expect_to_fit(make, torch.device("cpu"))
    model = make().float()  # whatever torch's default is
    model.load_state_dict(load(content))
    if not all(x.isfinite().all() for x in model.state_dict().values()):
        raise ValueError(f"{file}: expected finite weights; got some that are not")
    return model.eval()


def load_pretrained(data: str, attention: str = "softmax") -> Run:
    """A trained model that comes with the package.

    Parameters
    ----------
    data : str
        The name of the data set.
    attention : str
        A name of the catalog.

    Returns
    -------
    Run
        Its `model` is in eval mode, `prepare` standardises inputs, `classes` are the names of the classes, and `result`
        has the test accuracy.

    Raises
    ------
    ValueError
        For a model that does not come with the package, and for damaged files.

    Examples
    --------
    >>> run = load_pretrained("JapaneseVowels", "bn+sh")
    >>> run.model(torch.randn(2, 29, 12), None).shape, run.classes[:3]
    (torch.Size([2, 9]), ['1', '2', '3'])
    """
    return load_run(f"{PREFIX}{data}/{attention}")


def evaluate(folder: Path | str, data_folder: Path | str | None = None, say: Say = print) -> tuple[float, int]:
    """Test a finished run once more, from its weights, on the split that it was tested on.

    Parameters
    ----------
    folder : path
        As in `load_run`.
    data_folder : path, optional
        The folder of data sets, as in training.
    say : callable
        Is called with messages about the progress of loading, and with one if the accuracy is another than it was.

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
    share = test_accuracy(run, data)
    if share != run.result["test_accuracy"]:
        say(f"when it was trained, the test accuracy was {100 * run.result['test_accuracy']:.2f}")
    return share, len(data.test)


def test_accuracy(run: Run, data: DataSet) -> float:
    """The fraction of the test split that the model of a run classifies correctly."""
    world = this_process()
    return accuracy(run.recipe, run.model.to(world.device), data.test, data, world)


def load_data_of_run(run: Run, data_folder: Path | str | None, say: Say = print) -> DataSet:
    """What a run was trained and tested on: its data set, or one fold of it.

    Raises
    ------
    ValueError
        For another data set of the same name.
    """
    data = fold_of_seed(run.recipe.load(data_folder, say), run.recipe, run.seed)
    then, now = run.result.get("fingerprint"), data.fingerprint()
    if data.described() != run.data or then not in (None, now):
        expected = f"expected the data that the run was trained on, {then or 'of other sizes, classes or means'}"
        raise ValueError(f"{run.recipe.name}: {expected}; got {now} in {data_folder}")
    return data


def predict(
    folder: Path | str, file: Path | str
) -> tuple[Float[torch.Tensor, "n classes"], list[str], Sequence[object]]:
    """Classify new examples by a finished run.

    Parameters
    ----------
    folder : path
        As in `load_run`.
    file : path
        A .ts file, whose labels are not used; a .npz file with X; a .csv file, one case a row, without labels; or an
        image, or a folder of images.

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
    return classify(run, inputs, key_mask), run.classes, names


@torch.no_grad()
def classify(
    run: Run, inputs: Num[torch.Tensor, "n ..."], key_mask: Bool[torch.Tensor, "n N"] | None
) -> Float[torch.Tensor, "n classes"]:
    """The probability of each class for examples as `Recipe.read` or `Recipe.new_arrays` returns them.

    They are computed on a GPU if there is one; the model of the run stays where it is.
    """
    device, logits = this_process().device, []
    model = run.model if device.type == "cpu" else deepcopy(run.model).to(device)
    with torch.autocast(device.type, enabled=False):
        for index in torch.arange(len(inputs)).split(256):
            mask = None if key_mask is None else key_mask[index].to(device)
            logits.append(model(run.prepare(inputs[index].to(device)), mask).cpu())
    return torch.cat(logits).softmax(-1)


def _check_configuration(folder: Path, config: Config, result: Result) -> None:
    """ValueError if the configuration is not that of the result."""
    for name, value in config.items():
        if result.get(name) != value:
            raise ValueError(f"{folder}: expected one {name}; got another in config.json than in result.json")


def _check_weights(file: Path, content: bytes, expected: str | None) -> None:
    """ValueError if the weights are not those of the result. Runs of older versions have no hash."""
    found = hashlib.sha256(content).hexdigest()
    if expected not in (None, found):
        raise ValueError(f"{file}: expected weights of SHA-256 {expected}, by result.json; got {found}: it is damaged")
