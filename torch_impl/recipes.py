"""Recipes: how a model is trained on a data set, the same for every attention."""

from dataclasses import dataclass, fields, replace


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run, but the attention and the seed.

    With folds = k, seed s trains on the training split without its fold s mod k, and is tested on that fold: so a
    recipe is tuned without the test split.
    """

    name: str
    epochs: int = 60
    batch: int = 16
    lr: float = 1e-3
    weight_decay: float = 1e-2
    warm_up: float = 0.1  # share of the steps
    label_smoothing: float = 0.1
    clip: float = 4.0  # largest norm of the gradient
    dropout: float = 0.1
    layers: int = 3
    width: int = 128
    num_heads: int = 8
    feedforward: int = 256
    norm: str = "batch"
    warp: float = 0.0
    scale: float = 0.0
    jitter: float = 0.0
    beta: float = 1.0  # of Attention-BN
    folds: int = 0

    @property
    def model(self):
        """The fields that make the model."""
        names = ("layers", "width", "num_heads", "feedforward", "dropout", "norm")
        return {name: getattr(self, name) for name in names}


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("JapaneseVowels", epochs=100, dropout=0.3, warp=0.2, scale=0.1, jitter=0.1, beta=0.5),
        Recipe("Handwriting", epochs=100, warp=0.5, jitter=0.05),
        Recipe("UWaveGestureLibrary", epochs=100, warp=0.3, jitter=0.05),
        Recipe("SelfRegulationSCP1", epochs=10),
        Recipe("SpokenArabicDigits", epochs=20, batch=64),
    )
}


def recipe(name, **changes):
    """The recipe of a name, or the default one for another data set, with some fields changed.

    Raises ValueError for a field that no recipe has, or a value of another type.
    """
    chosen = RECIPES.get(name, Recipe(name))
    types = {field.name: field.type for field in fields(Recipe)}
    for field, value in changes.items():
        if field not in types or field == "name":
            raise ValueError(f"{field}: expected a field of the recipe, one of {', '.join(list(types)[1:])}")
        try:
            changes[field] = types[field](value)
        except ValueError as error:
            raise ValueError(f"{field}: expected {types[field].__name__}; got {value!r}") from error
    return replace(chosen, **changes)
