"""Kernels: the features Phi of a primal, through their inner products <Phi(x), Phi(y)>.

The softmax of attention is the kernel exp(x.y / sqrt(D)), whose feature map is infinite; linear attention has the D
features elu(x) + 1. What a kernel must offer stands in `protocols.py`. One formula serves NumPy, autograd and PyTorch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations_with_replacement
from math import comb, factorial, log, prod, sqrt

import autograd.numpy as np
import numpy

from primal_dual import checks
from primal_dual.arrays import constant, like, namespace, transpose
from primal_dual.types import Array, Float

MOST_FEATURES = 20_000
FAR = 1e2  # bandwidths from the centre: the rounding of its square is 1e-12
SMALLEST_SUM = 1e-280  # a smaller sum of products may have lost terms to underflow


@dataclass(frozen=True)
class Exponential:
    """The kernel of softmax attention, exp(x.y scale). Its feature map is infinite; tutorial 2 writes it out.

    Parameters
    ----------
    scale : float, optional
        A positive number; 1 / sqrt(D) unless given.

    Examples
    --------
    >>> Exponential(scale=0.5).log_gram(numpy.array([[1.0, 2.0]]), numpy.array([[3.0, 4.0]])).tolist()
    [[5.5]]
    """

    scale: float | None = None

    def __post_init__(self) -> None:
        if self.scale is not None:
            checks.number("Exponential: scale", self.scale, above=0)

    def log_gram(self, x: Float[Array, "... M D"], y: Float[Array, "... N D"]) -> Float[Array, "... M N"]:
        """x_i.y_j scale."""
        return (x * self.slope(x.shape[-1])) @ transpose(y)

    def slope(self, dimension: int) -> float:
        """What x.y is multiplied by for vectors of D = `dimension` features: the scale, or 1 / sqrt(D)."""
        return dimension**-0.5 if self.scale is None else self.scale


@dataclass(frozen=True)
class Gaussian:
    """The radial kernel exp(-|x - y|^2 / (2 rho^2)).

    At the default bandwidth, with keys of unit length, it gives the same attention as `Exponential()`; see tutorial 3.

    Parameters
    ----------
    bandwidth : float, optional
        rho, a positive number; D^(1/4) unless given.

    Examples
    --------
    >>> Gaussian(bandwidth=1.0).log_gram(numpy.array([[1.0, 2.0]]), numpy.array([[3.0, 4.0]])).tolist()
    [[-4.0]]
    """

    bandwidth: float | None = None

    def __post_init__(self) -> None:
        if self.bandwidth is not None:
            checks.number("Gaussian: bandwidth", self.bandwidth, above=0)

    def log_gram(self, x: Float[Array, "... M D"], y: Float[Array, "... N D"]) -> Float[Array, "... M N"]:
        """-|x_i - y_j|^2 / (2 rho^2), from inner products of centred points, which are quick.

        These cancel: the error is about the rounding of (|x_i| / rho)^2. In NumPy, where that could be seen, the
        differences themselves are squared, feature by feature, which is several times slower.
        """
        rho = x.shape[-1] ** 0.25 if self.bandwidth is None else self.bandwidth
        centre = constant(y).mean(axis=-2, keepdims=True)
        if namespace(x) is np and max(abs(constant(z) - centre).max(initial=0.0) for z in (x, y)) > FAR * rho:
            return -sum(((x[..., :, None, d] - y[..., None, :, d]) / rho) ** 2 for d in range(x.shape[-1])) / 2
        x, y = (x - centre) / rho, (y - centre) / rho
        return x @ transpose(y) - ((x**2).sum(-1)[..., :, None] + (y**2).sum(-1)[..., None, :]) / 2


@dataclass(frozen=True)
class EluPlusOne:
    """Linear attention: Phi(x) = elu(x) + 1 = max(x, 0) + exp(min(x, 0)), with F = D features.

    Source: Katharopoulos et al., ICML 2020; see tutorial 3.

    Examples
    --------
    >>> EluPlusOne().features(numpy.array([[0.0, 2.0]])).tolist()
    [[1.0, 3.0]]
    """

    def feature_count(self, dimension: int) -> int:
        """F = D."""
        return dimension

    def features(self, x: Float[Array, "... N D"]) -> Float[Array, "... N D"]:
        """max(x, 0) + exp(min(x, 0))."""
        xp = namespace(x)
        return xp.where(x > 0, x, 0.0) + xp.exp(xp.where(x > 0, 0.0, x))

    def log_features(self, x: Float[Array, "... N D"]) -> Float[Array, "... N D"]:
        """log(1 + x) where x > 0, else x."""
        xp = namespace(x)
        return xp.where(x > 0, xp.log1p(abs(x)), x)

    def log_gram(self, x: Float[Array, "... M D"], y: Float[Array, "... N D"]) -> Float[Array, "... M N"]:
        """log sum_f Phi_f(x_i) Phi_f(y_j)."""
        return log_inner_products(self.log_features(x), self.log_features(y))


@dataclass(frozen=True)
class RandomFeatures:
    """Positive random features, whose inner products estimate exp(x.y / sqrt(D)) without bias.

        Phi_r(x) = exp(w_r.x' - |x'|^2 / 2) / sqrt(F),    x' = x / D^(1/4),    w_r ~ N(0, 1),    r = 1..F

    The error is of the order 1 / sqrt(F). Source: FAVOR+, Choromanski et al., ICLR 2021, here with independent w_r.

    Parameters
    ----------
    count : int
        F, the number of features.
    seed : int
        The w_r are `numpy.random.default_rng(seed).standard_normal((count, D))`.

    Examples
    --------
    >>> x = numpy.array([[0.5, -0.5]])
    >>> abs(float(RandomFeatures(count=10_000, seed=0).log_gram(x, x)[0, 0]) - 0.5 / sqrt(2)) < 0.02
    True
    """

    count: int
    seed: int

    def __post_init__(self) -> None:
        checks.integer("RandomFeatures: count", self.count, 1)
        checks.integer("RandomFeatures: seed", self.seed, 0)

    def feature_count(self, dimension: int) -> int:
        """F = count."""
        return self.count

    def features(self, x: Float[Array, "... N D"]) -> Float[Array, "... N F"]:
        """Phi(x)."""
        return namespace(x).exp(self.log_features(x))

    def log_features(self, x: Float[Array, "... N D"]) -> Float[Array, "... N F"]:
        """w_r.x' - |x'|^2 / 2 - log(F) / 2."""
        x = x * x.shape[-1] ** -0.25
        w = like(_normal_draws(self.count, x.shape[-1], self.seed), x)
        return x @ transpose(w) - (x**2).sum(-1)[..., None] / 2 - log(self.count) / 2

    def log_gram(self, x: Float[Array, "... M D"], y: Float[Array, "... N D"]) -> Float[Array, "... M N"]:
        """log sum_r Phi_r(x_i) Phi_r(y_j)."""
        return log_inner_products(self.log_features(x), self.log_features(y))


@dataclass(frozen=True)
class Taylor:
    """The exponential kernel cut off at a degree, sum_{t <= degree} a^t / t! with a = x.y / sqrt(D).

    Its features are all monomials of x' = x / D^(1/4) up to the degree, prod_d x'_d^n_d / sqrt(n_1! ... n_D!), of
    which there are C(D + degree, degree). See tutorial 2. At an odd degree the kernel may be negative.

    Parameters
    ----------
    degree : int
        The highest power of x.y / sqrt(D), 0 or more.

    Examples
    --------
    >>> Taylor(2).gram(numpy.array([[2.0]]), numpy.array([[1.0]])).tolist()
    [[5.0]]
    """

    degree: int

    def __post_init__(self) -> None:
        checks.integer("Taylor: degree", self.degree, 0)

    def gram(self, x: Float[Array, "... M D"], y: Float[Array, "... N D"]) -> Float[Array, "... M N"]:
        """1 + a (1 + a/2 (1 + a/3 (...))), Horner's rule."""
        a = x @ transpose(y) * x.shape[-1] ** -0.5
        g = a * 0 + 1
        for t in range(self.degree, 0, -1):
            g = 1 + g * a / t
        return g

    def feature_count(self, dimension: int) -> int:
        """C(D + degree, degree)."""
        return comb(dimension + self.degree, self.degree)

    def features(self, x: Float[Array, "... N D"]) -> Float[Array, "... N F"]:
        """The monomials. Raises ValueError for more than 20,000 of them."""
        return _monomials(self, x, {t: 1.0 for t in range(self.degree + 1)})


