"""Transforms: T in f(x) = W Phi(T x) / h(x) + b, applied to queries and keys alike.

A transform is fitted on the training keys of an SVR, as `protocols.py` says. `Convolution` alone acts on the sequence
as a whole, before any query's training set is taken from it: wherever it stands in a tuple of transforms it comes
first, and the others follow from left to right.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce

import numpy

from primal_dual import checks
from primal_dual.arrays import constant, namespace, writes_refused
from primal_dual.protocols import Transform
from primal_dual.types import Array, Bool, Float

Fitted = Callable[[Float[Array, "... M D"]], Float[Array, "... M D"]]
SAME = 1e-6  # relative to the largest number


@dataclass(frozen=True)
class Identity:
    """No transform: T x = x."""

    independent_of_keys = True

    def fit(self, keys: Float[Array, "... N D"], valid: Bool[Array, "... N"]) -> Fitted:
        """The function x -> x."""
        return lambda x: x


@dataclass(frozen=True)
class BatchNorm:
    """Batch normalisation, which makes Attention-BN: T x = (x - beta mu) / sqrt(sigma^2 + eps).

    mu and sigma^2, of shape (D,), are the mean and the biased variance of the training keys of the SVR: under a sparse
    support those that the query may see, with pools the pooled keys, with padding the valid keys.
    Source: arXiv 2406.13781; see tutorial 4.

    Parameters
    ----------
    beta : float
        The share of the mean that is subtracted.
    eps : float
        A positive number that keeps the division away from zero.

    Examples
    --------
    >>> keys = numpy.array([[1.0], [3.0]])
    >>> BatchNorm(eps=1e-12).fit(keys, numpy.array([True, True]))(keys).round(6).tolist()
    [[-1.0], [1.0]]
    """

    beta: float = 1.0
    eps: float = 1e-5

    def __post_init__(self) -> None:
        checks.number("BatchNorm: beta", self.beta)
        checks.number("BatchNorm: eps", self.eps, above=0)

    def fit(self, keys: Float[Array, "... N D"], valid: Bool[Array, "... N"]) -> Fitted:
        """The function x -> (x - beta mu) s, with s = 1 / sqrt(sigma^2 + eps). ValueError where sigma^2 overflows."""
        weight = (valid / valid.sum(-1)[..., None])[..., None, :]
        mu = weight @ keys
        with numpy.errstate(over="ignore"):  # reported below
            variance = weight @ (keys - mu) ** 2
        if not numpy.isfinite(constant(variance)).all():
            raise ValueError(f"{self}: expected keys whose variance a float can hold; scale them down")
        s = (variance + self.eps) ** -0.5
        return lambda x: (x - self.beta * mu) * s


@dataclass(frozen=True)
class UnitNorm:
    """Unit length: T x = x / |x|, Euclidean norm over the features. It makes cosine attention, also called QK-norm.

    Examples
    --------
    >>> UnitNorm().fit(None, None)(numpy.array([[3.0, 4.0]])).tolist()
    [[0.6, 0.8]]
    """

    independent_of_keys = True

    def fit(self, keys: Float[Array, "... N D"] | None, valid: Bool[Array, "... N"] | None) -> Fitted:
        """The function x -> x / |x|. A vector of zeros stays zero."""

        def apply(x: Float[Array, "... M D"]) -> Float[Array, "... M D"]:
            xp = namespace(x)
            largest = xp.amax(abs(constant(x)), axis=-1, keepdims=True)
            x = x / xp.where(largest > 0, largest, 1.0)  # so that no square overflows or underflows
            square = (x**2).sum(-1)[..., None]
            return x / xp.where(square > 0, square, 1.0) ** 0.5

        return apply


@dataclass(frozen=True)
class Convolution:
    """One convolution kernel along the tokens, for each feature: (T x)_i = sum_t kernel_t x_(i+t-r), t = 0..2r.

    It is a correlation of the same length, with zeros beyond the ends and in the place of padding. On a grid of tokens
    it runs along rows and columns. Under a causal support it looks back only: its last tap is on the token itself,
    (T x)_i = sum_t kernel_t x_(i+t-2r). See tutorial 3.

    Parameters
    ----------
    kernel : tuple
        An odd number of taps; or an odd number of rows, each of an odd number of taps.
    width : int, optional
        With rows of taps: how many tokens wide the row-major grid is. Its last row may be short.

    Examples
    --------
    >>> x, valid = numpy.array([[1.0], [2.0], [4.0]]), numpy.array([True, True, True])
    >>> Convolution((1.0, 0.0, -1.0)).convolve(x, valid).tolist()
    [[-2.0], [-3.0], [2.0]]
    """

    kernel: tuple
    width: int | None = None

    def __post_init__(self) -> None:
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

    def convolve(
        self, x: Float[Array, "... N D"], valid: Bool[Array, "... N"], causal: bool = False
    ) -> Float[Array, "... N D"]:
        """T x. Tokens that are not valid count as zero."""
        taps = numpy.array(self.kernel).reshape(len(self.kernel), -1)
        width = self.width or 1
        row, column = numpy.divmod(numpy.arange(x.shape[-2]), width)
        centre = numpy.array(taps.shape) - 1 if causal else numpy.array(taps.shape) // 2
        x = x * valid[..., None]
        total = 0 * x
        for (a, b), tap in numpy.ndenumerate(taps):
            neighbour_row, neighbour_column = row + a - centre[0], column + b - centre[1]
            neighbour = neighbour_row * width + neighbour_column
            inside = (neighbour_column >= 0) & (neighbour_column < width) & (neighbour >= 0) & (neighbour < len(row))
            total = total + tap * inside[:, None] * x[..., numpy.where(inside, neighbour, 0), :]
        return total


def split_convolutions(transform: object) -> tuple[tuple[Convolution, ...], tuple[Transform, ...]]:
    """The convolutions of a transform, or of a tuple of them, and then the others, each in their order."""
    every = transform if isinstance(transform, tuple) else (transform,)
    convolutions = tuple(part for part in every if isinstance(part, Convolution))
    return convolutions, tuple(part for part in every if not isinstance(part, Convolution))


def independent_of_keys(transforms: Sequence[Transform]) -> bool:
    """Whether T is the same for any keys, see `protocols.Transform`.

    Examples
    --------
    >>> independent_of_keys([UnitNorm()]), independent_of_keys([UnitNorm(), BatchNorm()])
    (True, False)
    """
    return all(getattr(part, "independent_of_keys", False) for part in transforms)


def fit(
    transforms: Sequence[Transform], keys: Float[Array, "... N D"], valid: Bool[Array, "... N"]
) -> tuple[Fitted, Float[Array, "... N D"]]:
    """Fit transforms from left to right, each on the keys that those before it give.

    Returns
    -------
    tuple
        The function x -> T x, and T of the keys.

    Raises
    ------
    ValueError
        For a transform that writes into its arguments; whose result has another number of tokens; under which a token
        depends on those beside it, or a sequence on those beside it; and that depends on keys that are not valid, or on
        the keys at all though it says that it does not.
    """
    fitted: list[Fitted] = []
    for part in transforms:
        if type(part).__module__ != __name__:
            check = _expect_local if _is_hashable(part) else _expect_local.__wrapped__
            check(part, keys.shape[-1])  # type: ignore[arg-type]
        fitted.append(checked(part, part.fit(keys, valid)))
        keys = fitted[-1](keys)
    return lambda x: reduce(lambda x, apply: apply(x), fitted, x), keys


def checked(part: object, apply: Fitted) -> Fitted:
    """The function x -> T x that a transform was fitted to, with a ValueError for another number of tokens."""
    if not callable(apply):
        raise ValueError(f"{part}: expected that fit returns the function x -> T x; got {apply!r}")

    def apply_and_check(x: Float[Array, "... M D"]) -> Float[Array, "... M D"]:
        y = apply(x)
        shape = tuple(getattr(y, "shape", ()))
        if shape[-2:-1] != x.shape[-2:-1]:
            raise ValueError(f"{part}: expected T x (..., {x.shape[-2]}, D); got {shape or y}")
        return y

    return apply_and_check


def depends_on_order(transforms: Sequence[Transform], D: int) -> bool:
    """Whether T of a token of D features depends on the order of the keys, as random numbers tell.

    Examples
    --------
    >>> depends_on_order([BatchNorm()], 3)
    False
    """
    x = numpy.random.default_rng(0).standard_normal((2 * D + 5, D))
    valid = numpy.ones(len(x), bool)
    with numpy.errstate(all="ignore"):
        return not _close(fit(transforms, x[::-1], valid)[1][::-1], fit(transforms, x, valid)[1])


def _is_hashable(part: object) -> bool:
    try:
        hash(part)
    except TypeError:
        return False
    return True


@lru_cache(maxsize=64)
def _expect_local(part: Transform, D: int) -> None:
    """ValueError unless T does what `protocols.Transform` says, as random keys show.

    There are so many that their covariance has an inverse. If T of them is not finite, their absolute values are taken.
    """
    n = 2 * D + 5
    x, valid = numpy.random.default_rng(0).standard_normal((2, n, D)), numpy.ones((2, n), bool)
    but_last = numpy.arange(n) < n - 1
    with numpy.errstate(all="ignore"):
        if not numpy.isfinite(_fit_and_apply(part, x, valid, x)).all():
            x = abs(x)
        y, last = _fit_and_apply(part, x, valid, x), x[:, -1:]
        token = _fit_and_apply(part, x, valid, last)
        sequence = _fit_and_apply(part, x[0], valid[0], x[0])
        without = _fit_and_apply(part, x[:, :-1], valid[:, :-1], last)
        padded = _fit_and_apply(part, numpy.where(but_last[:, None], x, x[:, :1]), but_last, last)
        of_one_key = _fit_and_apply(part, last, valid[:, -1:], last) if independent_of_keys([part]) else token
    for z, expected, got in (
        (token, y[:, -1:], "T to act on each token by itself; got one that mixes tokens or depends on their order"),
        (sequence, y[0], "T to act on each sequence by itself; got one that mixes sequences"),
        (of_one_key, token, "T that does not depend on the keys, as it says; got one that does"),
        (padded, without, "T to be fitted on the valid keys alone; got one that the others change"),
    ):
        if not _close(z, expected):
            raise ValueError(f"{part}: expected {got}")


def _fit_and_apply(
    part: Transform,
    keys: Float[numpy.ndarray, "... N D"],
    valid: Bool[numpy.ndarray, "... N"],
    x: Float[numpy.ndarray, "... M D"],
) -> Float[numpy.ndarray, "... M F"]:
    """T x. ValueError where T writes into the keys or x."""
    with writes_refused(part, keys, x) as (keys, x):
        return checked(part, part.fit(keys, valid))(x)


def _close(y: Float[numpy.ndarray, "... n F"], expected: Float[numpy.ndarray, "... n F"]) -> bool:
    return not (abs(y - expected) > SAME * abs(expected).max()).any()
