"""The training set of a query: what its SVR is fitted on, once sequence, support and pools are worked out.

What is left is an SVR on n points without any of them: a kernel, a normaliser h and a transform, whose
z_j = Phi(T k_j) / h(k_j) have the Gram matrix G_ij = z_i.z_j. All numbers are kept as logarithms until they are known
to fit a float.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from primal_dual import checks
from primal_dual.expansion import attention
from primal_dual.kernel_matrix import kernel_rows, kernel_values, normalizer
from primal_dual.primal import Primal
from primal_dual.protocols import FiniteFeatures, Kernel, PositiveKernel
from primal_dual.sequence import convolve_sequence, pool
from primal_dual.supports import Everything, Mask, check_size, positions, visibility_table
from primal_dual.transforms import SAME, Identity, fit, split_convolutions
from primal_dual.types import Array, Bool, Float

ROUNDING = 1e-8  # of cosines
NEAR_ROUNDING = 1e-3  # of those of keys so large that their kernel has lost digits
MOST_HELD = 4_000  # training points whose kernel matrix is held
ROWS_AT_A_TIME = 200  # of a larger one
RUNS, RUN = 16, 16  # of neighbouring training points, where a kernel that is only evaluated is checked
SMALLEST_LENGTH = 1e-6  # of a |Phi| that is zero, beside the largest
LARGEST_EXPONENT = 700  # exp of more overflows

Rows = tuple[Float[Array, "M n"], Float[Array, "M 1"], Float[Array, "M 1"], Float[Array, "M 1"]]


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """n training points, and the primal that is left for them.

    Attributes
    ----------
    declared : Primal
        The primal as it was declared.
    members : array of booleans, (N,)
        Which keys the query sees.
    keys : array, (n, D)
        The training points: the keys after convolution and pooling.
    """

    declared: Primal
    members: Bool[np.ndarray, " N"]
    keys: Float[np.ndarray, "n D"]

    @property
    def primal(self) -> Primal:
        """What is left of it on these points."""
        return without_positions(self.declared)

    def convolve(self, x: Float[Array, "M D"]) -> Float[Array, "M D"]:
        """Queries as the SVR takes them: convolved as a sequence of their own."""
        x = checks.matrix("x", x, "M D")
        if x.shape[1] != self.keys.shape[1]:
            raise ValueError(f"x: expected shape (M, {self.keys.shape[1]}), as the keys have; got {x.shape}")
        return convolve_sequence(self.declared, x, np.ones(len(x), bool))

    def pool(self, y: Float[Array, "N Dv"]) -> Float[Array, "n Dv"]:
        """From one row a key to one a training point."""
        pooled, some = pool(y, self.members, self.declared.scale)
        return pooled[some]

    def spread(self, y: Float[Array, "n Dv"]) -> Float[Array, "N Dv"]:
        """From one row a training point to one a key: constant over a pool, zero outside the support."""
        group_of_key = np.arange(len(self.members)) // min(self.declared.scale, len(self.members))
        _, some = pool(np.zeros((len(self.members), 1)), self.members, self.declared.scale)
        point_of_group = np.cumsum(some) - 1
        return np.where(self.members[:, None], y[point_of_group[group_of_key]], 0.0)

    def transform(self, x: Float[Array, "M D"]) -> Float[Array, "M D"]:
        """T x, fitted on the training points."""
        apply, _ = fit(split_convolutions(self.declared.transform)[1], self.keys, np.ones(len(self.keys), bool))
        return apply(x)

    def rows(self, x: Float[Array, "M D"]) -> Rows:
        """<Phi(T x), Phi(T k_j)> = w exp(top) and h(x) = sign exp(log_h) -> w, top, sign, log_h."""
        with np.errstate(over="ignore", invalid="ignore"):  # the normaliser raises for what is not finite
            w, top = kernel_rows(self.primal, self.transform(x), self.transformed_keys, np.ones((1, 1), bool))
            h = normalizer(self.primal, w)
        return w, top, np.sign(h), top + np.log(abs(h))

    def rows_at(self, x: Float[Array, "M D"]) -> Rows:
        """`rows`, computed once for the training points themselves."""
        return self.own_rows if x is self.keys else self.rows(x)

    @cached_property
    def transformed_keys(self) -> Float[Array, "n D"]:
        """T k_j."""
        return self.transform(self.keys)

    @property
    def feature_count(self) -> float:
        """F, the number of the kernel's features; infinity where it gives none."""
        kernel = self.primal.kernel
        return kernel.feature_count(self.keys.shape[1]) if isinstance(kernel, FiniteFeatures) else np.inf

    @cached_property
    def own_rows(self) -> Rows:
        """`rows` at the training points themselves."""
        return self.rows(self.keys)

    @cached_property
    def _own_h(self) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        """The sign and the logarithm of h(k_j); of a large training set, without holding all its rows."""
        if len(self.keys) <= MOST_HELD:
            _, _, sign, log_h = self.own_rows
        else:
            starts = range(0, len(self.keys), ROWS_AT_A_TIME)
            blocks = [self.rows(self.keys[start : start + ROWS_AT_A_TIME])[2:] for start in starts]
            sign, log_h = (np.concatenate(columns) for columns in zip(*blocks, strict=True))
        return sign[:, 0], log_h[:, 0]

    @property
    def sign_h(self) -> Float[Array, " n"]:
        """The sign of h(k_j)."""
        return self._own_h[0]

    @property
    def log_h(self) -> Float[Array, " n"]:
        """log |h(k_j)|. Its median is the natural unit of log C."""
        return self._own_h[1]

    def log_penalty(self, multiple: float) -> float:
        """log C, for C as a multiple of the median of |h(k_j)|, its natural unit."""
        return float(np.log(multiple) + np.median(self.log_h))

    def penalty(self, multiple: float) -> float:
        """C as a multiple of the median of |h(k_j)|. ValueError where that overflows."""
        with np.errstate(over="ignore"):
            C = float(multiple * np.exp(np.median(self.log_h)))
        if not 0 < C < np.inf:
            raise ValueError(f"keys: expected h that a float can hold; log h is {np.median(self.log_h):.4g}")
        return C

    def gram(self, x: Float[Array, "M D"], log_factor: Float[Array, "..."] | float = 0.0) -> Float[Array, "M n"]:
        """<Phi(T x_i) / h(x_i), z_j> exp(log_factor_ij), without overflow on the way."""
        w, top, sign, log_h = self.rows_at(x)
        exponent = top + log_factor - log_h - self.log_h
        return w * sign * self.sign_h * np.exp(np.minimum(exponent, LARGEST_EXPONENT))

    @cached_property
    def cosines(self) -> Float[Array, "n n"]:
        """The Gram matrix of the z_j at unit length.

        Raises
        ------
        ValueError
            Where it is not symmetric and positive semidefinite: then the kernel is none.
        """
        cosines = _cosines(self.primal.kernel, self.transformed_keys)
        if isinstance(self.primal.kernel, PositiveKernel):
            return cosines
        return self.sign_h[:, None] * self.sign_h * cosines

    def check_kernel(self) -> None:
        """ValueError where the kernel is none at some of the keys, which are all if they are few; see `cosines`."""
        n = len(self.keys)
        starts = np.linspace(0, max(n - RUN, 0), RUNS).astype(int)  # neighbours are those that most kernels tie
        some = np.arange(n) if n <= RUNS * RUN else (starts[:, None] + np.arange(RUN)).ravel()
        _cosines(self.primal.kernel, self.transformed_keys[some])

    def log_lengths(self, x: Float[Array, "M D"]) -> Float[Array, " M"]:
        """log |Phi(T x)|."""
        return log_lengths(self.primal.kernel, self.transform(x))

    def log_norms(self, x: Float[Array, "M D"]) -> Float[Array, " M"]:
        """log |Phi(T x) / h(x)|."""
        return self.log_lengths(x) - (self.log_h if x is self.keys else self.rows(x)[3][:, 0])

    def attend(self, x: Float[Array, "M D"], values: Float[Array, "n Dv"]) -> Float[Array, "M Dv"]:
        """f(x) by `attention`, for x that is convolved already."""
        return attention(self.primal, x, self.keys, values)


