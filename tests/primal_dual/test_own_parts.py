"""Parts that a user writes: what they may not be is said at once."""

from dataclasses import dataclass

import autograd.numpy as np
import pytest

from primal_dual import (
    Causal,
    Exponential,
    Heads,
    Primal,
    attention,
    certify,
    heads,
    register_attention,
    solve_dual,
    solve_primal,
)
from primal_dual.primal import catalog
from primal_dual.supports import Everything

X, Y = np.random.default_rng(0).standard_normal((2, 11, 3))


@dataclass(frozen=True)
class PrefixLM(Causal):
    def sees(self, i, j):
        return (j <= i) | (j < 4)


@dataclass(frozen=True)
class Steep(Exponential):
    def log_gram(self, x, y):
        return 2 * super().log_gram(x, y)


@pytest.mark.parametrize(("field", "part"), [("support", PrefixLM()), ("kernel", Steep())])
def test_a_part_that_inherits_from_another_is_refused(field, part):
    """Its parent's quick formulas would take the place of its own."""
    with pytest.raises(ValueError, match=f"expected a part that is written whole; got {type(part).__name__}.*inherits"):
        Primal(**{field: part})


@dataclass(frozen=True)
class Differences:
    def fit(self, keys, valid):
        return lambda x: np.concatenate([x[..., :1, :], x[..., 1:, :] - x[..., :-1, :]], axis=-2)


@dataclass(frozen=True)
class Fixed:
    def fit(self, keys, valid):
        return lambda x: keys


@dataclass(frozen=True)
class Transformed:
    def fit(self, keys, valid):
        return keys


WRONG_TRANSFORMS = {
    Differences(): "Differences.*expected T to act on each token by itself; got one that mixes tokens",
    Fixed(): r"Fixed.*expected T x \(\.\.\., 1, D\); got \(2, 11, 3\)",
    Transformed(): "Transformed.*expected that fit returns the function x -> T x; got",
}


@pytest.mark.parametrize("transform", WRONG_TRANSFORMS, ids=lambda each: type(each).__name__)
def test_a_transform_that_is_none_is_refused(transform):
    primal = Primal(transform=transform)
    for call in (
        lambda: attention(primal, X, X, Y),
        lambda: solve_dual(primal, X, Y, C=1, epsilon=0.1),
        lambda: certify(primal, X, Y),
    ):
        with pytest.raises(ValueError, match=WRONG_TRANSFORMS[transform]):
            call()


@dataclass(frozen=True)
class OneDeviation:
    """That of all numbers, so also of other sequences where there are several."""

    def fit(self, keys, valid):
        return lambda x: x / keys.std()


@dataclass(frozen=True)
class Untrue:
    independent_of_keys = True

    def fit(self, keys, valid):
        return lambda x: x - keys.mean(axis=-2, keepdims=True)


def test_a_transform_that_would_mix_sequences_is_refused():
    for support in (Everything(), Causal()):
        with pytest.raises(ValueError, match=r"OneDeviation.*expected T to act on each sequence by itself"):
            attention(Primal(transform=OneDeviation(), support=support), X, X, Y)


@pytest.mark.parametrize("support", [Everything(), Causal()])
def test_a_transform_that_depends_on_the_keys_and_denies_it_is_refused(support):
    with pytest.raises(ValueError, match=r"Untrue.*expected T that does not depend on the keys, as it says"):
        attention(Primal(transform=Untrue(), support=support), X, X, Y)


@dataclass(frozen=True)
class OfAllKeys:
    """Normalisation whose statistics take padding in."""

    def fit(self, keys, valid):
        mu = keys.mean(axis=-2, keepdims=True)
        return lambda x: x - mu


@dataclass(frozen=True)
class InPlace:
    independent_of_keys = True

    def fit(self, keys, valid):
        def double(x):
            x *= 2
            return x

        return double


@dataclass(frozen=True)
class MixedLogarithms:
    """Random numbers that are negative have none."""

    independent_of_keys = True

    def fit(self, keys, valid):
        return lambda x: np.log(x) - np.log(x).mean(axis=-2, keepdims=True)


