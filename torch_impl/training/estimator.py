"""A transformer as a scikit-learn classifier of arrays: the recipes and the trainer behind `fit` and `predict`."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from safetensors import SafetensorError
from safetensors.torch import save
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, check_consistent_length, check_is_fitted, column_or_1d, validate_data

from primal_dual import checks
from primal_dual.io.files import write_bytes
from primal_dual.types import Float
from torch_impl.certificate import ModuleCertificates, certify_module
from torch_impl.data.arrays import expect_no_missing_label, series_of_arrays
from torch_impl.data.messages import first_names, one_line, say_nothing
from torch_impl.training.recipes.attentions import (
    Attention,
    attention_files,
    attention_text,
    find_attention,
    rebuild_attention,
)
from torch_impl.training.recipes.base_recipe import Recipe
from torch_impl.training.recipes.benchmarks import RECIPES, changed
from torch_impl.training.recipes.benchmarks import recipe as recipe_of
from torch_impl.training.recipes.kinds import ImageRecipe, SeriesRecipe, from_config, to_config
from torch_impl.training.runs.checkpoint import contiguous, metadata
from torch_impl.training.runs.distributed import this_process
from torch_impl.training.runs.run_folder import folder_of_run
from torch_impl.training.runs.trainer import train
from torch_impl.training.trained.finished_run import Run, classify, load_run, rebuild_model

CHANGES = ("patch", "epochs", "batch", "lr", "layers", "width", "num_heads")  # parameters that are fields of a recipe
FITTED = ("n_features_in_", "feature_names_in_")  # what scikit-learn keeps of X
_ONE_AT_A_TIME = Lock()  # the threads of a process share torch's random numbers


class AttentionClassifier(ClassifierMixin, BaseEstimator):
    """A transformer that classifies time series or images in arrays, with the attention of any primal.

    X is an array of time series, (n, channels, time) as aeon has it, or (n, time); a list of arrays (channels, time_i)
    whose lengths differ; or an array of images, (n, height, width, channels), bytes from 0 to 255. NaN is a missing
    value of a series. Source: arXiv 2406.13781.

    Parameters
    ----------
    attention : str, Primal or Heads
        A name of the catalog, or the primal of all heads, or one a head; or FILE.py:NAME, a primal in a Python file.
    recipe : str or Recipe, optional
        Where all other settings are from: the name of a benchmark, such as "JapaneseVowels" or "digits", or a
        `SeriesRecipe` or an `ImageRecipe` of `torch_impl.training.recipes.kinds`. By default the latter for X of four
        axes, else the former. Grey images without an axis of channels, (n, height, width), need a recipe for images.
    patch, epochs, batch, lr, layers, width, num_heads : optional
        Fields of the recipe that are changed.
    random_state : int, RandomState instance or None
        Of the initial weights and of training. An int is the seed of a run: on a CPU with as many threads, `fit`
        gives the same weights each time, to the bit.
    verbose : int
        1 for a progress bar.

    Attributes
    ----------
    classes_ : array, (classes,)
        The different labels, sorted.
    run_ : Run
        The model, `run_.model`, and the recipe that it was trained by, `run_.recipe`.
    n_features_in_ : int
        The number of channels; for X of two axes, that of time steps; of images, their height.

    Examples
    --------
    >>> X, y = np.random.default_rng(0).standard_normal((20, 3, 15)), ["a", "b"] * 10
    >>> model = AttentionClassifier("bn+sh", epochs=1, layers=1, width=16, random_state=0).fit(X, y)
    >>> model.predict_proba(X).shape, model.predict(X)[0] in ("a", "b")
    ((20, 2), True)
    """

    def __init__(
        self,
        attention: Attention = "softmax",
        recipe: str | Recipe | None = None,
        *,
        patch: int | None = None,
        epochs: int | None = None,
        batch: int | None = None,
        lr: float | None = None,
        layers: int | None = None,
        width: int | None = None,
        num_heads: int | None = None,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.attention = attention
        self.recipe = recipe
        self.patch = patch
        self.epochs = epochs
        self.batch = batch
        self.lr = lr
        self.layers = layers
        self.width = width
        self.num_heads = num_heads
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any) -> "AttentionClassifier":
        """Train on examples X and their labels y (n,).

        Raises
        ------
        ValueError
            For X of another shape, labels that are missing or of one class, and settings that no recipe takes.
        """
        X, y = self._checked_input(X, reset=True), _checked_labels(y)
        check_consistent_length(X, y)
        self.classes_, index = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y: expected two classes or more; got one class, {self.classes_[0]}")
        recipe, seed, labels = self._chosen_recipe(X), self._seed(), index.tolist()
        data = recipe.from_arrays(X, labels, X, labels, say_nothing)  # the trainer's test accuracy is not used
        recipe, attention = recipe.resolve_defaults(data), find_attention(self.attention)
        self._attention_files = attention_files(attention)
        with _ONE_AT_A_TIME, _ordinary_training(), TemporaryDirectory() as folder, self._progress(recipe.epochs) as say:
            train(recipe, attention, seed, data, folder, say)
            self.run_ = load_run(folder_of_run(folder, data.name, attention_text(attention), seed))
        return self

    def predict_proba(self, X: Any) -> Float[np.ndarray, "n classes"]:
        """The probability of each class.

        Raises
        ------
        ValueError
            For other channels or longer series than in training, and for images of another size.
        """
        inputs, key_mask = self._inputs(X)
        return classify(self.run_, inputs, key_mask).numpy()

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class of each example, (n,)."""
        best = self.predict_proba(X).argmax(axis=1)
        return self.classes_[best]

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The fraction of examples whose label is predicted, each with its weight.

        Raises
        ------
        ValueError
            For labels that do not occur in training, and for what `predict` refuses.
        """
        check_is_fitted(self)
        y = _checked_labels(y)
        unseen = sorted({*y.tolist()} - {*self.classes_.tolist()}, key=str)
        if unseen:
            expected = f"expected labels of the training, {first_names(self.classes_.tolist())}"
            raise ValueError(f"y: {expected}; got {first_names(unseen)}")
        return super().score(X, y, sample_weight)

    def certify(self, X: Any) -> ModuleCertificates:
        """Certify every head of every layer for each example of X; see `torch_impl.certify_module`."""
        inputs, key_mask = self._inputs(X)
        return certify_module(self.run_.model, (self.run_.prepare(inputs), key_mask))

    def save(self, path: Path | str) -> None:
        """Write the fitted classifier to a safetensors file, whole or not at all."""
        check_is_fitted(self)
        run = self.run_
        config = {"recipe": to_config(run.recipe), "attention": run.attention, "seed": run.seed, "data": run.data}
        config |= {"attention_files": self._attention_files}
        dates = self.classes_.dtype.kind in "mM"
        classes = self.classes_.astype(np.int64) if dates else self.classes_
        config |= {"classes": classes.tolist(), "dtype": self.classes_.dtype.str}
        config |= {name: np.asarray(getattr(self, name)).tolist() for name in FITTED if hasattr(self, name)}
        content = save(contiguous(run.model.state_dict()), {"classifier": json.dumps(config)})
        write_bytes(path, content)

    @classmethod
    def load(cls, path: Path | str) -> "AttentionClassifier":
        """Read a classifier that `save` wrote. Fitted anew, it would be trained as it was.

        Raises
        ------
        ValueError
            For a file that is missing, damaged or another.
        """
        if not Path(path).is_file():
            raise ValueError(f"{path}: expected a file that AttentionClassifier.save wrote; got none")
        content = Path(path).read_bytes()
        try:
            config = json.loads(metadata(content)["classifier"])
            recipe = from_config(config["recipe"], path)
            attention = rebuild_attention(config["attention"], config["attention_files"])
            model = rebuild_model(Path(path), content, recipe, attention, config["data"]["sizes"])
        except (SafetensorError, KeyError, TypeError, RuntimeError, json.JSONDecodeError) as error:
            got = one_line(error)
            raise ValueError(f"{path}: expected a file that AttentionClassifier.save wrote; got {got}") from error
        classifier = cls(attention, recipe, random_state=config["seed"])
        classifier.classes_ = np.array(config["classes"], np.dtype(config["dtype"]))
        classifier._attention_files = config["attention_files"]
        classifier.run_ = Run(recipe, config["attention"], config["seed"], model, config["data"], {})
        for name in FITTED:
            if name in config:
                setattr(classifier, name, np.array(config[name])[()])
        return classifier

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = tags.input_tags.allow_nan = True
        return tags

    def _inputs(self, X: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
        """New examples as the model takes them, but not yet standardised, and their padding mask."""
        check_is_fitted(self)
        return self.run_.recipe.new_arrays(self._checked_input(X, reset=False), self.run_.data)

    def _checked_input(self, X: Any, reset: bool) -> Any:
        """X as scikit-learn checks it, which would lose masks; series whose lengths differ stay a list."""
        expected = "arrays with NaN for a missing value"
        checks.expect_no_mask("X", X, expected)
        if isinstance(X, list | tuple) or (isinstance(X, np.ndarray) and X.ndim == 1 and X.dtype == object):
            X = list(X)
            for x in X:
                checks.expect_no_mask("X", x, expected)
            if not X or _lengths_differ(X):
                series = series_of_arrays("X", X)
                if reset:
                    self.n_features_in_ = series[0].shape[1]
                return X
        return validate_data(self, X, reset=reset, allow_nd=True, ensure_all_finite="allow-nan")

    def _chosen_recipe(self, X: Any) -> Recipe:
        recipe = self.recipe
        if isinstance(recipe, str) and recipe in RECIPES:
            recipe = recipe_of(recipe)
        elif recipe is None:
            recipe = ImageRecipe("X") if np.ndim(X[0]) == 3 else SeriesRecipe("X")
        elif not isinstance(recipe, Recipe):
            raise ValueError(f"recipe: expected a Recipe or one of {', '.join(RECIPES)}; got {recipe!r}")
        chosen = {name: getattr(self, name) for name in CHANGES}
        return changed(recipe, **{name: value for name, value in chosen.items() if value is not None})

    def _seed(self) -> int:
        if isinstance(self.random_state, int | np.integer):
            checks.integer("random_state", self.random_state, 0)
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(2**31))

    @contextmanager
    def _progress(self, epochs: int) -> Iterator[Callable[[Any], object]]:
        """What the trainer tells the lines of its log to: a progress bar on standard error, if there shall be one."""
        with Progress(console=Console(stderr=True), transient=True, disable=not self.verbose) as progress:
            task = progress.add_task(str(self.attention), total=epochs)
            yield lambda line: progress.update(task, completed=line["epoch"], description=f"loss {line['loss']:.3f}")


@contextmanager
def _ordinary_training() -> Iterator[None]:
    """Training has gradients and float32, whatever calls it, and leaves torch's random numbers as they were."""
    dtype, no_autocast = torch.get_default_dtype(), torch.autocast(this_process().device.type, enabled=False)
    with torch.random.fork_rng(), torch.inference_mode(False), torch.enable_grad(), no_autocast:
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)


def _lengths_differ(X: list[Any]) -> bool:
    try:
        np.array(X)
    except ValueError:
        return True
    return False


def _checked_labels(y: Any) -> np.ndarray:
    """Labels (n,), none of them missing, as scikit-learn checks them."""
    expected = "a label for each example"
    checks.expect_no_mask("y", y, expected)
    expect_no_missing_label(f"y: expected {expected}", np.asarray(y).ravel().tolist())
    if np.asarray(y).ndim == 0:
        raise ValueError(f"AttentionClassifier requires y to be passed, but the target y is {y}")
    y = check_array(y, ensure_2d=False, dtype=None, input_name="y", estimator="AttentionClassifier")
    y = column_or_1d(y, warn=True)
    types = sorted({type(label).__name__ for label in y.tolist()})
    if len(types) > 1:
        raise ValueError(f"y: expected labels that can be sorted; got {' and '.join(types)}")
    check_classification_targets(y)
    return y
