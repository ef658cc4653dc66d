"""Kernels: the features Phi of a primal, through their inner products <Phi(x), Phi(y)>.

A kernel that is positive everywhere gives `log_gram(x, y)`, so that nothing overflows at any size of x; one that may
be zero or negative gives `gram(x, y)`. Both take x (..., M, D) and y (..., N, D) to (..., M, N). Where Phi is finite,
`features(x)` gives it, (..., N, D) -> (..., N, F), and `feature_count(D)` its size F; where it is also positive,
`log_features(x)` gives its logarithm.

A kernel of your own is a frozen dataclass with `log_gram` or `gram`: it then works everywhere.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations_with_replacement
from math import comb, factorial, log, prod, sqrt

import numpy

from primal_dual import checks
from primal_dual.arrays import constant, like, namespace, transpose

MOST_FEATURES = 20_000
SMALLEST = 1e-280  # below this a sum of products may have lost terms to underflow


@dataclass(frozen=True)
class Exponential:
    """exp(x.y scale), the kernel of softmax attention; scale = 1/sqrt(D) unless given. Its Phi is infinite."""

    scale: float | None = None

    def __post_init__(self):
        if self.scale is not None:
            checks.number("Exponential: scale", self.scale, above=0)

    def log_gram(self, x, y):
        scale = x.shape[-1] ** -0.5 if self.scale is None else self.scale
        return (x * scale) @ transpose(y)


@dataclass(frozen=True)
class Gaussian:
    """exp(-|x - y|^2 / (2 b^2)); the bandwidth b = D^(1/4) unless given.

    At that bandwidth and with unit-norm keys it gives the same attention as `Exponential()`.
    """

    bandwidth: float | None = None

    def __post_init__(self):
        if self.bandwidth is not None:
            checks.number("Gaussian: bandwidth", self.bandwidth, above=0)

    def log_gram(self, x, y):
        b = x.shape[-1] ** 0.25 if self.bandwidth is None else self.bandwidth
        centre = constant(y).mean(axis=-2, keepdims=True)  # distances do not change, cancellation does
        x, y = (x - centre) / b, (y - centre) / b
        return x @ transpose(y) - ((x**2).sum(-1)[..., :, None] + (y**2).sum(-1)[..., None, :]) / 2


@dataclass(frozen=True)
class EluPlusOne:
    """Phi(x) = elu(x) + 1 = max(x, 0) + exp(min(x, 0)), F = D: linear attention (Katharopoulos et al., ICML 2020)."""

    def feature_count(self, dimension):
        return dimension

    def features(self, x):
        xp = namespace(x)
        return xp.where(x > 0, x, 0.0) + xp.exp(xp.where(x > 0, 0.0, x))

    def log_features(self, x):
        xp = namespace(x)
        return xp.where(x > 0, xp.log1p(abs(x)), x)

    def log_gram(self, x, y):
        return _log_gram(self.log_features(x), self.log_features(y))


@dataclass(frozen=True)
class RandomFeatures:
    """Phi_r(x) = exp(w_r.x' - |x'|^2/2) / sqrt(F), x' = x / D^(1/4), w_r ~ N(0, 1), r = 1..F = count.

    <Phi(x), Phi(y)> is an unbiased estimate of exp(x.y/sqrt(D)) with an error of order 1/sqrt(count): FAVOR+
    (Choromanski et al., ICLR 2021), with independent w_r.
    """

    count: int
    seed: int

    def __post_init__(self):
        checks.integer("RandomFeatures: count", self.count, 1)
        checks.integer("RandomFeatures: seed", self.seed, 0)

    def feature_count(self, dimension):
        return self.count

    def features(self, x):
        return namespace(x).exp(self.log_features(x))

    def log_features(self, x):
        x = x * x.shape[-1] ** -0.25
        w = like(_normal_draws(self.count, x.shape[-1], self.seed), x)
        return x @ transpose(w) - (x**2).sum(-1)[..., None] / 2 - log(self.count) / 2

    def log_gram(self, x, y):
        return _log_gram(self.log_features(x), self.log_features(y))


@dataclass(frozen=True)
class Taylor:
    """sum_{t <= degree} a^t / t!, a = x.y/sqrt(D): the exponential kernel truncated at a degree.

    Its features are all monomials of x' = x / D^(1/4) up to the degree, prod_d x'_d^n_d / sqrt(n_1! ... n_D!), of
    which there are C(D+degree, degree); over 20,000 of them are a ValueError.
    """

    degree: int

    def __post_init__(self):
        checks.integer("Taylor: degree", self.degree, 0)

    def gram(self, x, y):
        a = x @ transpose(y) * x.shape[-1] ** -0.5
        g = a * 0 + 1
        for t in range(self.degree, 0, -1):  # Horner's rule
            g = 1 + g * a / t
        return g

    def feature_count(self, dimension):
        return comb(dimension + self.degree, self.degree)

    def features(self, x):
        return _monomials(self, x, {t: 1.0 for t in range(self.degree + 1)})


@dataclass(frozen=True)
class Polynomial:
    """(x.y/sqrt(D) + offset)^degree, degree >= 1, offset >= 0. It may be negative: then h may be, too.

    Its features are those of `Taylor`, the monomials of degree t times sqrt(t! C(degree, t) offset^(degree-t)).
    """

    degree: int
    offset: float

    def __post_init__(self):
        checks.integer("Polynomial: degree", self.degree, 1)
        checks.number("Polynomial: offset", self.offset, least=0)

    def gram(self, x, y):
        return (x @ transpose(y) * x.shape[-1] ** -0.5 + self.offset) ** self.degree

    def feature_count(self, dimension):
        if self.offset:
            return comb(dimension + self.degree, self.degree)
        return comb(dimension + self.degree - 1, self.degree)

    def features(self, x):
        p, c = self.degree, self.offset
        weights = {t: factorial(t) * comb(p, t) * c ** (p - t) for t in range(p + 1)}
        return _monomials(self, x, {t: sqrt(weight) for t, weight in weights.items() if weight})


def _monomials(kernel, x, weights):
    """All monomials of x / D^(1/4) of each degree t in `weights`, over sqrt(n_1! ... n_D!), times weights[t]."""
    xp, dimension = namespace(x), x.shape[-1]
    count = kernel.feature_count(dimension)
    if count > MOST_FEATURES:
        raise ValueError(f"{kernel}: expected at most {MOST_FEATURES:,} features; D = {dimension} gives {count:,}")
    x = x * dimension**-0.25
    blocks = []
    for t, weight in weights.items():
        factors = list(combinations_with_replacement(range(dimension), t))
        counts = ([row.count(d) for d in set(row)] for row in factors)
        coefficients = numpy.array([weight / sqrt(prod(map(factorial, n))) for n in counts])
        block = like(coefficients, x) + 0 * x[..., :1]
        for column in numpy.array(factors, int).reshape(len(factors), t).T:
            block = block * x[..., column]
        blocks.append(block)
    return xp.concatenate(blocks, -1)


def _log_gram(log_x, log_y):
    """log <exp(log_x), exp(log_y)> over the last axis of (..., M, F) and (..., N, F), without underflow."""
    xp = namespace(log_x)
    top_x, top_y = (xp.amax(constant(z), axis=-1, keepdims=True) for z in (log_x, log_y))
    gram = xp.exp(log_x - top_x) @ transpose(xp.exp(log_y - top_y))
    if constant(gram).min() > SMALLEST:
        return xp.log(gram) + top_x + transpose(top_y)
    total = log_x[..., :, None, 0] + log_y[..., None, :, 0]
    for f in range(1, log_x.shape[-1]):
        total = xp.logaddexp(total, log_x[..., :, None, f] + log_y[..., None, :, f])
    return total


@lru_cache(maxsize=16)
def _normal_draws(count, dimension, seed):
    return numpy.random.default_rng(seed).standard_normal((count, dimension))
