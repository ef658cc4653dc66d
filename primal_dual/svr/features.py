"""The features z(x) = Phi(T x) / h(x) of an SVR as numbers: in Phi itself, or in the span of the training points.

An infinite Phi has no list of numbers. But W = sum_j delta_j z_j' lies in the span of the z_j, so that coordinates in
an orthonormal basis of this span are all that the primal needs. Let c_ij be the cosine between z_i and z_j, and
c = U S U' its eigendecomposition. The rows of the (n, F) matrix c U S^(-1/2) = U S^(1/2) have the inner products c_ij:
they are the z_j at unit length. For any x, the row of the <z(x), z_j> / |z_j| times U S^(-1/2) gives z(x) in the same
coordinates. Eigenvalues that are rounding errors are left out.
"""

from dataclasses import dataclass

import numpy as np

from primal_dual.protocols import FiniteFeatures, PositiveFeatures
from primal_dual.svr.training_sets import TrainingSet
from primal_dual.types import Array, Float

MOST_EXPLICIT = 2_000  # features up to which the primal is solved in Phi itself


@dataclass(frozen=True, eq=False)
class Features:
    """The function x -> z(x), (M, D) -> (M, F).

    Parameters
    ----------
    train : TrainingSet
        The training set of the SVR.
    basis : array or None
        U S^(-1/2), (n, F), if z(x) is given in the span of the training points; None if in Phi itself.
    """

    train: TrainingSet
    basis: np.ndarray | None

    @classmethod
    def from_training_set(cls, train: TrainingSet) -> "Features":
        """In Phi itself where that has at most MOST_EXPLICIT features, else in the span of the training points."""
        if train.feature_count <= MOST_EXPLICIT:
            return cls(train, None)
        S, U = np.linalg.eigh(train.cosines)
        kept = len(S) * np.finfo(float).eps * S[-1] < S
        return cls(train, U[:, kept] / np.sqrt(S[kept]))

    def __call__(self, x: Float[Array, "M D"]) -> Float[Array, "M F"]:
        """z(x), for x that is convolved already. ValueError where it is too large for a float."""
        with np.errstate(over="ignore", invalid="ignore"):
            if self.basis is None:
                z = self._explicit(x, 0.0)
            else:
                z = self.train.gram(x, -self.train.log_norms(self.train.keys)) @ self.basis
        if not np.isfinite(z).all():
            raise ValueError("x: expected Phi(T x)/h(x) that a float can hold; solve_dual predicts without it")
        return z

    def at_keys(self, log_C: float) -> Float[Array, "n F"]:
        """sqrt(C) z_j. The caller checks for overflow."""
        with np.errstate(over="ignore", invalid="ignore"):
            if self.basis is None:
                return self._explicit(self.train.keys, log_C)
            norms = np.exp(self.train.log_norms(self.train.keys) + log_C / 2)
            return norms[:, None] * (self.train.cosines @ self.basis)

    def _explicit(self, x: Float[Array, "M D"], log_C: float) -> Float[Array, "M F"]:
        """sqrt(C) Phi(T x) / h(x)."""
        train = self.train
        kernel, (_, _, sign, log_h) = train.primal.kernel, train.rows_at(x)
        if isinstance(kernel, PositiveFeatures):
            return np.exp(kernel.log_features(train.transform(x)) - log_h + log_C / 2) * sign
        assert isinstance(kernel, FiniteFeatures)
        return kernel.features(train.transform(x)) * np.exp(log_C / 2 - log_h) * sign
