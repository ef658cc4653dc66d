"""What is left of a primal for one query: its points, and numbers that would overflow but for their logarithms."""

import numpy as np
import pytest
from hypothesis import assume, given

from primal_dual import BatchNorm, Causal, EluPlusOne, Exponential, Mask, Polynomial, Primal, Taylor, Window, attention
from primal_dual.svr.features import Features
from primal_dual.svr.training_sets import pooled_rows, training_set
from tests.problems import naive_kernel, primals, seeds


@pytest.mark.parametrize(
    "primal, query, members, pools",
    [
        (Primal(), None, range(7), [[0], [1], [2], [3], [4], [5], [6]]),
        (Primal(scale=3), None, range(7), [[0, 1, 2], [3, 4, 5], [6]]),
        (Primal(support=Causal()), 2, range(3), [[0], [1], [2]]),
        (Primal(support=Causal(), scale=2), 4, range(5), [[0, 1], [2, 3], [4]]),
        (Primal(support=Window(1), scale=2), 2, [1, 2, 3], [[1], [2, 3]]),
        (Primal(support=Mask(np.arange(7)[None] % 3 == 1), scale=2), 0, [1, 4], [[1], [4]]),
    ],
)
def test_points_are_the_averages_of_what_the_query_sees(primal, query, members, pools):
    keys = np.random.default_rng(0).standard_normal((7, 3))
    train = training_set(primal, keys, query)
    assert np.flatnonzero(train.members).tolist() == list(members)
    averages = np.array([keys[pool].mean(axis=0) for pool in pools])
    np.testing.assert_allclose(train.keys, averages, rtol=1e-14)
    np.testing.assert_allclose(train.pool(keys), averages, rtol=1e-14)
    spread = np.zeros((7, 1))
    for i, pool in enumerate(pools):
        spread[pool] = i + 1
    np.testing.assert_array_equal(train.spread(np.arange(1.0, len(pools) + 1)[:, None]), spread)
    np.testing.assert_array_equal(pooled_rows("y", averages, train), averages)


