"""Transforms that a user writes: what they may not do is said at once."""

from dataclasses import dataclass

import autograd.numpy as np
import pytest

from primal_dual import (
    Causal,
    Heads,
    Primal,
    attention,
    certify,
    solve_dual,
)
from primal_dual.supports import Everything

X, Y = np.random.default_rng(0).standard_normal((2, 11, 3))


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


def test_a_transform_is_tried_once(monkeypatch):
    fits, fit = [], Whitening.fit
    monkeypatch.setattr(Whitening, "fit", lambda self, keys, valid: fits.append(len(keys)) or fit(self, keys, valid))
    for _ in range(5):
        attention(Primal(transform=Whitening()), X, X, Y)
    assert len(fits) < 12
    assert attention(Primal(transform=Weighted(np.ones(3))), X, X, Y).shape == Y.shape  # which has no hash


def test_heads_need_parts_that_can_be_compared():
    with pytest.raises(
        ValueError, match="Heads: expected parts that are frozen dataclasses of numbers and tuples; got"
    ):
        Heads(Primal(transform=Weighted(np.ones(3))))
