"""Kernels against the formulas in their docstrings."""

import math

import numpy as np
import pytest
from hypothesis import given

from primal_dual import EluPlusOne, Exponential, Gaussian, Polynomial, RandomFeatures, Taylor
from tests.problems import kernels, naive_kernel, seeds


def gram(kernel, x, y):
    return np.exp(kernel.log_gram(x, y)) if hasattr(kernel, "log_gram") else kernel.gram(x, y)


@given(kernels, seeds)
def test_kernel_formulas(kernel, seed):
    x, y = np.random.default_rng(seed).standard_normal((2, 5, 3))
    expected = [[naive_kernel(kernel, a, b) for b in y] for a in x]
    np.testing.assert_allclose(gram(kernel, x, y), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(
    "kernel",
    [
        Taylor(0),
        Taylor(1),
        Taylor(4),
        Polynomial(3, 0.5),
        Polynomial(3, 0),
        Polynomial(1, 2),
        EluPlusOne(),
        RandomFeatures(11, seed=3),
    ],
)
def test_features_have_the_kernel_as_inner_product(kernel):
    x, y = np.random.default_rng(0).standard_normal((2, 2, 5, 3))
    features = kernel.features(x)
    assert features.shape == (2, 5, kernel.feature_count(3))
    np.testing.assert_allclose(
        features @ kernel.features(y).swapaxes(-1, -2), gram(kernel, x, y), rtol=1e-12, atol=1e-13
    )
    if hasattr(kernel, "log_features"):
        np.testing.assert_allclose(np.exp(kernel.log_features(x)), features, rtol=1e-13)


def test_taylor_features_are_the_monomials():
    x = np.array([[2.0, 3.0]])
    a, b = x[0] / 2**0.25
    expected = [1, a, b, a * a / math.sqrt(2), a * b, b * b / math.sqrt(2)]
    np.testing.assert_allclose(Taylor(2).features(x)[0], expected, rtol=1e-14)
    assert Taylor(4).features(np.zeros((1, 12))).shape == (1, 1820)
    assert Taylor(1).features(np.zeros((1, 19_999))).shape == (1, 20_000)
    with pytest.raises(ValueError, match=r"at most 20,000 features; D = 64 gives 814,385"):
        Taylor(4).features(np.zeros((1, 64)))


def test_taylor_becomes_the_exponential_kernel():
    x, y = np.random.default_rng(0).standard_normal((2, 5, 3))
    errors = [abs(gram(Taylor(degree), x, y) - gram(Exponential(), x, y)).max() for degree in (2, 4, 8, 16, 24)]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 1e-12


def test_error_of_random_features_falls_as_one_over_root_count():
    x, y = np.random.default_rng(0).standard_normal((2, 20, 4)) / 2
    counts = np.array([64, 1024, 16384])
    errors = [
        np.sqrt(
            np.mean(
                [(gram(RandomFeatures(int(count), seed), x, y) - gram(Exponential(), x, y)) ** 2 for seed in range(10)]
            )
        )
        for count in counts
    ]
    slope = np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert -0.6 < slope < -0.4


@pytest.mark.parametrize("distance", [1.0, 1e3, 1e6, 1e9])
def test_gaussian_keeps_its_digits_far_from_the_centre(distance):
    """Two clusters, so that no centre is near both, and a key far from all others."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.standard_normal((5, 3)) + distance, rng.standard_normal((5, 3)) - distance])
    x = np.concatenate([x, [[1e3 * distance, 0, 0]]])
    square = ((x[:, None] - x) ** 2).sum(axis=-1)
    np.testing.assert_allclose(Gaussian(2.0).log_gram(x, x), -square / 8, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(
        Gaussian(2.0).log_gram(x[None], x[None, :4])[0], -square[:, :4] / 8, rtol=1e-11, atol=1e-11
    )
