"""A self-attention layer and a small transformer encoder, as functions of a parameter dictionary."""

from typing import Any

import autograd.numpy as np
from autograd.tracer import getval

from primal_dual import checks
from primal_dual.expansion import attention
from primal_dual.primal import Heads, Primal
from primal_dual.types import Array, Bool, Float, Num

Params = Any  # a dictionary by name, or the box of one that autograd makes


def self_attention(
    params: Params,
    x: Num[Array, "... N E"],
    primal: Primal | Heads,
    key_mask: Bool[Array, "... N"] | None = None,
) -> Float[Array, "... N E"]:
    """Multi-head self-attention with a residual connection: x + sum_s f^s(x W_Q^s) W_O^s.

    f^s is head s's attention to the keys x W_K^s and the values x W_V^s. In its SVR the residual x is a known offset of
    the target: if the layer's output is to be y, the expansion is fitted to y - x.
    Source: arXiv 2406.13781; tutorial 3.

    Parameters
    ----------
    params : dict
        W_Q, W_K, W_V (E, H Dh) and W_O (H Dh, E). Head s has the s-th block of Dh columns, or rows of W_O.
    x : array
        Tokens of width E.
    primal : Primal or Heads
        H = 1 for a Primal, else the number of Heads.
    key_mask : array of booleans, optional
        True for a valid token, False for padding.

    Raises
    ------
    ValueError
        For a missing parameter, shapes that do not fit, and what `attention` refuses.

    Examples
    --------
    >>> params = {name: np.eye(2) for name in ("W_Q", "W_K", "W_V", "W_O")}
    >>> self_attention(params, np.ones((3, 2)), Primal()).tolist()
    [[2.0, 2.0], [2.0, 2.0], [2.0, 2.0]]
    """
    x = checks.array("x", x, "N E")
    heads = primal if isinstance(primal, Heads) else Heads(primal)
    H = len(heads)
    check_projections({name: _shape(params, name) for name in ("W_Q", "W_K", "W_V", "W_O")}, x.shape[-1], H)
    q, k, v = (_split(x @ params[name], H) for name in ("W_Q", "W_K", "W_V"))
    f = np.swapaxes(attention(heads, q, k, v, key_mask, query_mask=key_mask), -2, -3)
    return x + f.reshape((*f.shape[:-2], -1)) @ params["W_O"]


def encoder(
    params: Params,
    tokens: Num[Array, "... N F"],
    primal: Primal | Heads,
    key_mask: Bool[Array, "... N"] | None = None,
) -> Float[Array, "... classes"]:
    """A transformer encoder with a norm after each branch: tokens to logits, from the mean over the valid tokens.

        x = tokens W_E + b_E + P
        x = norm(x + attention);   x = norm(x + relu(x W_1 + b_1) W_2 + b_2)    in each layer
        logits = mean(x) W + b

    Parameters
    ----------
    params : dict
        As `encoder_params` makes them.
    tokens : array
        At most as many as positions P.
    primal : Primal or Heads
        Of every layer.
    key_mask : array of booleans, optional
        True for a valid token, False for padding.

    Raises
    ------
    ValueError
        For more tokens than positions, a missing parameter, and what `self_attention` refuses.

    Examples
    --------
    >>> params = encoder_params(np.random.default_rng(0), features=3, tokens=5, classes=2)
    >>> encoder(params, np.ones((4, 5, 3)), Primal()).shape
    (4, 2)
    """
    tokens = checks.array("tokens", tokens, "N F")
    N, positions, F = tokens.shape[-2], _shape(params, "P")[0], _shape(params, "W_E")[0]
    check_encoder(params, tokens.shape, positions, F)
    x = tokens @ params["W_E"] + params["b_E"] + params["P"][:N]
    for layer in params["layers"]:
        x = _norm(self_attention(layer, x, primal, key_mask))
        check_feedforward(layer, x.shape[-1])
        x = _norm(x + np.maximum(x @ layer["W_1"] + layer["b_1"], 0) @ layer["W_2"] + layer["b_2"])
    valid = checks.mask("key_mask", key_mask, N)
    weights = valid / valid.sum(axis=-1, keepdims=True)
    return (weights[..., None, :] @ x)[..., 0, :] @ params["W"] + params["b"]