@given(primals(), seeds)
def test_rows_gram_and_norms_are_those_of_the_definition(primal, seed):
    """Once in loops, without logarithms: z_j = Phi(T k_j) / h(k_j)."""
    rng = np.random.default_rng(seed)
    keys, x = rng.standard_normal((7, 3)), rng.standard_normal((4, 3))
    train = training_set(primal, keys, 4)
    tx, tk = train.transform(x), train.transform(train.keys)
    assume((np.concatenate([tx, tk]) @ tk.T).max() < 700 > (tx**2).sum(axis=1).max())  # else loops overflow
    K = np.array([[naive_kernel(primal.kernel, a, b) for b in tk] for a in np.concatenate([tx, tk])])
    h = K.sum(axis=1) if primal.normalizer == "sum" else np.ones(len(K))
    assume(abs(h).min() > 1e-6 * abs(K).max())  # else rounding decides
    w, top, sign, log_h = train.rows(x)
    np.testing.assert_allclose(w * np.exp(top), K[:4], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose((sign * np.exp(log_h))[:, 0], h[:4], rtol=1e-9)
    np.testing.assert_allclose(train.log_h, np.log(abs(h[4:])), rtol=1e-9, atol=1e-9)
    G = K / np.outer(h, h[4:])
    np.testing.assert_allclose(train.gram(x), G[:4], rtol=1e-9, atol=1e-12 * abs(G).max())
    np.testing.assert_allclose(train.gram(x, np.log(2)), 2 * G[:4], rtol=1e-9, atol=1e-12 * abs(G).max())
    lengths = np.sqrt([naive_kernel(primal.kernel, a, a) for a in tx])
    np.testing.assert_allclose(np.exp(train.log_lengths(x)), lengths, rtol=1e-9)
    np.testing.assert_allclose(np.exp(train.log_norms(x)), lengths / abs(h[:4]), rtol=1e-9)
    sizes = np.sqrt(np.diag(K[4:]))
    cosines = K[4:] / np.outer(sizes, sizes) * np.outer(np.sign(h[4:]), np.sign(h[4:]))
    np.testing.assert_allclose(train.cosines, cosines, rtol=1e-9, atol=1e-12)


@given(primals(), seeds)
def test_features_have_the_gram_matrix(primal, seed):
    """Explicit ones everywhere; those in the span of the points, for queries, as far as they go."""
    rng = np.random.default_rng(seed)
    keys, x = rng.standard_normal((7, 3)), rng.standard_normal((4, 3))
    train = training_set(primal, keys, 4)
    assume(np.ptp(train.log_h) < 10 and np.isfinite(train.log_norms(train.keys)).all())
    features = Features.from_training_set(train)
    log_C = 3.0
    R = features.at_keys(log_C)
    G = train.gram(train.keys)
    np.testing.assert_allclose(R @ R.T, np.exp(log_C) * G, rtol=0, atol=1e-9 * np.exp(log_C) * abs(G).max())
    product = features(x) @ R.T * np.exp(-log_C / 2)
    np.testing.assert_allclose(product, train.gram(x), rtol=0, atol=1e-6 * abs(train.gram(x)).max())


def test_logits_that_no_float_holds():
    keys = np.array([[40.0, 0.0], [0.0, 60.0]])
    train = training_set(Primal(Exponential(1.0)), keys)
    np.testing.assert_allclose(train.log_h, [1600, 3600])
    np.testing.assert_allclose(train.log_norms(keys), [-800, -1800])
    np.testing.assert_array_equal(train.cosines, np.eye(2) + np.exp(-2600) * (1 - np.eye(2)))
    np.testing.assert_allclose(train.gram(keys, 3600.0), [[np.exp(700), np.exp(-1600)], [np.exp(-1600), 1]])
    with pytest.raises(ValueError, match=r"keys: expected h that a float can hold; log h is 2600"):
        train.penalty(10)


def test_an_h_that_underflows_is_refused():
    keys = np.full((2, 2), -900.0)
    with pytest.raises(ValueError, match=r"keys: expected h that a float can hold; log h is -1799"):
        training_set(Primal(EluPlusOne()), keys).penalty(10)


def test_a_query_that_sees_no_key_is_refused():
    blind = Primal(support=Mask(np.array([[True, True], [False, False]])))
    assert training_set(blind, np.eye(2), 0).members.all()
    with pytest.raises(ValueError, match=r"query 1 sees no key: expected one at least under Mask\(table of 2 x 2\)"):
        training_set(blind, np.eye(2), 1)


class Lopsided:
    """Its matrix for two points is symmetric, with the eigenvalues 3 and -1."""

    def gram(self, x, y):
        return np.where((x[..., :, None, :] == y[..., None, :, :]).all(axis=-1), 1.0, 2.0)


def test_what_is_no_kernel_is_told_with_its_smallest_eigenvalue():
    with pytest.raises(
        ValueError, match=r"positive semidefinite; got asymmetry 0 and smallest eigenvalue -1, relative to \|Phi\|$"
    ):
        _ = training_set(Primal(Lopsided()), np.eye(2)).cosines
    with pytest.raises(ValueError, match=r"relative to \|Phi\|: large keys alone may round to that"):
        _ = training_set(Primal(), 1e4 + np.random.default_rng(0).standard_normal((20, 3))).cosines


class LopsidedFarOff:
    """1 where x = y and else 0, but of numbers beyond 500: there 1 and else 2, which no inner product is."""

    def gram(self, x, y):
        far = (x > 500) & (y[..., None, :, 0] > 500)
        return np.where(x == y[..., None, :, 0], 1.0, np.where(far, 2.0, 0.0))


def test_a_kernel_is_looked_at_beyond_its_first_keys():
    keys = np.arange(600.0)[:, None]
    training_set(Primal(LopsidedFarOff()), keys[:500]).check_kernel()
    with pytest.raises(ValueError, match="positive semidefinite"):
        training_set(Primal(LopsidedFarOff()), keys).check_kernel()


def test_the_penalty_is_a_multiple_of_the_median():
    train = training_set(Primal(), np.random.default_rng(0).standard_normal((5, 3)))
    assert train.penalty(3.0) == pytest.approx(3 * np.median(np.exp(train.log_h)), rel=1e-14)


@pytest.mark.parametrize(
    "kernel, count", [(EluPlusOne(), 3), (Taylor(2), 10), (Polynomial(2, 0.0), 6), (Exponential(), np.inf)]
)
def test_the_number_of_features(kernel, count):
    assert training_set(Primal(kernel), np.eye(3)).feature_count == count


def test_what_is_left_of_a_primal_gives_its_attention():
    rng = np.random.default_rng(0)
    keys, values = rng.standard_normal((7, 3)), rng.standard_normal((7, 2))
    primal = Primal(transform=BatchNorm(0.5), support=Causal(), scale=2)
    train = training_set(primal, keys, 4)
    f = train.attend(keys[4:5], train.pool(values))
    np.testing.assert_allclose(f, attention(primal, keys, keys, values)[4:5], rtol=1e-12)
    assert (train.primal.support, train.primal.scale) == (Primal().support, 1)


def test_rows_of_another_number_are_refused():
    train = training_set(Primal(scale=2), np.eye(3))
    with pytest.raises(ValueError, match=r"y: expected 3 rows, one a key, or 2, one a training point; got \(4, 1\)"):
        pooled_rows("y", np.ones((4, 1)), train)


def test_a_query_beyond_a_mask_is_refused():
    primal = Primal(support=Mask(np.ones((2, 3), bool)))
    training_set(primal, np.eye(3), 1)
    with pytest.raises(ValueError, match=r"query: expected one of the 2 rows of Mask\(table of 2 x 3\); got 2"):
        training_set(primal, np.eye(3), 2)
