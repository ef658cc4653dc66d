"""Attention against its definition, and the properties that every combination of parts has."""

import math
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from primal_dual import (
    BatchNorm,
    Causal,
    Everything,
    Exponential,
    Heads,
    Identity,
    Polynomial,
    Primal,
    UnitNorm,
    attention,
    attention_weights,
    catalog,
    heads,
)
from tests.problems import TOKENWISE, kernels, naive_attention, primals, random_mask, seeds

M, N, D, DV = 5, 7, 3, 2
EXACT = dict(rtol=1e-10, atol=1e-12)


def draw(seed, *lead):
    rng = np.random.default_rng(seed)
    return (
        rng,
        rng.standard_normal((*lead, M, D)),
        rng.standard_normal((*lead, N, D)),
        rng.standard_normal((*lead, N, DV)),
    )


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, **EXACT)


@given(primals(), seeds, st.booleans())
def test_equals_its_definition(primal, seed, masked):
    rng, q, k, v = draw(seed)
    primal = replace(primal, support=random_mask(rng, M, N)) if masked else primal
    f = attention(primal, q, k, v)
    close(f, naive_attention(primal, q, k, v))


@given(primals(), seeds)
def test_batches_and_padding_equal_the_definition_one_by_one(primal, seed):
    rng, q, k, v = draw(seed, 2, 3)
    valid = rng.random((2, 1, N)) < 0.8
    valid[..., [0, 3, 5]] = True  # a key for every query of every support
    f = attention(primal, q, k, v, valid)
    for a in range(2):
        for b in range(3):
            close(f[a, b], naive_attention(primal, q[a, b], k[a, b], v[a, b], valid[a, 0]))


@given(primals(), seeds)
def test_leading_axes_broadcast(primal, seed):
    _, q, k, v = draw(seed)
    f = attention(primal, np.stack([q, 2 * q]), k, v[None, None])
    close(f[0, 1], attention(primal, 2 * q, k, v))


@given(primals(), seeds)
def test_weights_give_attention(primal, seed):
    _, q, k, v = draw(seed)
    weights = attention_weights(primal, q, k)
    close(weights @ v, attention(primal, q, k, v))


@given(primals(normalizers=st.just("sum")), seeds)
def test_weights_of_a_query_add_up_to_one(primal, seed):
    _, q, k, _ = draw(seed)
    close(attention_weights(primal, q, k).sum(axis=-1), np.ones(M))


@given(st.lists(primals(normalizers=st.just("sum"), kernels=st.just(Exponential())), min_size=1, max_size=3), seeds)
def test_heads_are_side_by_side(parts, seed):
    rng, q, k, v = draw(seed, 2, len(parts))
    valid = rng.random((2, N)) < 0.8
    valid[..., [0, 3, 5]] = True
    f, weights = attention(Heads(*parts), q, k, v, valid), attention_weights(Heads(*parts), q, k, valid)
    assert f.shape == (2, len(parts), M, DV)
    close(weights @ v, f)
    for s, part in enumerate(parts):
        close(f[:, s], attention(part, q[:, s], k[:, s], v[:, s], valid))


@given(
    primals(
        transforms=st.sampled_from((BatchNorm(), BatchNorm(0.5), UnitNorm(), Identity())),
        supports=st.just(Everything()),
        scales=st.just(1),
    ),
    seeds,
)
def test_order_of_keys_does_not_matter(primal, seed):
    rng, q, k, v = draw(seed)
    order = rng.permutation(N)
    f = attention(primal, q, k, v)
    close(attention(primal, q, k[order], v[order]), f)


@given(
    primals(
        supports=st.just(Everything()),
        scales=st.just(1),
        transforms=TOKENWISE,
    ),
    seeds,
)
def test_padding_anywhere_changes_nothing_at_scale_1(primal, seed):
    rng, q, k, v = draw(seed)
    f = attention(primal, q, k, v)
    valid = np.zeros(N + 4, bool)
    valid[rng.permutation(N + 4)[:N]] = True
    padded_k, padded_v = 100 * rng.standard_normal((N + 4, D)), 100 * rng.standard_normal((N + 4, DV))
    padded_k[valid], padded_v[valid] = k, v
    close(attention(primal, q, padded_k, padded_v, valid), f)


@given(primals(), seeds)
def test_padding_at_the_end_changes_nothing(primal, seed):
    rng, q, k, v = draw(seed)
    f = attention(primal, q, k, v)
    k, v = (np.concatenate([x, 100 * rng.standard_normal((4, x.shape[1]))]) for x in (k, v))
    close(attention(primal, q, k, v, np.arange(N + 4) < N), f)


