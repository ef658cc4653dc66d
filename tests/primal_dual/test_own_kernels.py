"""Kernels that a user writes: what is none is told, and what is one is taken."""

from dataclasses import dataclass

import autograd.numpy as np
import pytest

from primal_dual import (
    Primal,
    certify,
    solve_dual,
    solve_primal,
)

X, Y = np.random.default_rng(0).standard_normal((2, 11, 3))


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
