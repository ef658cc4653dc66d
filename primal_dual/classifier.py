"""A small classifier, trained by autograd alone on scikit-learn's digits: an image's eight rows are its tokens."""

import autograd.numpy as np
from autograd import grad
from autograd.misc.optimizers import adam

from primal_dual.layers import encoder, encoder_params
from primal_dual.primal import heads


def digits():
    """scikit-learn's digits: (train tokens, train labels, test tokens, test labels), tokens (n, 8, 8) in [0, 1].

    A quarter is the test split, stratified, random_state 0.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    split = train_test_split(images.reshape(-1, 8, 8) / 16, labels, test_size=0.25, stratify=labels, random_state=0)
    return split[0], split[2], split[1], split[3]


def train(
    primal, tokens, labels, *, count=4, width=32, layers=1, steps=1000, batch=64, rate=3e-3, seed=0, callback=None
):
    """Train an encoder of `count` heads on tokens (n, N, F) and labels (n,) by Adam on the cross-entropy -> params.

    primal: a catalog name, a Primal or Heads. callback(step): called after every step.
    """
    rng = np.random.default_rng(seed)
    declared = heads(primal, count)
    start = encoder_params(
        rng,
        features=tokens.shape[-1],
        tokens=tokens.shape[-2],
        classes=labels.max() + 1,
        heads=count,
        width=width,
        layers=layers,
    )
    chosen = rng.integers(len(labels), size=(steps, batch))

    def loss(params, step):
        logits = encoder(params, tokens[chosen[step]], declared)
        top = logits.max(axis=-1, keepdims=True)
        log_sum = np.log(np.exp(logits - top).sum(axis=-1)) + top[:, 0]
        return np.mean(log_sum - logits[np.arange(batch), labels[chosen[step]]])

    after = callback and (lambda params, step, gradient: callback(step))
    return adam(grad(loss), start, callback=after, num_iters=steps, step_size=rate)


def accuracy(params, primal, tokens, labels, *, count=4):
    """The share of tokens (n, N, F) that the encoder gives their label (n,)."""
    return float(np.mean(encoder(params, tokens, heads(primal, count)).argmax(axis=-1) == labels))
