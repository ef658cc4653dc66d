"""The plan of experiments: what is trained for which claim, what it costs, and how much of it is done."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from primal_dual.primal import COMPARED
from torch_impl.training.recipes.base_recipe import Recipe
from torch_impl.training.recipes.benchmarks import SmallImageRecipe, recipe
from torch_impl.training.recipes.kinds import deciding_fields, to_config


@dataclass(frozen=True)
class Experiment:
    """Runs that a claim rests on.

    Parameters
    ----------
    claim : str
        What the runs are to show.
    data : str
        The name of a recipe.
    minutes : float or None
        What a run takes on one core of an AMD EPYC, as measured; None if it was not.
    variant : str
        What the changes are, in a few words.
    changes : mapping
        Fields of the recipe that are changed.
    attentions : tuple of str
        Names of the catalog.
    seeds : int
        The number of runs of each attention.
    needs_gpu : bool
        Whether it is left out without a GPU.

    Examples
    --------
    >>> Experiment("stability", "Handwriting", 0.8, "lr 0.008", {"lr": 0.008}).title
    'Handwriting, lr 0.008'
    """

    claim: str
    data: str
    minutes: float | None
    variant: str = ""
    changes: Mapping[str, Any] = field(default_factory=dict)
    attentions: tuple[str, ...] = COMPARED
    seeds: int = 5
    needs_gpu: bool = False

    @property
    def title(self) -> str:
        """The name of the recipe, and what is changed."""
        return f"{self.data}, {self.variant}" if self.variant else self.data

    @property
    def folder(self) -> str | None:
        """The name of the folder of its data; None for data that needs none."""
        return FOLDERS.get(self.data, self.data)

    @property
    def recipe(self) -> Recipe:
        """The recipe with its changes."""
        return recipe(self.data, **self.changes)

    @property
    def runs(self) -> int:
        """How many there are."""
        return len(self.attentions) * self.seeds

    def done(self, results: Sequence[Mapping[str, Any]]) -> set[tuple[str, int]]:
        """The attention and the seed of each of the runs that is among some results.

        Parameters
        ----------
        results : sequence of dict
            Those of `train`.
        """
        wanted = deciding_fields(to_config(self.recipe))
        return {
            (result["attention"], result["seed"])
            for result in results
            if result["attention"] in self.attentions and result["seed"] < self.seeds
            if result["recipe"]["name"] == self.data and deciding_fields(result["recipe"]) == wanted
        }


NO_DOWNLOAD = ("JapaneseVowels", "BasicMotions", "digits", "ListOps")
FOLDERS = dict.fromkeys(NO_DOWNLOAD) | {"Text": "imdb", "PixelCIFAR10": "cifar10"}  # of data sets, by recipe


def data_folder(experiment: Experiment, folders: Sequence[Path]) -> Path | None:
    """The first of some folders that holds the data of an experiment; None for data that needs none.

    Raises
    ------
    ValueError
        If no folder holds it.
    """
    name = experiment.folder
    if name is None:
        return folders[0] if folders else None
    for folder in folders:
        if (folder / name).is_dir():
            return folder
    raise ValueError(f"expected a folder {name} in --data; got none; see docs/how-to/train.md")


SMALL = {name: getattr(SmallImageRecipe, name) for name in SmallImageRecipe.__annotations__}
SHORT_CIFAR10 = SMALL | {"epochs": 10, "bf16": False}
SHORT_TEXT: dict[str, Any] = {"length": 512, "epochs": 5, "lr": 1e-3}
STEPS = {"convolutions": 0, "patch": 1, "norm": "batch", "pooling": "flatten", "mix": 0.0}
EIGHT = {"scales": "1 2 4 8"}
OVERSAMPLED = STEPS | EIGHT | {"oversample": 4, "noise": 4.0}  # an average of 4 steps has noise of 2
SERIES = {  # and the minutes of a run
    "JapaneseVowels": 0.42,
    "Handwriting": 0.83,
    "UWaveGestureLibrary": 0.68,
    "SelfRegulationSCP1": 0.42,
    "SpokenArabicDigits": 1.8,
}
FRAGILE = ("Handwriting", "UWaveGestureLibrary")  # two sets where softmax attention bears no large learning rate
STABLE = ("softmax", "bn", "sh", "qk-norm")
RATES = (0.016, 0.008, 0.004)  # beside the recipe's
REMEDIES: dict[str, dict[str, Any]] = {  # each at a learning rate at which softmax attention learns badly
    "decay 0.1": {"weight_decay": 0.1},
    "decay 1": {"weight_decay": 1.0},
    "warm-up 0.4": {"warm_up": 0.4},
    "bf16": {"bf16": True},
}


def _stability(data: str, variant: str, changes: Mapping[str, Any], attentions: tuple[str, ...] = STABLE) -> Experiment:
    return Experiment("stability", data, SERIES[data], variant, changes, attentions, seeds=3)


PLAN = [
    *(Experiment("accuracy", data, minutes) for data, minutes in SERIES.items()),
    *(_stability(data, f"lr {rate}", {"lr": rate}) for rate in RATES for data in SERIES),
    *(_stability(data, "qk-norm", {}, ("qk-norm",)) for data in SERIES),
    *(
        _stability(data, f"lr 0.008, {name}", {"lr": 0.008} | changes)
        for name, changes in REMEDIES.items()
        for data in FRAGILE
    ),
    *(
        _stability(data, f"lr 0.008, beta {beta}", {"lr": 0.008, "beta": beta}, ("bn",))
        for beta in (0.5, 1.0)
        for data in FRAGILE
    ),
    *(
        Experiment("accuracy", data, minutes, "learned beta", {"learn_beta": True}, ("bn",))
        for data, minutes in SERIES.items()
        if data != "SpokenArabicDigits"
    ),
    Experiment("accuracy", "fashion_mnist", 17, seeds=3),
    Experiment("accuracy", "cifar10", 13, "short", SHORT_CIFAR10, seeds=3),
    Experiment("accuracy", "tiny_imagenet_50", 11, seeds=3),
    Experiment("accuracy", "JapaneseVowels", 0.7, "steps as tokens", STEPS),
    *(
        Experiment("noise", "JapaneseVowels", 0.7, f"steps as tokens, noise {noise}", STEPS | {"noise": noise})
        for noise in (1.0, 2.0)
    ),
    Experiment("noise", "JapaneseVowels", 1.3, "steps as tokens, 4 times oversampled, noise 4.0", OVERSAMPLED),
    *(
        Experiment("noise", data, SERIES[data], f"noise {noise}", {"noise": noise})
        for noise in (0.5, 1.0)
        for data in FRAGILE
    ),
    Experiment("accuracy", "Handwriting", 2.5, "steps as tokens", STEPS),
    *(
        Experiment(
            "accuracy", data, minutes, "steps as tokens, scales 1 to 8", STEPS | EIGHT, ("softmax", "sh", "bn+sh")
        )
        for data, minutes in (("Handwriting", 2.5), ("UWaveGestureLibrary", 2.2), ("JapaneseVowels", 0.7))
    ),
    Experiment("accuracy", "Text", 55, "short", SHORT_TEXT, seeds=3),
    Experiment("accuracy", "UWaveGestureLibrary", 2.2, "steps as tokens", STEPS),
    Experiment("accuracy", "SelfRegulationSCP1", None, "steps as tokens", STEPS),
    Experiment("accuracy", "cifar10", None, needs_gpu=True),
    Experiment("accuracy", "ListOps", None, needs_gpu=True),
    Experiment("accuracy", "Text", None, needs_gpu=True),
    Experiment("accuracy", "PixelCIFAR10", None, needs_gpu=True),
]
