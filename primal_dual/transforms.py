"""Transforms: T in f(x) = W Phi(T x)/h(x) + b, applied to queries and keys alike.

`transform.fit(keys, real)` takes training keys (..., n, D) and which of them are real, (..., n) booleans, to the
function x -> T x, (..., M, D) -> (..., M, D). `pointwise = True` says that T does not depend on the keys, so that
queries with training sets of their own can share it. A transform of your own is a frozen dataclass with `fit`.

`Convolution` alone acts on the sequence as a whole, before any query's training set is taken from it. Wherever it
stands in a tuple of transforms it therefore comes first; the others follow from left to right.
"""

from dataclasses import dataclass
from functools import reduce

import numpy

from primal_dual import checks
from primal_dual.arrays import constant, like, namespace


@dataclass(frozen=True)
class Identity:
    """T x = x."""

    pointwise = True

    def fit(self, keys, real):
        return lambda x: x


@dataclass(frozen=True)
class BatchNorm:
    """T x = (x - beta mu) / sqrt(sigma^2 + eps): Attention-BN (arXiv 2406.13781).

    mu, sigma^2 (D): mean and biased variance of the training keys of the SVR.
    """

    beta: float = 1.0
    eps: float = 1e-5

    def __post_init__(self):
        checks.number("BatchNorm: beta", self.beta)
        checks.number("BatchNorm: eps", self.eps, above=0)

    def fit(self, keys, real):
        share = (real / real.sum(-1)[..., None])[..., None, :]
        mu = share @ keys
        s = (share @ (keys - mu) ** 2 + self.eps) ** -0.5
        return lambda x: (x - self.beta * mu) * s


@dataclass(frozen=True)
class UnitNorm:
    """T x = x / |x|, Euclidean norm over the features: cosine attention, "QK-norm". A zero vector is a ValueError."""

    pointwise = True

    def fit(self, keys, real):
        def apply(x):
            largest = namespace(x).amax(abs(constant(x)), axis=-1, keepdims=True)
            if (largest == 0).any():
                raise ValueError("UnitNorm: expected tokens of nonzero length; got a zero vector")
            x = x / largest  # so that no square overflows or underflows
            return x / ((x**2).sum(-1) ** 0.5)[..., None]

        return apply


@dataclass(frozen=True)
class Convolution:
    """(T x)_i = sum_t kernel_t x_(i+t-r), t = 0..2r: a zero-padded correlation along the tokens, for each feature.

    kernel: an odd number of taps; or odd rows of odd taps, on the row-major token grid `width` tokens wide, of which
    the last row may be short. Tokens that are not real count as zero. A causal one looks back only: its last tap is
    on the token itself, (T x)_i = sum_t kernel_t x_(i+t-2r).
    """

    kernel: tuple
    width: int | None = None

    def __post_init__(self):
        try:
            taps = numpy.array(self.kernel, dtype=float)
        except (TypeError, ValueError) as error:
            raise ValueError(f"Convolution: expected numbers, in rows of one length; got {self.kernel!r}") from error
        if taps.ndim not in (1, 2) or not all(size % 2 for size in taps.shape) or not numpy.isfinite(taps).all():
            raise ValueError(f"Convolution: expected an odd number of finite taps each way; got {taps.tolist()}")
        if (self.width is None) != (taps.ndim == 1):
            raise ValueError(
                f"Convolution: expected a width with rows of taps alone; got {taps.ndim}-D taps, width {self.width}"
            )
        if self.width is not None:
            checks.integer("Convolution: width", self.width, 1)
        rows = tuple(map(tuple, taps.tolist())) if taps.ndim == 2 else tuple(taps.tolist())
        object.__setattr__(self, "kernel", rows)

    def convolve(self, x, real, causal=False):
        """x (..., N, D), real (..., N) -> (..., N, D)."""
        taps = numpy.array(self.kernel).reshape(len(self.kernel), -1)
        width = self.width or 1
        row, column = numpy.divmod(numpy.arange(x.shape[-2]), width)
        centre = numpy.array(taps.shape) - 1 if causal else numpy.array(taps.shape) // 2
        x = x * real[..., None]
        total = 0 * x
        for (a, b), tap in numpy.ndenumerate(taps):
            i, j = row + a - centre[0], column + b - centre[1]
            token = i * width + j
            inside = (j >= 0) & (j < width) & (token >= 0) & (token < len(row))
            total = total + like(tap * inside[:, None], x) * x[..., numpy.where(inside, token, 0), :]
        return total


def parts(transform):
    """The parts of a transform or of a tuple of them: the convolutions, and the others."""
    every = transform if isinstance(transform, tuple) else (transform,)
    convolutions = tuple(part for part in every if isinstance(part, Convolution))
    return convolutions, tuple(part for part in every if not isinstance(part, Convolution))


def fit(transforms, keys, real):
    """Fit transforms from left to right, each on the keys that those before it give -> (x -> T x, T keys)."""
    fitted = []
    for part in transforms:
        fitted.append(part.fit(keys, real))
        tokens, keys = keys.shape[-2], fitted[-1](keys)
        if getattr(keys, "shape", (0, 0))[-2:-1] != (tokens,):
            raise ValueError(f"{part}: expected T x (..., {tokens}, D); got {getattr(keys, 'shape', keys)}")
    return lambda x: reduce(lambda x, apply: apply(x), fitted, x), keys
