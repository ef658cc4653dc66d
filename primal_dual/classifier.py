"""A small classifier, trained by autograd alone on scikit-learn's digits: an image's eight rows are its tokens."""

from typing import Any

import autograd.numpy as np
from autograd import grad
from autograd.misc.optimizers import adam

from primal_dual.layers import Params, encoder, encoder_params
from primal_dual.primal import Heads, Primal, heads
from primal_dual.types import Array, Float, Int

BATCH, RATE = 64, 3e-3  # of Adam


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
    steps: int = 1000,
) -> Params:
    """Train an encoder by Adam on the cross-entropy.

    Parameters
    ----------
    primal : str, Primal or Heads
        The attention of each layer.
    tokens, labels : arrays
        The training split.
    count : int
        The number of heads of the encoder, which has one layer.
    steps : int
        Of Adam.

    Returns
    -------
    dict
        The parameters of `encoder`.
    """
    rng = np.random.default_rng(0)
    declared = heads(primal, count)
    sizes = dict(features=tokens.shape[-1], tokens=tokens.shape[-2], classes=int(labels.max()) + 1, heads=count)
    start = encoder_params(rng, **sizes)
    chosen = rng.integers(len(labels), size=(steps, BATCH))

    def loss(params: Params, step: int) -> Any:
        logits = encoder(params, tokens[chosen[step]], declared)
        top = logits.max(axis=-1, keepdims=True)
        log_sum = np.log(np.exp(logits - top).sum(axis=-1)) + top[:, 0]
        return np.mean(log_sum - logits[np.arange(BATCH), labels[chosen[step]]])

    return adam(grad(loss), start, num_iters=steps, step_size=RATE)


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