@dataclass(frozen=True)
class Polynomial:
    """The polynomial kernel (x.y / sqrt(D) + offset)^degree. It may be negative, and then h may be, too.

    Its features are those of `Taylor`: the monomials of degree t, times sqrt(t! C(degree, t) offset^(degree - t)).

    Parameters
    ----------
    degree : int
        1 or more.
    offset : float
        0 or more.

    Examples
    --------
    >>> Polynomial(2, 1.0).gram(numpy.array([[2.0]]), numpy.array([[1.0]])).tolist()
    [[9.0]]
    """

    degree: int
    offset: float

    def __post_init__(self) -> None:
        checks.integer("Polynomial: degree", self.degree, 1)
        checks.number("Polynomial: offset", self.offset, least=0)

    def gram(self, x: Float[Array, "... M D"], y: Float[Array, "... N D"]) -> Float[Array, "... M N"]:
        """(x_i.y_j / sqrt(D) + offset)^degree."""
        return (x @ transpose(y) * x.shape[-1] ** -0.5 + self.offset) ** self.degree

    def feature_count(self, dimension: int) -> int:
        """The monomials up to the degree; of the degree alone if the offset is zero."""
        if self.offset:
            return comb(dimension + self.degree, self.degree)
        return comb(dimension + self.degree - 1, self.degree)

    def features(self, x: Float[Array, "... N D"]) -> Float[Array, "... N F"]:
        """The weighted monomials. Raises ValueError for more than 20,000 of them."""
        p, c = self.degree, self.offset
        squares = {t: factorial(t) * comb(p, t) * c ** (p - t) for t in range(p + 1)}
        return _monomials(self, x, {t: sqrt(square) for t, square in squares.items() if square})


