"""A self-attention layer and a small transformer encoder, as functions of a parameter dictionary."""

import autograd.numpy as np
from autograd.tracer import getval

from primal_dual import checks
from primal_dual.expansion import attention
from primal_dual.primal import Heads


def self_attention(params, x, primal, key_mask=None):
    """x + sum_s f^s(x W_Q^s) W_O^s, with f^s head s's attention to x W_K^s and x W_V^s: (..., N, E) -> (..., N, E).

    params: W_Q, W_K, W_V (E, H Dh) and W_O (H Dh, E), of which head s has the s-th block of Dh columns, or rows of W_O;
    H = 1 for a Primal, else the number of Heads. key_mask (..., N): True = a real token. In the SVR the residual x is
    a known offset of the target: the layer's output y is the target y - x of the expansion.

    Raises ValueError for a missing parameter, shapes that do not fit, and what `attention` refuses. Source: arXiv
    2406.13781.
    """
    x = checks.array("x", x, "N E")
    H = len(primal) if isinstance(primal, Heads) else 1
    shapes = {name: _shape(params, name) for name in ("W_Q", "W_K", "W_V", "W_O")}
    wide, deep, E = shapes["W_Q"][-1], shapes["W_V"][-1], x.shape[-1]
    fitting = {"W_Q": (E, wide), "W_K": (E, wide), "W_V": (E, deep), "W_O": (deep, E)}
    for name, shape in fitting.items():
        if shapes[name] != shape or not wide or not deep or wide % H or deep % H:
            expected = f"(E, H Dh), W_O (H Dh, E), with E = {E} and H = {H}"
            raise ValueError(f"{name}: expected {expected}; got {', '.join(f'{n} {s}' for n, s in shapes.items())}")
    q, k, v = (_split(x @ params[name], H) for name in ("W_Q", "W_K", "W_V"))
    heads = primal if isinstance(primal, Heads) else Heads(primal)
    f = np.swapaxes(attention(heads, q, k, v, key_mask, query_mask=key_mask), -2, -3)
    return x + f.reshape((*f.shape[:-2], -1)) @ params["W_O"]


def encoder(params, tokens, primal, key_mask=None):
    """A post-norm transformer encoder: tokens (..., N, F) -> logits (..., classes), from the mean over real tokens.

        x = tokens W_E + b_E + P;   x = norm(x + attention);   x = norm(x + relu(x W_1 + b_1) W_2 + b_2), a layer each

    params: as `encoder_params` makes them. key_mask (..., N): True = a real token. Raises ValueError for more tokens
    than positions P, a missing parameter, and what `self_attention` refuses.
    """
    tokens = checks.array("tokens", tokens, "N F")
    N, positions, F = tokens.shape[-2], _shape(params, "P")[0], _shape(params, "W_E")[0]
    missing = {"b_E", "layers", "W", "b"} - set(params)
    if missing:
        raise ValueError(f"params: expected those of encoder_params; got none named {', '.join(sorted(missing))}")
    if positions < N or tokens.shape[-1] != F:
        raise ValueError(f"tokens: expected (..., N <= {positions}, {F}); got {tokens.shape}")
    x = tokens @ params["W_E"] + params["b_E"] + params["P"][:N]
    for layer in params["layers"]:
        x = _norm(self_attention(layer, x, primal, key_mask))
        x = _norm(x + np.maximum(x @ layer["W_1"] + layer["b_1"], 0) @ layer["W_2"] + layer["b_2"])
    valid = checks.mask("key_mask", key_mask, N)
    share = valid / valid.sum(axis=-1, keepdims=True)
    return (share[..., None, :] @ x)[..., 0, :] @ params["W"] + params["b"]


def encoder_params(rng, *, features, tokens, classes, heads=1, width=32, layers=1):
    """Random parameters of an encoder for at most `tokens` tokens of `features` numbers each; rng: numpy Generator.

    W_E (features, width), b_E, P (tokens, width); layers of W_Q, W_K, W_V, W_O (width, width), W_1 (width, 2 width),
    b_1, W_2 (2 width, width), b_2; W (width, classes), b. Raises ValueError for a width that is no multiple of `heads`.
    """
    if width % heads:
        raise ValueError(f"width: expected a multiple of {heads} heads; got {width}")

    def normal(rows, columns):
        return rng.standard_normal((rows, columns)) / np.sqrt(rows)

    def layer():
        return {name: normal(width, width) for name in ("W_Q", "W_K", "W_V", "W_O")} | {
            "W_1": normal(width, 2 * width),
            "b_1": np.zeros(2 * width),
            "W_2": normal(2 * width, width),
            "b_2": np.zeros(width),
        }

    return {
        "W_E": normal(features, width),
        "b_E": np.zeros(width),
        "P": 0.1 * rng.standard_normal((tokens, width)),
        "layers": [layer() for _ in range(layers)],
        "W": normal(width, classes),
        "b": np.zeros(classes),
    }


def _shape(params, name):
    try:
        shape = np.shape(getval(params[name]))
    except (KeyError, TypeError) as error:
        raise ValueError(f"params: expected a dictionary with {name}; got none") from error
    if len(shape) != 2:
        raise ValueError(f"{name}: expected a matrix; got shape {shape}")
    return shape


def _split(x, H):
    return np.swapaxes(x.reshape((*x.shape[:-1], H, -1)), -2, -3)


def _norm(x):
    x = x - np.mean(x, axis=-1, keepdims=True)
    return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + 1e-5)
