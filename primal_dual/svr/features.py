"""The features z(x) = Phi(T x) / h(x) of an SVR as numbers: in Phi itself, or in the span of the training points.

An infinite Phi has no list of numbers. But W = sum_j delta_j z_j' lies in the span of the z_j, so that coordinates in
an orthonormal basis of this span are all that the primal needs. Gram and Schmidt's basis is that of Cholesky's
factorisation: with the cosines c_ij between z_i and z_j, and L L' = c, the row L_j is z_j / |z_j| in this basis, in
which the point that came first has one coordinate, the second two, and so on. Let p be the points that brought a new
direction: any z(x) has the coordinates L_p^-1 g, where g are the <z(x), z_p> / |z_p|.

The z_j may differ in length by e^100, and w.z_j is of order 1 for all of them. So w must be accurate relative to each
direction: the longest z_j come first, whose large rows then meet the small entries of w alone.
"""

from dataclasses import dataclass

import numpy as np

from primal_dual.arrays import writes_refused
from primal_dual.kernel_matrix import kernel_values
from primal_dual.protocols import FiniteFeatures, PositiveFeatures, PositiveKernel
from primal_dual.svr.training_sets import TrainingSet
from primal_dual.transforms import SAME
from primal_dual.types import Array, Float, Int

SOME = 64  # keys, spread over all, at which features are compared with the kernel
MOST_EXPLICIT = 2_000  # features up to which the primal is solved in Phi itself


@dataclass(frozen=True, eq=False)
class Features:
    """The function x -> z(x), (M, D) -> (M, F).

    Parameters
    ----------
    train : TrainingSet
        The training set of the SVR.
    L : array or None
        The z_j / |z_j|, (n, F), in the basis of their span; None if z(x) is in Phi itself.
    basis : array of ints
        The F training points p, in their order, which make the basis.
    """

    train: TrainingSet
    L: np.ndarray | None
    basis: np.ndarray

    @classmethod
    def from_training_set(cls, train: TrainingSet) -> "Features":
        """In Phi itself where that has at most MOST_EXPLICIT features, else in the span of the training points."""
        if train.feature_count <= MOST_EXPLICIT:
            _expect_features(train)
            return cls(train, None, np.empty(0, int))
        return cls(train, *cholesky(train.cosines, train.log_norms(train.keys)))

    def __call__(self, x: Float[Array, "M D"]) -> Float[Array, "M F"]:
        """z(x), for x that is convolved already. ValueError where it is too large for a float."""
        with np.errstate(over="ignore", invalid="ignore"):
            if self.L is None:
                z = self._explicit(x, 0.0)
            else:
                from scipy.linalg import solve_triangular

                g = self.train.gram(x, -self.train.log_norms(self.train.keys))[:, self.basis]
                z = solve_triangular(self.L[self.basis], g.T, lower=True, check_finite=False).T
        if not np.isfinite(z).all():
            raise ValueError("x: expected Phi(T x)/h(x) that a float can hold; solve_dual predicts without it")
        return z

    def at_keys(self, log_C: float) -> Float[Array, "n F"]:
        """sqrt(C) z_j. The caller checks for overflow."""
        with np.errstate(over="ignore", invalid="ignore"):
            if self.L is None:
                return self._explicit(self.train.keys, log_C)
            norms = np.exp(self.train.log_norms(self.train.keys) + log_C / 2)
            return norms[:, None] * self.L

    def _explicit(self, x: Float[Array, "M D"], log_C: float) -> Float[Array, "M F"]:
        """sqrt(C) Phi(T x) / h(x)."""
        train = self.train
        kernel, (_, _, sign, log_h) = train.primal.kernel, train.rows_at(x)
        if isinstance(kernel, PositiveFeatures):
            return np.exp(kernel.log_features(train.transform(x)) - log_h + log_C / 2) * sign
        assert isinstance(kernel, FiniteFeatures)
        return kernel.features(train.transform(x)) * np.exp(log_C / 2 - log_h) * sign


def _expect_features(train: TrainingSet) -> None:
    """ValueError where the features of a kernel are not as many as it says, or their inner products not the kernel."""
    kernel, keys = train.primal.kernel, train.transformed_keys
    assert isinstance(kernel, FiniteFeatures)
    x = keys[np.linspace(0, len(keys) - 1, min(len(keys), SOME)).astype(int)]
    with np.errstate(over="ignore", invalid="ignore"):
        with writes_refused(kernel, x) as (x,):
            phi = kernel.features(x)
        gram = kernel_values(kernel, x, x)
        gram = np.exp(gram) if isinstance(kernel, PositiveKernel) else gram
        error = abs(phi @ phi.T - gram).max()
    if error > SAME * abs(gram).max() or phi.shape[1] != train.feature_count:
        expected = f"expected {train.feature_count} features whose inner products are the kernel"
        raise ValueError(f"{kernel}: {expected}; got {phi.shape[1]}, off by {error:.2g}")


def cholesky(
    cosines: Float[Array, "n n"], log_norms: Float[Array, " n"]
) -> tuple[Float[Array, "n F"], Int[Array, " F"]]:
    """L (n, F) with L L' = `cosines` up to rounding, and the F points, in their order, whose rows make it triangular.

    The next is always the point whose z_j is farthest from the span of those before. Points in the span bring nothing.
    """
    n = len(cosines)
    L, basis, rest = np.zeros((n, n)), np.empty(n, int), np.ones(n)  # rest: what is left of |z_j|^2 = 1
    for k in range(n):
        outside = rest > n * np.finfo(float).eps
        if not outside.any():
            return L[:, :k], basis[:k]
        j = basis[k] = np.where(outside, np.log(np.where(outside, rest, 1)) + 2 * log_norms, -np.inf).argmax()
        L[:, k] = (cosines[:, j] - L[:, :k] @ L[j, :k]) / np.sqrt(rest[j])
        L[basis[:k], k] = 0
        rest -= L[:, k] ** 2
        rest[j] = 0
    return L, basis
