"""The kernel matrix and h of a few numbers, as they are documented: scaled, or refused."""

import numpy as np
import pytest

from primal_dual import Exponential, Polynomial, Primal
from primal_dual.kernel_matrix import kernel_rows, normalizer

X, KEYS = np.array([[1.0, 0.0], [0.0, 900.0]]), np.array([[1.0, 2.0], [3.0, -1.0], [0.0, 1.0]])
VISIBLE = np.array([[True, False, True], [True, True, True]])


def test_rows_of_a_positive_kernel_have_1_for_their_largest():
    w, top = kernel_rows(Primal(Exponential(1.0)), X, KEYS, VISIBLE)
    np.testing.assert_array_equal(top, [[1.0], [1800.0]])
    np.testing.assert_allclose(w, [[1, 0, np.exp(-1)], [1, 0, np.exp(-900)]], rtol=1e-14)
    np.testing.assert_allclose(normalizer(Primal(Exponential(1.0)), w), [[1 + np.exp(-1)], [1]], rtol=1e-14)


@pytest.mark.parametrize(
    "primal, expected",
    [
        (Primal(Exponential(1.0), normalizer="one"), np.exp([[1, -np.inf, 0], [2, -1, 1]])),
        (Primal(Polynomial(1, 0.0)), np.array([[1, 0, 0], [2, -1, 1]]) / np.sqrt(2)),
    ],
)
def test_others_are_not_scaled(primal, expected):
    w, top = kernel_rows(primal, X / np.array([[1], [900]]), KEYS, VISIBLE)
    assert top.shape == (2, 1) and (top == 0).all()
    np.testing.assert_allclose(w, expected, rtol=1e-14)


@pytest.mark.parametrize("normalizer_name", ["sum", "one"])
def test_one_row_that_is_not_finite_is_refused(normalizer_name):
    with pytest.raises(ValueError, match="is NaN or too large for a float"):
        normalizer(Primal(normalizer=normalizer_name), np.array([[1.0, 2.0], [np.inf, 1.0]]))


def test_h_is_one_where_it_is_said_to_be():
    rows = np.array([[1.0, -1.0, 0.0], [1.0, 2.0, 3.0]])
    np.testing.assert_array_equal(normalizer(Primal(Polynomial(1, 0.0), normalizer="one"), rows), [[1], [1]])