@pytest.mark.parametrize(
    "transform, message",
    [
        (
            OfAllKeys(),
            r"OfAllKeys\(\): expected T to be fitted on the valid keys alone; got one that the others change",
        ),
        (
            InPlace(),
            r"InPlace\(\): expected a part that does not write into its arguments; got output array is read-only",
        ),
        (MixedLogarithms(), r"MixedLogarithms\(\): expected T to act on each token by itself"),
    ],
)
def test_a_transform_that_takes_or_changes_more_than_it_may_is_refused(transform, message):
    keys = abs(X)
    before = keys.copy()
    for call in (
        lambda: attention(Primal(transform=transform), keys, keys, Y),
        lambda: certify(Primal(transform=transform), keys, Y),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    assert (keys == before).all()


@dataclass(frozen=True)
class Whitening:
    """It needs more keys than features."""

    def fit(self, keys, valid):
        weight = (valid / valid.sum(-1)[..., None])[..., None, :]
        mu = weight @ keys
        covariance = np.swapaxes(keys - mu, -1, -2) @ ((keys - mu) * np.swapaxes(weight, -1, -2))
        inverse = np.linalg.inv(covariance)
        return lambda x: (x - mu) @ inverse


def test_a_whitening_of_many_features_is_taken():
    keys, values = np.random.default_rng(0).standard_normal((2, 40, 8))
    assert certify(Primal(transform=Whitening()), keys, values).relative_gap < 1e-10


@dataclass(frozen=True)
class Weighted:
    weights: np.ndarray

    def fit(self, keys, valid):
        return lambda x: x * self.weights


@dataclass(frozen=True)
class MixedUp:
    """The matrix of y and x, which is that of x and y where they are the same."""

    def log_gram(self, x, y):
        return y @ np.swapaxes(x, -1, -2)


@dataclass(frozen=True)
class TooFew:
    """Features that are not those of the kernel, or not as many as it says."""

    power: float
    count: int

    def feature_count(self, dimension):
        return self.count

    def features(self, x):
        return np.logaddexp(0.0, x) ** self.power

    def log_gram(self, x, y):
        return np.log(np.logaddexp(0.0, x) @ np.swapaxes(np.logaddexp(0.0, y), -1, -2))


def test_a_kernel_that_is_none_is_refused():
    with pytest.raises(
        ValueError, match=r"MixedUp.*expected a kernel matrix \(1, 11\) of real numbers; got float64 \(11, 1\)"
    ):
        certify(Primal(MixedUp()), X, Y)
    for kernel, got in (
        (TooFew(1.3, 3), r"expected 3 features.*; got 3, off by \d"),
        (TooFew(1.0, 4), "expected 4 features.*; got 3, off by"),
    ):
        with pytest.raises(ValueError, match=got):
            solve_primal(Primal(kernel), X, Y, C=1, epsilon=0.1)
    assert solve_primal(Primal(TooFew(1.0, 3)), X, Y, C=1, epsilon=0.1).value > 0


def test_heads_need_parts_that_can_be_compared():
    with pytest.raises(
        ValueError, match="Heads: expected parts that are frozen dataclasses of numbers and tuples; got"
    ):
        Heads(Primal(transform=Weighted(np.ones(3))))


def test_a_registered_name_stands_for_its_primal_alone():
    """Scales differ from head to head under built-in names only."""
    coarse = Primal(scale=16)
    register_attention("coarse", coarse)
    try:
        assert list(heads("coarse", 4)) == [coarse] * 4
    finally:
        del catalog["coarse"]
    assert [each.scale for each in heads("sh", 4)] == [1, 2, 4, 8]


@dataclass(frozen=True)
class Near:
    """1 for points nearer than 1.05, which is symmetric, but not positive semidefinite."""

    def gram(self, x, y):
        return (abs(x[..., :, None, 0] - y[..., None, :, 0]) < 1.05).astype(float)


def test_a_kernel_that_is_none_between_neighbours_is_seen_among_many_keys():
    """Every second key or fewer would look independent of the others."""
    x = np.arange(600.0)[:, None]
    with pytest.raises(ValueError, match=r"Near\(\): expected.*positive semidefinite; got asymmetry 0 and smallest"):
        certify(Primal(Near()), x, np.cos(np.pi * x))
    x = np.arange(4001.0)[:, None]
    with pytest.raises(ValueError, match=r"Near\(\): expected.*positive semidefinite"):
        solve_dual(Primal(Near(), normalizer="one"), x, np.cos(np.pi * x), C=5, epsilon=0.1, solver="newton")


@dataclass(frozen=True)
class NearOnceAWhile:
    """`Near` between 20 and 30, and the identity elsewhere, where a few of many points are looked at."""

    def gram(self, x, y):
        x, y = x[..., :, None, 0], y[..., None, :, 0]
        near = abs(x - y) < np.where((x > 20) & (y > 20) & (x < 30) & (y < 30), 1.05, 0.5)
        return near.astype(float)


def test_a_negative_norm_is_no_certificate():
    x = np.arange(2000.0)[:, None]
    values = np.where((x > 20) & (x < 30), np.cos(np.pi * x), 0.0)
    with pytest.raises(ValueError, match=r"NearOnceAWhile.*positive semidefinite; got a negative \|W\|\^2 for these"):
        certify(Primal(NearOnceAWhile(), normalizer="one"), x, values)


@dataclass(frozen=True)
class Swapped:
    """x_0 y_1 + x_1 y_0, which is indefinite and zero between a unit vector and itself."""

    def gram(self, x, y):
        return x @ np.swapaxes(y[..., ::-1], -1, -2)


@pytest.mark.parametrize("size", [1.0, 1e-5, 1e-8, 1e-80])
def test_the_size_of_the_keys_does_not_hide_what_is_no_kernel(size):
    keys = size * np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0], [0.0, 3.0]])
    with pytest.raises(ValueError, match=r"Swapped\(\): expected.*positive semidefinite"):
        certify(Primal(Swapped()), keys, np.array([[1.0], [-1.0], [2.0], [-3.0]]))