@given(primals(normalizers=st.just("sum")), seeds)
def test_one_key_gives_its_value_and_equal_values_give_that_value(primal, seed):
    _, q, k, v = draw(seed)
    expected = np.tile(v[0], (M, 1))
    close(attention(replace(primal, support=Everything()), q, k[:1], v[:1]), expected)
    close(attention(primal, q, k, np.ones((N, 1)) * v[0]), expected)


@given(primals(supports=st.just(Causal())), seeds, st.integers(0, N - 2))
def test_causal_outputs_do_not_know_later_keys(primal, seed, last):
    rng, _, k, v = draw(seed)
    f = attention(primal, k, k, v)
    k2, v2 = k.copy(), v.copy()
    k2[last + 1 :], v2[last + 1 :] = rng.standard_normal((N - last - 1, D)), rng.standard_normal((N - last - 1, DV))
    changed = attention(primal, k2, k2, v2)
    close(changed[: last + 1], f[: last + 1])


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_h_is_refused_exactly_where_its_terms_cancel(sign):
    """One key against another: h is `left`, beside a sum of absolute terms of 2. No other query makes up for it."""
    q, v = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]), np.array([[0.0], [1.0]])

    def keys(left):
        return sign * np.array([[1.0, 1.0], [left - 1.0, 1.0]])

    with pytest.raises(ValueError, match=r"h\(x\) = .* is near zero: the terms of Polynomial.* cancel"):
        attention(Primal(Polynomial(1, 0.0)), q, keys(1e-12), v)
    f = attention(Primal(Polynomial(1, 0.0)), q, keys(4e-12), v)
    np.testing.assert_allclose(f[:, 0], [0.5, 1 - 1 / 4e-12, 0.5], rtol=1e-3)
    f = attention(Primal(Polynomial(1, 0.0), normalizer="one"), q, keys(0.0), v)
    close(f[:, 0], sign * np.array([1.0, -1.0, 1.0]) / math.sqrt(2))


@given(seeds, st.floats(0, 1), st.sampled_from((Everything(), Causal())))
def test_attention_bn_is_a_change_of_query_alone(seed, beta, support):
    _, _, k, v = draw(seed)
    q, eps = k + 0.3, 1e-5
    f = attention(Primal(transform=BatchNorm(beta, eps), support=support), q, k, v)
    for i in range(N):
        seen = k[: i + 1] if support == Causal() else k
        mu, variance = seen.mean(axis=0), seen.var(axis=0)
        folded = ((q[i] - beta * mu) / (variance + eps))[None]
        close(f[i], attention(Primal(), folded, seen - mu, v[: len(seen)])[0])


@given(kernels, seeds)
def test_sh_at_scale_1_is_softmax_and_pooling_commutes_with_projections(kernel, seed):
    rng, q, k, v = draw(seed)
    close(attention(Primal(scale=1), q, k, v), attention(Primal(), q, k, v))
    W = rng.standard_normal((D, D))
    pooled = np.array([k[g : g + 3].mean(axis=0) for g in range(0, N, 3)])
    pooled_v = np.array([v[g : g + 3].mean(axis=0) for g in range(0, N, 3)])
    f = attention(Primal(kernel, scale=3), q, k @ W, v)
    close(f, attention(Primal(kernel), q, pooled @ W, pooled_v))


@pytest.mark.parametrize("name", [name for name, primal in catalog.items() if isinstance(primal, Primal)])
def test_blocks_of_queries_do_not_matter(name, monkeypatch):
    rng = np.random.default_rng(0)
    q, k, v = rng.standard_normal((2, 13, 4)), rng.standard_normal((2, 13, 4)), rng.standard_normal((2, 13, 3))
    whole = attention(catalog[name], q, k, v)
    monkeypatch.setattr(sys.modules["primal_dual.expansion"], "LARGEST_BLOCK", 2)
    close(attention(catalog[name], q, k, v), whole)


@pytest.mark.parametrize("name", [name for name, primal in catalog.items() if isinstance(primal, Primal)])
@pytest.mark.parametrize("size", [1e-3, 1, 30])
def test_nothing_overflows_at_large_logits(name, size):
    """Queries and keys of length 30 sqrt(D) have logits of +-1000 and beyond."""
    rng = np.random.default_rng(0)
    q, k, v = size * rng.standard_normal((9, 64)), size * rng.standard_normal((9, 64)), rng.standard_normal((9, 2))
    f = attention(catalog[name], q, k, v)
    assert np.isfinite(f).all()
    if name != "taylor":
        assert (f <= v.max(axis=0) + 1e-9).all() and (f >= v.min(axis=0) - 1e-9).all()


