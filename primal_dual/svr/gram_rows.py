"""A Gram matrix Q that is too large to be held: its rows are computed whenever a step of Newton's method needs them."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from primal_dual.svr.training_sets import ROWS_AT_A_TIME, TrainingSet
from primal_dual.types import Array, Float, Int


@dataclass(frozen=True, eq=False)
class GramRows:
    """Q = C G, for `newton`. The free points of a step are its working set: it takes their rows, and no others.

    Parameters
    ----------
    train : TrainingSet
        Whose Gram matrix.
    log_C : float
        log C.
    """

    train: TrainingSet
    log_C: float

    def __getitem__(self, points: slice | Int[Array, " m"]) -> Float[Array, "m n"]:
        """Some rows."""
        train = self.train
        w, top, sign, log_h = train.rows(train.keys[points])
        w *= np.exp(top - log_h + self.log_C / 2) * sign
        w *= train.sign_h * np.exp(self.log_C / 2 - train.log_h)
        return w

    def __matmul__(self, u: Float[Array, "..."]) -> Float[Array, "..."]:
        """Q u, from the rows of the points with u_j != 0, some at a time."""
        used = np.flatnonzero(u if u.ndim == 1 else u.any(axis=1))
        product = np.zeros(u.shape)
        for points in np.array_split(used, -(-len(used) // ROWS_AT_A_TIME) or 1):
            product += self[points].T @ u[points]
        return product

    def matrix(self) -> Float[Array, "n n"]:
        """All of Q."""
        n = len(self.train.keys)
        Q = np.empty((n, n))
        for start in range(0, n, ROWS_AT_A_TIME):
            block = slice(start, start + ROWS_AT_A_TIME)
            Q[block] = self[block]
        return Q

    def diagonal(self) -> Float[Array, " n"]:
        """Q_jj."""
        return self._diagonal

    @cached_property
    def _diagonal(self) -> Float[Array, " n"]:
        return np.exp(2 * self.train.log_norms(self.train.keys) + self.log_C)
