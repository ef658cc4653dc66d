"""From the sequence of keys to training points: convolutions along the tokens, and pools of neighbouring tokens."""

import autograd.numpy as np

from primal_dual.primal import Primal
from primal_dual.supports import Causal
from primal_dual.transforms import split_convolutions
from primal_dual.types import Array, Bool, Float


def convolve_sequence(
    primal: Primal, x: Float[Array, "... N D"], valid: Bool[Array, "... N"]
) -> Float[Array, "... N D"]:
    """The sequence x after the convolutions of a primal. Tokens that are not valid count as zero."""
    for convolution in split_convolutions(primal.transform)[0]:
        x = convolution.convolve(x, valid, isinstance(primal.support, Causal))
    return x


def pool(
    x: Float[Array, "... N F"], members: Bool[Array, "... N"], scale: int
) -> tuple[Float[Array, "... n F"], Bool[Array, "... n"]]:
    """Average the members of each group of `scale` neighbours; the last group may be short.

    Returns
    -------
    tuple
        The averages, zero where a group has no member, and which groups have one.

    Examples
    --------
    >>> pool(np.array([[1.0], [3.0], [5.0]]), np.array([True, True, True]), scale=2)[0].tolist()
    [[2.0], [5.0]]
    """
    tokens = x.shape[-2]
    scale = min(scale, tokens)
    if scale == 1:
        return x, members
    missing = -tokens % scale
    if missing:
        x = np.concatenate([x, np.zeros((*x.shape[:-2], missing, x.shape[-1]))], axis=-2)
        members = np.concatenate([members, np.zeros((*members.shape[:-1], missing), bool)], axis=-1)
    members = members.reshape(*members.shape[:-1], members.shape[-1] // scale, scale)
    count = members.sum(-1)
    weights = members / np.maximum(count, 1)[..., None]
    groups = x.reshape((*x.shape[:-2], x.shape[-2] // scale, scale, x.shape[-1]))
    return (weights[..., None, :] @ groups)[..., 0, :], count > 0
