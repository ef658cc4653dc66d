"""Kernels, transforms and supports against the formulas in their docstrings."""

import math

import numpy as np
import pytest
from hypothesis import given
from scipy.signal import correlate2d

from primal_dual import (
    BatchNorm,
    Causal,
    Convolution,
    EluPlusOne,
    Everything,
    Exponential,
    Mask,
    Polynomial,
    RandomFeatures,
    Strided,
    Taylor,
    UnitNorm,
    Window,
)
from tests.problems import GRID, kernels, naive_convolution, naive_kernel, seeds


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


@given(seeds)
def test_batch_norm_and_unit_norm_formulas(seed):
    rng = np.random.default_rng(seed)
    keys, x = rng.standard_normal((7, 3)), rng.standard_normal((5, 3))
    valid = np.arange(7) != 2
    fitted = BatchNorm(beta=0.4, eps=0.01).fit(keys, valid)(x)
    expected = (x - 0.4 * keys[valid].mean(axis=0)) / np.sqrt(keys[valid].var(axis=0) + 0.01)
    np.testing.assert_allclose(fitted, expected, rtol=1e-13, atol=1e-14)
    for size in (1e-200, 1, 1e200):
        unit = UnitNorm().fit(keys, valid)(size * x)
        np.testing.assert_allclose(unit, x / np.linalg.norm(x, axis=1, keepdims=True), rtol=1e-13)


@given(seeds)
def test_convolution_formulas(seed):
    x = np.random.default_rng(seed).standard_normal((7, 2))
    valid = np.ones(7, bool)
    taps = (0.2, 0.5, -0.1, 0.3, 0.4)
    expected = np.stack([np.correlate(column, taps, "same") for column in x.T], axis=1)
    np.testing.assert_allclose(Convolution(taps).convolve(x, valid), expected, atol=1e-14)
    np.testing.assert_allclose(
        Convolution(taps).convolve(x, valid, causal=True), naive_convolution(Convolution(taps), x, True), atol=1e-14
    )
    nine = np.concatenate([x, np.zeros((2, 2))])  # the last row of the grid, filled up
    expected = np.stack(
        [correlate2d(column.reshape(3, 3), GRID.kernel, "same").ravel()[:7] for column in nine.T], axis=1
    )
    np.testing.assert_allclose(GRID.convolve(x, valid), expected, atol=1e-14)
    valid[4] = False
    np.testing.assert_allclose(GRID.convolve(x, valid), GRID.convolve(x * valid[:, None], np.ones(7, bool)), atol=1e-14)


def test_supports():
    i, j = np.arange(4)[:, None], np.arange(5)
    table = np.random.default_rng(0).random((4, 5)) < 0.5
    for support, sees in (
        (Everything(), lambda i, j: True),
        (Window(1), lambda i, j: abs(i - j) <= 1),
        (Strided(3), lambda i, j: (i - j) % 3 == 0),
        (Causal(), lambda i, j: j <= i),
        (Mask(table), lambda i, j: table[i, j]),
    ):
        assert (support.sees(i, j) == [[sees(a, b) for b in range(5)] for a in range(4)]).all()
    mask = Mask(table)
    assert mask == mask != Mask(table) and hash(mask) == hash(mask)