def encoder_params(
    rng: Any, *, features: int, tokens: int, classes: int, heads: int = 1, width: int = 32, layers: int = 1
) -> Params:
    """Random parameters of an encoder for at most `tokens` tokens of `features` numbers each.

    Parameters
    ----------
    rng : numpy.random.Generator
        Where the numbers come from.
    features, tokens, classes, heads, width, layers : int
        The sizes.

    Returns
    -------
    dict
        W_E (features, width), b_E, P (tokens, width); a list `layers` of W_Q, W_K, W_V, W_O (width, width),
        W_1 (width, 2 width), b_1, W_2 (2 width, width), b_2; W (width, classes), b.

    Raises
    ------
    ValueError
        For a size below 1, and a width that is no multiple of `heads`.
    """
    sizes = dict(features=features, tokens=tokens, classes=classes, heads=heads, width=width, layers=layers)
    for name, size in sizes.items():
        checks.integer(name, size, 1)
    if width % heads:
        raise ValueError(f"width: expected a multiple of {heads} heads; got {width}")

    def normal(rows: int, columns: int) -> Float[Array, "rows columns"]:
        return rng.standard_normal((rows, columns)) / np.sqrt(rows)

    def layer() -> Params:
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


def check_projections(shapes: dict[str, tuple[int, ...]], E: int, H: int) -> None:
    """ValueError for shapes of W_Q, W_K, W_V, W_O that do not fit a width E and a number H of heads."""
    wide, deep = shapes["W_Q"][-1], shapes["W_V"][-1]
    fitting = {"W_Q": (E, wide), "W_K": (E, wide), "W_V": (E, deep), "W_O": (deep, E)}
    for name, shape in fitting.items():
        if shapes[name] != shape or not wide or not deep or wide % H or deep % H:
            expected = f"(E, H Dh), W_O (H Dh, E), with E = {E} and H = {H}"
            raise ValueError(f"{name}: expected {expected}; got {', '.join(f'{n} {s}' for n, s in shapes.items())}")


def check_encoder(params: Params, shape: tuple[int, ...], positions: int, F: int) -> None:
    """ValueError for parameters without some of an encoder's, and for tokens of a shape that does not fit them."""
    missing = {"b_E", "layers", "W", "b"} - set(params)
    if missing:
        raise ValueError(f"params: expected those of encoder_params; got none named {', '.join(sorted(missing))}")
    if positions < shape[-2] or shape[-1] != F:
        raise ValueError(f"tokens: expected (..., N <= {positions}, {F}); got {shape}")


def check_feedforward(layer: Params, E: int) -> None:
    """ValueError for W_1 and W_2 that do not fit a width E, and biases that do not fit them."""
    names = ("W_1", "b_1", "W_2", "b_2")
    shapes = {name: tuple(np.shape(getval(layer[name]))) if name in layer else None for name in names}
    F = shapes["b_1"] or (0, 0)
    if len(F) != 1 or tuple(shapes.values()) != ((E, *F), F, (*F, E), (E,)):
        raise ValueError(f"params: expected W_1 (E, F), b_1 (F,), W_2 (F, E), b_2 (E,), with E = {E}; got {shapes}")


def _shape(params: Params, name: str) -> tuple[int, ...]:
    try:
        shape = np.shape(getval(params[name]))
    except (KeyError, TypeError) as error:
        raise ValueError(f"params: expected a dictionary with {name}; got none") from error
    if len(shape) != 2:
        raise ValueError(f"{name}: expected a matrix; got shape {shape}")
    return shape


def _split(x: Float[Array, "... N width"], H: int) -> Float[Array, "... H N Dh"]:
    return np.swapaxes(x.reshape((*x.shape[:-1], H, -1)), -2, -3)


def _norm(x: Float[Array, "... N E"]) -> Float[Array, "... N E"]:
    x = x - np.mean(x, axis=-1, keepdims=True)
    with np.errstate(over="ignore"):  # reported below
        variance = np.mean(x**2, axis=-1, keepdims=True)
    if not np.isfinite(getval(variance)).all():
        raise ValueError("x: expected tokens whose variance a float can hold; scale them down")
    return x / np.sqrt(variance + 1e-5)