def test_very_negative_features_keep_their_digits():
    """elu + 1 of -800 underflows as a number, not as a logarithm."""
    k, v = np.array([[-800.0, -900.0], [-801.0, -905.0]]), np.array([[0.0], [1.0]])
    terms = [2 * -800.0, -801.0 - 800.0]
    expected = 1 / (1 + math.exp(terms[0] - terms[1]))
    close(attention(catalog["linear"], k[:1], k, v), [[expected]])


def test_features_far_apart_keep_their_digits():
    """Where the one is large the other is tiny: every product of features underflows."""
    q, k, v = np.array([[-1.0, -900.0]]), np.array([[-900.0, -1.0], [-901.0, -2.0]]), np.array([[0.0], [1.0]])
    weights = [math.log(math.exp(-1) + math.exp(-1)), math.log(math.exp(-2) + math.exp(-2))]  # both times exp(-900)
    expected = 1 / (1 + math.exp(weights[0] - weights[1]))
    close(attention(catalog["linear"], q, k, v), [[expected]])


@pytest.mark.parametrize("name", [name for name, primal in catalog.items() if isinstance(primal, Primal)])
def test_shape_does_not_depend_on_what_is_masked(name):
    _, _, k, v = draw(0)
    for valid in (np.ones((2, N), bool), np.array([[True] * N, [True] * (N - 1) + [False]])):
        assert attention(catalog[name], k, k, v, valid).shape == (2, N, DV)
    assert attention(catalog[name], k, k, v, None, query_mask=np.ones((2, N), bool)).shape == (2, N, DV)
    with_leading_axes_as_q_itself = np.ones((N, D, N), bool)
    assert attention(catalog[name], k, k, v, None, query_mask=with_leading_axes_as_q_itself).shape == (N, D, N, DV)


@pytest.mark.parametrize("name", [name for name, primal in catalog.items() if isinstance(primal, Primal)])
@pytest.mark.parametrize("tokens", [1, 2, 3, 4])
def test_few_tokens(name, tokens):
    _, _, k, v = draw(0)
    f = attention(catalog[name], k[:tokens], k[:tokens], v[:tokens])
    assert np.isfinite(f).all()
    if (
        tokens > 2 and "-bn" not in name
    ):  # with fewer, or sparse, BatchNorm multiplies by 316, too much for the naive form
        close(f, naive_attention(catalog[name], k[:tokens], k[:tokens], v[:tokens]))


def test_catalog_and_heads():
    assert heads("bn", 3) == Heads(*[Primal(transform=BatchNorm())] * 3)
    assert [primal.scale for primal in heads("sh", 8)] == [1, 1, 2, 2, 4, 4, 8, 8]
    assert [primal.scale for primal in heads("bn+sh", 3)] == [1, 2, 4]
    assert heads(Primal(scale=2), 2) == Heads(Primal(scale=2), Primal(scale=2))
    assert len(heads("multi-head", 5)) == 5
    with pytest.raises(ValueError, match="did you mean softmax"):
        catalog["sofmax"]
    with pytest.raises(ValueError, match="expected Heads of 3; got 2"):
        heads(Heads(Primal(), Primal()), 3)
    assert hash(Primal()) == hash(Primal()) and Primal() == Primal() != Primal(scale=2)


def test_masks_of_heads_have_no_head_axis():
    x = np.random.default_rng(0).standard_normal((3, 2, 5, 4))
    mask = np.ones((3, 5), bool)
    assert attention(heads("softmax", 2), x, x, x, mask, query_mask=mask).shape == x.shape
    assert attention(heads("softmax", 2), x[0], x[0], x[0], mask).shape == x.shape  # masks may bring axes
    for masks in ({"key_mask": mask[:, None]}, {"query_mask": mask[:, None]}):
        with pytest.raises(ValueError, match="_mask: expected at most 2 axes, since masks have no axis of heads"):
            attention(heads("softmax", 2), x, x, x, **masks)


def test_an_empty_batch_may_have_a_mask():
    x, mask = np.zeros((0, 5, 2)), np.ones((0, 5), bool)
    for name in ("softmax", "window-bn"):
        assert attention(catalog[name], x, x, x, mask, query_mask=mask).shape == (0, 5, 2)


def test_weights_take_a_query_mask():
    x, mask = np.random.default_rng(0).standard_normal((5, 2)), np.array([True, True, True, False, False])
    A = attention_weights(catalog["conv1d"], x, x, mask, query_mask=mask)
    np.testing.assert_allclose(A @ x, attention(catalog["conv1d"], x, x, x, mask, query_mask=mask), rtol=1e-14)
