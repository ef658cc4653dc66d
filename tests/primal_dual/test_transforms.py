"""Transforms against the formulas in their docstrings."""

import numpy as np
import pytest
import torch
from autograd import grad
from hypothesis import given
from scipy.signal import correlate2d

import torch_impl
from primal_dual import BatchNorm, Convolution, Primal, UnitNorm, attention, catalog
from tests.problems import GRID, naive_convolution, seeds


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


def test_batch_norm_divides_as_pytorchs_does_unless_told():
    assert BatchNorm() == BatchNorm(beta=1.0, eps=torch.nn.BatchNorm1d(3).eps)


def test_a_zero_vector_stays_zero_at_unit_length_and_attends_to_all_keys_alike():
    keys, values = np.random.default_rng(0).standard_normal((2, 7, 3))
    x = np.array([[0.0, 0, 0], [1, 2, 2]])
    np.testing.assert_allclose(UnitNorm().fit(keys, None)(x), x / [[1], [3]], rtol=1e-15)
    f = attention(catalog["qk-norm"], x, keys, values)
    np.testing.assert_allclose(f[0], values.mean(axis=0), rtol=1e-13)
    theirs = torch_impl.attention(catalog["qk-norm"], *map(torch.tensor, (x, keys, values)))
    np.testing.assert_allclose(f, theirs, rtol=1e-12)
    assert np.isfinite(grad(lambda x: attention(catalog["qk-norm"], x, keys, values).sum())(x)).all()


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


def test_a_list_of_transforms_is_a_tuple_of_them():
    parts = [UnitNorm(), BatchNorm()]
    assert Primal(transform=parts) == Primal(transform=tuple(parts)) and hash(Primal(transform=parts))


def test_keys_whose_variance_no_float_holds_are_refused():
    keys = np.random.default_rng(0).standard_normal((5, 3))
    attention(Primal(transform=BatchNorm()), 1e150 * keys, 1e150 * keys, keys)
    with pytest.raises(ValueError, match=r"BatchNorm\(.*expected keys whose variance a float can hold"):
        attention(Primal(transform=BatchNorm()), 1e160 * keys, 1e160 * keys, keys)
