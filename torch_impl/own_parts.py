"""Parts of one's own are the same in torch as in NumPy: a certificate is of the one, and a model computes the other."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import torch

from primal_dual.expansion import attention as numpy_attention
from primal_dual.primal import PARTS, Primal, parts_of
from primal_dual.supports import Everything, Mask, visibility_table
from primal_dual.transforms import fit, split_convolutions
from primal_dual.types import Bool, Float
from torch_impl.expansion import attention

SAME = 1e-4  # relative to the largest output: numbers that the torch version holds may be in float32


def expect_agreement(primals: Iterable[Primal], dimension: int) -> None:
    """ValueError where a part of one's own is refused by NumPy, or is another in torch than in NumPy.

    Both attend over two random sequences, one of which ends in padding, from queries that are no keys. A primal whose
    kernel NumPy refuses for these numbers, and for their absolute values, is not compared.

    Parameters
    ----------
    primals : iterable of Primal
        Those without parts of one's own are not tried.
    dimension : int
        D, the number of features of a query and of a key.
    """
    for primal in dict.fromkeys(primals):
        if any(type(part).__module__ not in PARTS for part in parts_of(primal)):
            _expect_agreement(primal, dimension)


def _expect_agreement(primal: Primal, dimension: int) -> None:
    if isinstance(primal.support, Mask):  # of another number of tokens
        primal = replace(primal, support=Everything())
    q, k, v = np.random.default_rng(0).standard_normal((3, 2, 8, dimension))
    valid = np.arange(8) < np.array([[8], [7]])
    _expect_parts_that_numpy_takes(primal, k, valid)
    for inputs in ((q, k, v), (abs(q), abs(k), v)):
        try:
            expected = numpy_attention(primal, *inputs, valid)
        except ValueError:
            continue
        with torch.no_grad():
            got = attention(primal, *map(torch.from_numpy, (*inputs, valid))).cpu().numpy()
        difference, size = abs(got - expected).max(), abs(expected).max()
        if not difference <= SAME * size:
            off = f"one that is off by {difference / size:.1g} of the largest output"
            raise ValueError(
                f"{primal}: expected the same attention in torch and in NumPy, padded keys or not; got {off}"
            )
        return


def _expect_parts_that_numpy_takes(
    primal: Primal, keys: Float[np.ndarray, "B N D"], valid: Bool[np.ndarray, "B N"]
) -> None:
    """ValueError for a support or a transform that is refused whatever the keys are, such as one that mixes tokens."""
    tokens = keys.shape[-2]
    visibility_table(primal.support, np.arange(tokens), tokens)
    transforms = split_convolutions(primal.transform)[1]
    with np.errstate(all="ignore"):
        try:
            fit(transforms, keys, valid)
        except ValueError:  # of positive numbers, perhaps
            fit(transforms, abs(keys), valid)
