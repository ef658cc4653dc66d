"""The torch mirror equals the NumPy original, values and gradients, for every composition of parts."""

import inspect
from dataclasses import dataclass, replace

import autograd.numpy as anp
import numpy as np
import pytest
import torch
from autograd import grad
from hypothesis import given, settings
from hypothesis import strategies as st

import primal_dual
import torch_impl
from primal_dual import (
    BatchNorm,
    Causal,
    Convolution,
    EluPlusOne,
    Heads,
    Primal,
    UnitNorm,
    Window,
    attention,
    attention_weights,
    catalog,
    heads,
    kernels,
    supports,
    transforms,
)
from tests.problems import (
    every_query_sees_a_key,
    naive_batch,
    primals,
    random_mask,
    random_problem,
    seeds,
    tensors,
)
from torch_impl.registry import registered

SIZES = st.sampled_from((1, 2, 5, 7, 11))


def assert_equal(primal, q, k, v, key_mask, seed):
    if every_query_sees_a_key(primal, q.shape[-2], k.shape[-2], key_mask):
        assert_equal_to_numpys(primal, q, k, v, key_mask, seed)
    else:
        assert_refused_by_numpy_and_zero(primal, q, k, v, key_mask)


def assert_equal_to_numpys(primal, q, k, v, key_mask, seed):
    """Value and gradients."""
    expected = attention(primal, q, k, v, key_mask)
    g = np.random.default_rng(seed).standard_normal(expected.shape)
    gradients = [grad(lambda *x: anp.sum(g * attention(primal, *x, key_mask)), i)(q, k, v) for i in range(3)]
    x = tensors(q, k, v)
    f = torch_impl.attention(primal, *x, *tensors(key_mask))
    np.testing.assert_allclose(f.detach().cpu().numpy(), expected, rtol=1e-10, atol=1e-10 * abs(v).max())
    size = max(abs(each).max() for each in gradients)
    for ours, theirs in zip(torch.autograd.grad(f, x, torch.tensor(g)), gradients, strict=True):
        np.testing.assert_allclose(ours.cpu().numpy(), theirs, rtol=1e-10, atol=1e-10 * size)


def assert_refused_by_numpy_and_zero(primal, q, k, v, key_mask):
    """The mirror gives zero for a query that sees no key, and the other queries what the definition says."""
    with pytest.raises(ValueError, match=r"query \d+ sees no key|expected a valid key at least in each row"):
        attention(primal, q, k, v, key_mask)
    f = torch_impl.attention(primal, *tensors(q, k, v, key_mask)).detach().cpu().numpy()
    np.testing.assert_allclose(f, naive_batch(primal, q, k, v, key_mask), rtol=1e-9, atol=1e-9 * abs(v).max())


@settings(max_examples=400)
@given(primals(), seeds, st.sampled_from(((), (2,), (2, 3))), SIZES, SIZES, SIZES, SIZES, st.booleans(), st.booleans())
def test_values_and_gradients_equal_numpys(primal, seed, lead, M, N, D, Dv, masked, table):
    rng, q, k, v, key_mask = random_problem(seed, lead, M, N, D, Dv, masked)
    primal = replace(primal, support=random_mask(rng, M, N)) if table else primal
    assert_equal(primal, q, k, v, key_mask, seed)


@settings(max_examples=60)
@given(st.lists(primals(normalizers=st.just("sum")), min_size=1, max_size=4), seeds, st.booleans())
def test_heads_equal_numpys(members, seed, masked):
    members = Heads(*members, members[0])
    _, q, k, v, key_mask = random_problem(seed, (2, len(members)), 7, 7, 3, 2, masked)
    assert_equal(members, q, k, v, None if key_mask is None else key_mask[:, 0], seed)


@given(primals(), seeds)
def test_padded_queries_change_nothing_for_the_others(primal, seed):
    _, q, k, v, key_mask = random_problem(seed, (2,), 7, 7, 3, 2, True)
    key_mask[:, 0] = True
    expected = attention(primal, q, k, v, key_mask, query_mask=key_mask)
    valid = torch.tensor(key_mask)
    f = torch_impl.attention(primal, *tensors(q, k, v), valid, query_mask=valid).detach().cpu().numpy()
    np.testing.assert_allclose(f[key_mask], expected[key_mask], rtol=1e-10, atol=1e-10 * abs(v).max())


@given(primals(), seeds)
def test_weights_equal_numpys(primal, seed):
    _, q, k, _, _ = random_problem(seed, (2,), 5, 7, 3, 2, False)
    expected = attention_weights(primal, q, k)
    ours = torch_impl.attention_weights(primal, *tensors(q, k)).detach().cpu().numpy()
    np.testing.assert_allclose(ours, expected, rtol=1e-10, atol=1e-10 * abs(expected).max())


LONG = dict(catalog) | {
    "causal-linear": Primal(EluPlusOne(), support=Causal()),
    "causal-bn+sh": Primal(transform=BatchNorm(), support=Causal(), scale=3),
    "window-linear": Primal(EluPlusOne(), support=Window(3)),
}


