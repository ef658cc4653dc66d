"""The training set of a query: what its SVR is fitted on, once sequence, support and pools are worked out.

What is left is an SVR on n points without any of them: a kernel, a normaliser h and a transform, whose
z_j = Phi(T k_j)/h(k_j) have the Gram matrix G_ij = z_i.z_j.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from primal_dual import checks
from primal_dual.attention import attention, convolved, kernel_rows, normalizer, pool
from primal_dual.primal import Primal
from primal_dual.supports import Everything, Mask, check_size, positions, sees
from primal_dual.transforms import Identity, fit, parts


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """n training points: keys (n, D), after convolution and pooling, and the primal that is left."""

    declared: Primal
    members: np.ndarray  # (N,) which keys the query sees
    keys: np.ndarray

    @property
    def primal(self):
        """The same kernel, normaliser and bias, on these points: no convolution, no support, no pools."""
        pointwise = parts(self.declared.transform)[1] or Identity()
        return replace(self.declared, transform=pointwise, support=Everything(), scale=1)

    def convolve(self, x):
        """Queries (M, D) as the SVR takes them: convolved as a sequence of their own."""
        x = checks.matrix("x", x, "M D")
        if x.shape[1] != self.keys.shape[1]:
            raise ValueError(f"x: expected shape (M, {self.keys.shape[1]}), as the keys have; got {x.shape}")
        return convolved(self.declared, x, np.ones(len(x), bool))

    def pool(self, y):
        """(N, Dv), one row a key, to (n, Dv), one a training point."""
        pooled, real = pool(y, self.members, self.declared.scale)
        return pooled[real]

    def spread(self, y):
        """(n, Dv) to (N, Dv): constant over a pool, zero outside the support."""
        groups = np.arange(len(self.members)) // self.declared.scale
        _, real = pool(self.members[:, None], self.members, self.declared.scale)
        return np.where(self.members[:, None], y[(np.cumsum(real) - 1)[groups]], 0.0)

    def transform(self, x):
        """T x, fitted on the training points."""
        apply, _ = fit(parts(self.declared.transform)[1], self.keys, np.ones(len(self.keys), bool))
        return apply(x)

    def rows(self, x):
        """<Phi(T x), Phi(T k_j)> = w exp(top), and h(x) = sign exp(log_h) -> w (M, n), top, sign, log_h (M, 1)."""
        keys = self.transformed_keys
        with np.errstate(over="ignore", invalid="ignore"):  # told by the normaliser
            w, top = kernel_rows(self.primal, self.transform(x), keys, np.ones((1, 1), bool))
            h = normalizer(self.primal, w)
        return w, top, np.sign(h), top + np.log(abs(h))

    @cached_property
    def transformed_keys(self):
        """T k_j, (n, D)."""
        return self.transform(self.keys)

    @property
    def feature_count(self):
        """F, the number of the kernel's features; infinite where it gives none."""
        return getattr(self.primal.kernel, "feature_count", lambda dimension: np.inf)(self.keys.shape[1])

    @cached_property
    def own_rows(self):
        """`rows` at the training points themselves."""
        return self.rows(self.keys)

    @property
    def log_h(self):
        """log |h(k_j)|, (n,). Its median is the natural unit of log C."""
        return self.own_rows[3][:, 0]

    def penalty(self, multiple):
        """C = multiple times the median of |h(k_j)|, its natural unit."""
        with np.errstate(over="ignore"):
            C = float(multiple * np.exp(np.median(self.log_h)))
        if not 0 < C < np.inf:
            raise ValueError(f"keys: expected h that a float can hold; log h is {np.median(self.log_h):.4g}")
        return C

    def gram(self, x, log_factor=0.0):
        """<Phi(T x_i)/h(x_i), z_j> exp(log_factor_ij), (M, n), without overflow on the way."""
        w, top, sign, log_h = self.own_rows if x is self.keys else self.rows(x)
        # The minimum keeps the exponential finite where w is zero.
        return w * sign * self.own_rows[2].T * np.exp(np.minimum(top + log_factor - log_h - self.log_h, 700))

    @cached_property
    def cosines(self):
        """The Gram matrix of the z_j at unit length, (n, n). ValueError where it is none: the kernel is no kernel."""
        kernel, x = self.primal.kernel, self.transformed_keys
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # told by the check below
            if hasattr(kernel, "log_gram"):
                a = kernel.log_gram(x, x)
                cosines = np.exp(a - np.diag(a)[:, None] / 2 - np.diag(a) / 2)
            else:
                K, sign = kernel.gram(x, x), self.own_rows[2]
                cosines = sign * sign.T * K / np.sqrt(np.diag(K)[:, None] * np.diag(K))
        skew = abs(cosines - cosines.T).max()
        smallest = np.linalg.eigvalsh(cosines).min() if np.isfinite(skew) else np.nan
        if not (skew <= 1e-8 and smallest >= -1e-8 * len(cosines)):
            raise ValueError(
                f"{self.primal.kernel}: expected <Phi(x), Phi(y)>, symmetric and positive semidefinite; got "
                f"asymmetry {skew:.2g} and smallest eigenvalue {smallest:.2g}, relative to |Phi|"
            )
        return (cosines + cosines.T) / 2

    def log_lengths(self, x):
        """log |Phi(T x)|, (M,)."""
        tx = self.transform(x)[:, None, :]
        kernel = self.primal.kernel
        with np.errstate(divide="ignore", invalid="ignore"):
            square = kernel.log_gram(tx, tx) if hasattr(kernel, "log_gram") else np.log(kernel.gram(tx, tx))
        return square[:, 0, 0] / 2

    def log_norms(self, x):
        """log |Phi(T x)/h(x)|, (M,)."""
        return self.log_lengths(x) - (self.log_h if x is self.keys else self.rows(x)[3][:, 0])

    def attend(self, x, values):
        """f(x) by `attention`, x (M, D) convolved already, values (n, Dv)."""
        return attention(self.primal, x, self.keys, values)


def training_set(primal, keys, query=None):
    """The training set of a query, from keys (N, D).

    Every query has the same under Everything; under any other support, `query` says which. Raises ValueError for
    a missing query, one that is out of range or sees no key, and for keys that are no (N, D) array of finite numbers.
    """
    checks.primal(primal)
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
    members = sees(primal.support, np.array([query or 0]), len(keys))[0]
    if not members.any():
        raise ValueError(f"query {query} sees no key: expected one at least under {primal.support}")
    pooled, real = pool(convolved(primal, keys, np.ones(len(keys), bool)), members, primal.scale)
    return TrainingSet(primal, members, pooled[real])
