"""A small classifier, trained by autograd alone on scikit-learn's digits: an image's eight rows are its tokens."""

from collections.abc import Callable
from typing import Any

import autograd.numpy as np
from autograd import grad
from autograd.misc.optimizers import adam

from primal_dual.layers import Params, encoder, encoder_params
from primal_dual.primal import Heads, Primal, heads
from primal_dual.types import Array, Float, Int


def digits() -> tuple[Array, Array, Array, Array]:
    """scikit-learn's digits: (train tokens, train labels, test tokens, test labels), tokens (n, 8, 8) in [0, 1].

    A quarter is the test split, stratified, random_state 0.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    split = train_test_split(images.reshape(-1, 8, 8) / 16, labels, test_size=0.25, stratify=labels, random_state=0)
    return split[0], split[2], split[1], split[3]


def train(
    primal: str | Primal | Heads,
    tokens: Float[Array, "n N F"],
    labels: Int[Array, " n"],
    *,
    count: int = 4,
    width: int = 32,
    layers: int = 1,
    steps: int = 1000,
    batch: int = 64,
    rate: float = 3e-3,
    seed: int = 0,
    callback: Callable[[int], object] | None = None,
) -> Params:
    """Train an encoder by Adam on the cross-entropy.

    Parameters
    ----------
    primal : str, Primal or Heads
        The attention of each layer.
    tokens, labels : arrays
        The training split.
    count, width, layers : int
        Heads, width and layers of the encoder.
    steps, batch, rate : numbers
        Of Adam.
    seed : int
        Of the first weights and of the order of the examples.
    callback : function, optional
        Called with the number of each step after it.

    Returns
    -------
    dict
        The parameters of `encoder`.
    """
    rng = np.random.default_rng(seed)
    declared = heads(primal, count)
    start = encoder_params(
        rng,
        features=tokens.shape[-1],
        tokens=tokens.shape[-2],
        classes=int(labels.max()) + 1,
        heads=count,
        width=width,
        layers=layers,
    )
    chosen = rng.integers(len(labels), size=(steps, batch))

    def loss(params: Params, step: int) -> Any:
        logits = encoder(params, tokens[chosen[step]], declared)
        top = logits.max(axis=-1, keepdims=True)
        log_sum = np.log(np.exp(logits - top).sum(axis=-1)) + top[:, 0]
        return np.mean(log_sum - logits[np.arange(batch), labels[chosen[step]]])

    def after(params: Params, step: int, gradient: Params) -> None:
        if callback:
            callback(step)

    return adam(grad(loss), start, callback=after, num_iters=steps, step_size=rate)


def accuracy(
    params: Params,
    primal: str | Primal | Heads,
    tokens: Float[Array, "n N F"],
    labels: Int[Array, " n"],
    *,
    count: int = 4,
) -> float:
    """The fraction of the tokens that the encoder gives their label."""
    return float(np.mean(encoder(params, tokens, heads(primal, count)).argmax(axis=-1) == labels))