@dataclass(frozen=True)
class Centred:
    """It depends on all y, so that two points alone give other numbers."""

    def log_gram(self, x, y):
        centre = y.mean(axis=-2, keepdims=True)
        return (x - centre) @ np.swapaxes(y - centre, -1, -2)


@dataclass(frozen=True)
class Complex:
    def gram(self, x, y):
        return x @ np.swapaxes(y, -1, -2) * 1j


@dataclass(frozen=True)
class OneNumber:
    def gram(self, x, y):
        return 1.0


@dataclass(frozen=True)
class Rescaling:
    def log_gram(self, x, y):
        x /= 2
        return x @ np.swapaxes(y, -1, -2)


@pytest.mark.parametrize(
    "kernel, message",
    [
        (Centred(), r"Centred\(\): expected <Phi.*of these two points alone; got others where other points are beside"),
        (Complex(), r"Complex\(\): expected a kernel matrix \(11, .*\) of real numbers; got complex128"),
        (OneNumber(), r"OneNumber\(\): expected a kernel matrix \(11, .*\) of real numbers; got 1.0"),
        (Rescaling(), r"Rescaling\(\): expected a part that does not write into its arguments"),
    ],
)
def test_what_a_kernel_may_not_do_is_told(kernel, message):
    before = X.copy()
    for call in (certify, lambda *arguments: solve_dual(*arguments, C=1, epsilon=0.1)):
        with pytest.raises(ValueError, match=message):
            call(Primal(kernel), X, Y)
    assert (before == X).all()


@dataclass(frozen=True)
class WrongSquare:
    """The features of (x.y)^2 + 1 without the factor sqrt(2) of mixed products."""

    def feature_count(self, dimension):
        return 1 + dimension * (dimension + 1) // 2

    def features(self, x):
        i, j = np.triu_indices(x.shape[-1])
        return np.concatenate([np.ones((*x.shape[:-1], 1)), x[..., i] * x[..., j]], axis=-1)

    def gram(self, x, y):
        return (x @ np.swapaxes(y, -1, -2)) ** 2 + 1


@pytest.mark.parametrize("first", [np.zeros((20, 3)), np.eye(3).repeat(7, axis=0)], ids=["silence", "one-hot"])
def test_wrong_features_are_seen_behind_keys_that_hide_them(first):
    keys = np.concatenate([first, np.random.default_rng(0).standard_normal((3, 3))])
    with pytest.raises(ValueError, match=r"WrongSquare\(\): expected 7 features whose inner products are the kernel"):
        solve_primal(Primal(WrongSquare()), keys, keys, C=1, epsilon=0.1)


@dataclass(frozen=True)
class SameCategory:
    """1 for equal whole numbers, whose features are defined nowhere else."""

    def feature_count(self, dimension):
        return 10

    def features(self, x):
        return np.eye(10)[x[..., 0].astype(int)]

    def gram(self, x, y):
        return (x[..., :, None, 0] == y[..., None, :, 0]).astype(float)


@dataclass(frozen=True)
class Anchored:
    """The Gaussian kernel of functions that are zero at the point (1, 1, 1)."""

    def gram(self, x, y):
        def gaussian(a, b):
            return np.exp(-((a[..., :, None, :] - b[..., None, :, :]) ** 2).sum(axis=-1))

        c = np.ones((1, x.shape[-1]))
        return gaussian(x, y) - gaussian(x, c) - gaussian(c, y) + 1


def test_right_kernels_are_taken():
    x = np.arange(9.0)[:, None] % 4
    assert solve_primal(Primal(SameCategory()), x, x, C=1, epsilon=0.1).relative_gap < 1e-10
    for seed in range(20):
        keys, values = np.random.default_rng(seed).standard_normal((2, 20, 3))
        keys[3] = 1
        assert certify(Primal(Anchored(), normalizer="one"), keys, values).relative_gap < 1e-10


def test_a_transform_is_tried_once(monkeypatch):
    fits, fit = [], Whitening.fit
    monkeypatch.setattr(Whitening, "fit", lambda self, keys, valid: fits.append(len(keys)) or fit(self, keys, valid))
    for _ in range(5):
        attention(Primal(transform=Whitening()), X, X, Y)
    assert len(fits) < 12
    assert attention(Primal(transform=Weighted(np.ones(3))), X, X, Y).shape == Y.shape  # which has no hash