def log_inner_products(log_x: Float[Array, "... M F"], log_y: Float[Array, "... N F"]) -> Float[Array, "... M N"]:
    """log <exp(log_x_i), exp(log_y_j)> of positive features, without overflow or underflow."""
    xp = namespace(log_x)
    top_x, top_y = (xp.amax(constant(z), axis=-1, keepdims=True) for z in (log_x, log_y))
    gram = xp.exp(log_x - top_x) @ transpose(xp.exp(log_y - top_y))
    if (constant(gram) > SMALLEST_SUM).all():
        return xp.log(gram) + top_x + transpose(top_y)
    total = log_x[..., :, None, 0] + log_y[..., None, :, 0]
    for f in range(1, log_x.shape[-1]):
        total = xp.logaddexp(total, log_x[..., :, None, f] + log_y[..., None, :, f])
    return total


def _monomials(
    kernel: Taylor | Polynomial, x: Float[Array, "... N D"], weights: Mapping[int, float]
) -> Float[Array, "... N F"]:
    """All monomials of x / D^(1/4) of each degree t in `weights`, over sqrt(n_1! ... n_D!), times weights[t]."""
    xp, dimension = namespace(x), x.shape[-1]
    count = kernel.feature_count(dimension)
    if count > MOST_FEATURES:
        raise ValueError(f"{kernel}: expected at most {MOST_FEATURES:,} features; D = {dimension} gives {count:,}")
    x = x * dimension**-0.25
    blocks = []
    for t, weight in weights.items():
        factors = list(combinations_with_replacement(range(dimension), t))  # (0, 0, 2) stands for x_0 x_0 x_2
        exponents = ([row.count(d) for d in set(row)] for row in factors)
        coefficients = numpy.array([weight / sqrt(prod(map(factorial, n))) for n in exponents])
        block = like(coefficients, x) + 0 * x[..., :1]
        for column in numpy.array(factors, int).reshape(len(factors), t).T:
            block = block * x[..., column]
        blocks.append(block)
    return xp.concatenate(blocks, -1)


@lru_cache(maxsize=16)
def _normal_draws(count: int, dimension: int, seed: int) -> Float[Array, "count D"]:
    return numpy.random.default_rng(seed).standard_normal((count, dimension))
