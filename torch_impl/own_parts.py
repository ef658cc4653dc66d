"""Parts of one's own are the same in torch as in NumPy: a certificate is of the one, and a model computes the other."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import torch

from primal_dual.expansion import attention as numpy_attention
from primal_dual.primal import PARTS, Primal, parts_of
from primal_dual.supports import Everything, Mask
from torch_impl.expansion import attention

SAME = 1e-4  # relative to the largest output: numbers that the torch version holds may be in float32


def expect_agreement(primals: Iterable[Primal], dimension: int) -> None:
    """ValueError where a primal with a part of one's own is another attention in torch than in NumPy.

    Both attend over two random sequences, one of which ends in padding, from queries that are no keys. A primal that
    NumPy refuses for these numbers, or for their absolute values, is not compared.

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