@pytest.mark.parametrize("name", LONG)
@pytest.mark.parametrize("N", [1, 3, 131, 300])
def test_other_lengths(name, N):
    """Beyond one chunk, one block and one window; and shorter than a pool."""
    members = heads(name if name in catalog else LONG[name], 4)
    _, q, k, v, key_mask = random_problem(N, (1, 4), N, N, 5, 5, True)
    q, k = q * np.linspace(0.3, 3, N)[:, None], k * np.linspace(0.3, 3, N)[:, None]  # chunks of other sizes
    key_mask[..., 0] = True
    if members.primals[0].support == primal_dual.Strided(3):
        key_mask[..., :3] = True
    valid = key_mask[:, 0]
    f = torch_impl.attention(members, *tensors(q, k, v, valid), query_mask=torch.tensor(valid))
    expected = attention(members, q, k, v, valid, query_mask=valid)
    rows = np.broadcast_to(valid[:, None, :, None], expected.shape)
    np.testing.assert_allclose(f.detach().cpu().numpy()[rows], expected[rows], rtol=1e-9, atol=1e-10)


def test_every_part_has_a_torch_version():
    parts = [
        each
        for module in (kernels, transforms, supports)
        for _, each in inspect.getmembers(module, inspect.isclass)
        if each.__module__ == module.__name__
    ]
    assert len(parts) == 15 and [part for part in parts if part not in registered()] == []


@dataclass(frozen=True)
class Cauchy:
    def log_gram(self, x, y):
        return -anp.log1p(((x[..., :, None, :] - y[..., None, :, :]) ** 2).sum(-1))


@dataclass(frozen=True)
class Shift:
    by: float

    def fit(self, keys, valid):
        return lambda x: x + self.by


@dataclass(frozen=True)
class Odd:
    def sees(self, i, j):
        return (j % 2 == 1) | (i == j)


def test_parts_from_outside(monkeypatch):
    primal = Primal(Cauchy(), transform=(Shift(2.0), BatchNorm()), support=Odd(), scale=2)
    _, q, k, v, _ = random_problem(0, (2,), 5, 7, 3, 2, False)
    for part, missing in ((Primal(Cauchy()), "Cauchy"), (Primal(transform=Shift(1.0)), "Shift")):
        with pytest.raises(ValueError, match=rf"torch version; add one with torch_impl.register\({missing}\)"):
            torch_impl.attention(part, *tensors(q, k, v))
    monkeypatch.setattr("torch_impl.registry._TORCH_VERSIONS", dict(torch_impl.registry._TORCH_VERSIONS))

    @torch_impl.register(Cauchy)
    def cauchy(kernel, x, y):
        return -torch.cdist(x, y).square().log1p()

    torch_impl.register(Shift)(Shift.fit)
    torch_impl.register(Odd)(Odd.sees)
    assert_equal_to_numpys(primal, q, k, v, None, 0)


def folded_by_hand(q, k, beta, eps=1e-5):
    mu, variance = k.mean(-2, keepdim=True), k.var(-2, correction=0, keepdim=True)
    return (q - beta * mu) / (variance + eps), k - mu


def test_attention_bn_is_softmax_attention_of_another_query():
    q, k, v = tensors(*np.random.default_rng(0).standard_normal((3, 2, 4, 9, 8)))
    expected = torch.nn.functional.scaled_dot_product_attention(*folded_by_hand(q, k, 0.7), v)
    ours = torch_impl.attention(Primal(transform=BatchNorm(0.7)), q, k, v)
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-13)


def test_beta_and_taps_take_the_place_of_the_primals():
    q, k, v = tensors(*np.random.default_rng(0).standard_normal((3, 2, 3, 9, 4)))
    beta, taps = tensors(np.array([0.1, 0.5, 1.0]), np.array([0.1, 0.3, 0.7]))
    primal = Primal(transform=(Convolution((1.0, 0.0, 0.0)), BatchNorm()))
    ours = torch_impl.attention(heads(primal, 3), q, k, v, beta=beta, taps=taps)
    for s in range(3):
        own = Primal(transform=(Convolution((0.1, 0.3, 0.7)), BatchNorm(beta[s].item())))
        torch.testing.assert_close(ours[:, s], torch_impl.attention(own, q[:, s], k[:, s], v[:, s]))
    assert all(g.abs().sum() > 0 for g in torch.autograd.grad(ours.square().sum(), (beta, taps)))

    def f(beta, taps):
        return torch_impl.attention(
            heads(primal, 3), q[:1].detach(), k[:1].detach(), v[:1].detach(), beta=beta, taps=taps
        )

    assert torch.autograd.gradcheck(f, (beta, taps))


@settings(max_examples=60)
@given(
    primals(normalizers=st.just("sum"), transforms=st.sampled_from((BatchNorm(0.9), (BatchNorm(0.9), UnitNorm())))),
    seeds,
)
def test_a_beta_for_each_head_is_that_of_its_own_primal(primal, seed):
    q, k, v = tensors(*np.random.default_rng(seed).standard_normal((3, 2, 3, 3, 4)))  # as many heads as tokens

    def with_beta(beta):
        first, *others = primal.transform if isinstance(primal.transform, tuple) else (primal.transform,)
        return replace(primal, transform=(replace(first, beta=beta), *others))

    betas = [0.1, 0.5, 0.9]
    ours = torch_impl.attention(heads(primal, 3), q, k, v, beta=torch.tensor(betas, dtype=torch.double))
    expected = torch_impl.attention(Heads(*map(with_beta, betas)), q, k, v)
    torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-9)
