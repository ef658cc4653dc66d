"""The inverse of a block of a symmetric matrix, as members join and leave: each change costs a matrix of rank one.

For a block B with the inverse M, a new member with the column h and the diagonal entry d, and z = M h, r = d - h'z:

    [B  h]^-1   [M  0]   1 [ z]
    [h' d]    = [0  0] + - [-1] (z' -1)
                         r

A member leaves by the same, backwards: subtract m m' / m_j, for the column m of M that belongs to it.
"""

import numpy as np
from scipy.linalg.blas import dsymv, dsyr

from primal_dual.types import Array, Bool, Float

SINGULAR = 1e-11  # r, relative to what it is the difference of, that is zero but for rounding


class BlockInverse:
    """Of H = [G 1; 1' 0] with a bias, else of H = G, for a Gram matrix G (n, n).

    Attributes
    ----------
    H : array, (m, m)
        m = n + 1 with a bias, else n.
    on : array of bool, (m,)
        The members of the block. That of the bias joins with the first point, and leaves with the last: a block of it
        alone is singular.
    M : array, (m, m)
        The inverse in the lower triangle of the block, and zeros elsewhere.
    """

    def __init__(self, G: Float[Array, "n n"], bias: bool) -> None:
        n, self.bias = len(G), bias
        self.H = np.ones((n + bias, n + bias), order="F")
        self.H[:n, :n], self.H[n:, n:] = G, 0
        self.clear()

    def clear(self) -> None:
        """A block without members."""
        self.M: Float[Array, "m m"] = np.zeros(self.H.shape, order="F")
        self.on: Bool[Array, " m"] = np.zeros(len(self.H), dtype=bool)

    def solve(self, v: Float[Array, " m"], target: Float[Array, " m"]) -> tuple[Float[Array, " m"], Float[Array, " m"]]:
        """v with its members changed, such that H v is equal to `target` at the members; and H v."""
        product = dsymv(1, self.H, v, lower=1)
        size = abs(product).max() + abs(target).max()
        for _ in range(4):  # the first time is enough, until the rounding of many changes adds up
            error = np.where(self.on, target - product, 0)
            if abs(error).max() <= 1e-14 * size:
                break
            v = v + dsymv(1, self.M, error, lower=1)
            product = dsymv(1, self.H, v, lower=1)
        return v, product

    def beside(self, j: int) -> tuple[Float[Array, " m"], float]:
        """z and r of a new member j; r is 0 if the block would be singular with it."""
        z = dsymv(1, self.M, self.H[:, j], lower=1)
        r, size = self.H[j, j] - self.H[:, j] @ z, self.H[j, j] + abs(self.H[:, j] * z).sum()
        return z, r if r > SINGULAR * size else 0.0

    def add(self, j: int, z: Float[Array, " m"], r: float) -> None:
        """Let j join, with what `beside` gave."""
        if self.bias and not self.on.any():  # the inverse of [H_jj 1; 1 0]
            self.on[-1] = True
            self.M[-1, j], self.M[-1, -1] = 1, -self.H[j, j]
        else:
            z[j] = -1
            dsyr(1 / r, z, lower=1, a=self.M, overwrite_a=1)
        self.on[j] = True

    def drop(self, j: int) -> None:
        """Let j leave."""
        self.on[j] = False
        m = np.append(self.M[j, :j], self.M[j:, j])
        dsyr(-1 / m[j] if m[j] else 0, m, lower=1, a=self.M, overwrite_a=1)
        self.M[j, :j] = self.M[j:, j] = 0
        if self.bias and self.on.sum() == 1:
            self.on[-1], self.M[-1, -1] = False, 0

    def renew(self) -> None:
        """M anew, without the rounding of its changes. Rows and columns are scaled to a diagonal of ones."""
        members = np.flatnonzero(self.on)
        block, diagonal = self.H[np.ix_(members, members)], self.H.diagonal()[members]
        scale = 1 / np.sqrt(np.where(diagonal > 0, diagonal, 1))
        scaled = np.linalg.pinv(scale[:, None] * block * scale, hermitian=True)
        self.M[np.ix_(members, members)] = scale[:, None] * scaled * scale