def without_positions(primal: Primal) -> Primal:
    """The same kernel, normaliser and bias; no convolution, no support, no pools."""
    remaining = split_convolutions(primal.transform)[1] or Identity()
    return replace(primal, transform=remaining, support=Everything(), scale=1)


def _cosines(kernel: Kernel, x: Float[Array, "n D"]) -> Float[Array, "n n"]:
    """The cosines between the Phi(x_i). ValueError as in `TrainingSet.cosines`."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # reported below
        K = kernel_values(kernel, x, x)  # the logarithm, of a positive kernel
        largest, diagonal = abs(K).max(), np.diag(K)
        if isinstance(kernel, PositiveKernel):
            _expect_one_by_one(kernel, x, K, 1 + largest)
            cosines = np.exp(K - diagonal[:, None] / 2 - diagonal / 2)
        else:
            _expect_one_by_one(kernel, x, K, largest)
            length = np.where(diagonal == 0, SMALLEST_LENGTH * np.sqrt(largest or 1.0), np.sqrt(diagonal))
            cosines = K / length[:, None] / length  # a diagonal entry of zero has a row of zeros, up to underflow
    skew = abs(cosines - cosines.T).max()
    if not (skew <= ROUNDING and _is_semidefinite(cosines)):
        smallest = np.linalg.eigvalsh(cosines).min() if np.isfinite(skew) else np.nan
        mend = ": large keys alone may round to that" if max(skew, -smallest) < NEAR_ROUNDING else ""
        raise ValueError(
            f"{kernel}: expected <Phi(x), Phi(y)>, symmetric and positive semidefinite; got asymmetry {skew:.2g} "
            f"and smallest eigenvalue {smallest:.2g}, relative to |Phi|{mend}"
        )
    return (cosines + cosines.T) / 2


def _expect_one_by_one(kernel: Kernel, x: Float[Array, "n D"], matrix: Float[Array, "n n"], size: float) -> None:
    """ValueError where the first row is another by itself, or each point beside itself: a kernel takes two points."""
    row, diagonal = kernel_values(kernel, x[:1], x), kernel_values(kernel, x[:, None], x[:, None])[:, 0, 0]
    if (abs(row - matrix[:1]) > SAME * size).any() or (abs(diagonal - np.diag(matrix)) > SAME * size).any():
        expected = "expected <Phi(x_i), Phi(y_j)> in row i and column j, of these two points alone"
        raise ValueError(f"{kernel}: {expected}; got others where other points are beside them")


def _is_semidefinite(cosines: Float[Array, "n n"]) -> bool:
    """Whether a Cholesky factor exists once the eigenvalues are raised by what rounding may have taken."""
    try:
        np.linalg.cholesky(cosines + ROUNDING * len(cosines) * np.eye(len(cosines)))
    except np.linalg.LinAlgError:
        return False
    return True


def training_set(primal: Primal, keys: Float[Array, "N D"], query: int | None = None) -> TrainingSet:
    """The training set of a query.

    Parameters
    ----------
    primal : Primal
        What is declared.
    keys : array, (N, D)
        All keys of the sequence.
    query : int, optional
        Whose SVR. Every query has the same under Everything; any other support needs the query's position.

    Raises
    ------
    ValueError
        For a missing query, one that is negative, beyond the rows of a Mask, or sees no key, and for keys that are no
        (N, D) array of finite numbers.
    """
    checks.expect_primal(primal)
    keys = checks.matrix("keys", keys, "N D")
    check_size(primal.support, positions(primal.support, len(keys)), len(keys))
    if query is not None:
        checks.integer("query", query, 0)
        if isinstance(primal.support, Mask) and query >= len(primal.support.table):
            raise ValueError(
                f"query: expected one of the {len(primal.support.table)} rows of {primal.support}; got {query}"
            )
    elif not isinstance(primal.support, Everything):
        raise ValueError(
            f"query: expected a position, since under {primal.support} each query has an SVR of its own; got None"
        )
    members = visibility_table(primal.support, np.array([query or 0]), len(keys))[0]
    if not members.any():
        raise ValueError(f"query {query} sees no key: expected one at least under {primal.support}")
    pooled, some = pool(convolve_sequence(primal, keys, np.ones(len(keys), bool)), members, primal.scale)
    return TrainingSet(primal, members, pooled[some])


def log_lengths(kernel: Kernel, points: Float[Array, "*batch n D"]) -> Float[Array, "*batch n"]:
    """log |Phi(x)| of points that are transformed already.

    Examples
    --------
    >>> log_lengths(Primal().kernel, np.array([[2.0], [0.0]])).tolist()
    [2.0, 0.0]
    """
    each = points[..., None, :]
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        square = kernel_values(kernel, each, each)
        square = square if isinstance(kernel, PositiveKernel) else np.log(square)
    return square[..., 0, 0] / 2


def pooled_rows(name: str, y: Float[Array, "rows Dv"], train: TrainingSet) -> Float[Array, "n Dv"]:
    """One row a training point, from that or from one row a key. ValueError for another number of rows."""
    y = checks.matrix(name, y, "N Dv")
    if len(y) not in (len(train.members), len(train.keys)):
        pooled = f", or {len(train.keys)}, one a training point" if len(train.keys) != len(train.members) else ""
        raise ValueError(f"{name}: expected {len(train.members)} rows, one a key{pooled}; got {y.shape}")
    return train.pool(y) if len(y) == len(train.members) else y.copy()
