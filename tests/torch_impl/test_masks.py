"""Masks of a call: they intersect with the support, and finite ones weigh the kernel."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import primal_dual
import torch_impl
from primal_dual import (
    Causal,
    EluPlusOne,
    Exponential,
    Gaussian,
    Primal,
    Window,
    catalog,
    heads,
    supports,
)
from tests.problems import TOKENWISE, primals, random_mask, random_problem, seeds, tensors
from torch_impl.expansion import attention_unchecked


def test_a_mask_may_have_more_axes():
    q, k, v = tensors(*np.random.default_rng(0).standard_normal((3, 6, 4)))
    mask = torch.rand(3, 6, 6) < 0.7
    for name in catalog:
        if name != "multi-head":
            f = torch_impl.attention(catalog[name], q, k, v, attn_mask=mask)
            assert f.shape == (3, 6, 4)
            torch.testing.assert_close(f[1], torch_impl.attention(catalog[name], q, k, v, attn_mask=mask[1]))


def as_support(primal, table):
    return replace(primal, support=primal_dual.Mask(table.cpu().numpy()))


@given(primals(supports=st.just(primal_dual.Everything()), transforms=TOKENWISE), seeds)
def test_a_mask_of_the_call_is_a_support(primal, seed):
    rng, q, k, v, _ = random_problem(seed, (2,), 5, 7, 3, 2, False)
    q, k, v = tensors(q, k, v)
    table = torch.tensor(random_mask(rng, 5, 7).table)
    ours = torch_impl.attention(primal, q, k, v, attn_mask=table)
    torch.testing.assert_close(ours, torch_impl.attention(as_support(primal, table), q, k, v), rtol=1e-10, atol=1e-12)
    hidden = torch.where(table, 0.0, float("-inf")).double()
    torch.testing.assert_close(torch_impl.attention(primal, q, k, v, attn_mask=hidden), ours, rtol=1e-10, atol=1e-12)
    causal = torch_impl.attention(primal, q, k, v, is_causal=True)
    expected = torch_impl.attention(replace(primal, support=Causal()), q, k, v)
    torch.testing.assert_close(causal, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in catalog if "conv" not in name and name != "multi-head"])
def test_masks_intersect_with_the_support(name):
    rng = np.random.default_rng(0)
    primal, N = catalog[name], 9
    q, k, v = tensors(*rng.standard_normal((3, 2, N, 4)))
    key_mask, table = torch.tensor(rng.random((2, N)) < 0.7), torch.tensor(random_mask(rng, N, N).table)
    key_mask[:, 0] = table[:, 0] = True
    f = torch_impl.attention(primal, q, k, v, key_mask, attn_mask=table, is_causal=True)
    positions = np.arange(N)
    for b in range(2):
        seen = (
            torch.tensor(supports.visibility_table(primal.support, positions, N))
            & table
            & key_mask[b]
            & torch.ones(N, N).tril().bool()
        )
        rows = seen.any(-1)
        seen[~rows, 0] = True
        expected = torch_impl.attention(as_support(primal, seen), q[b], k[b], v[b])
        torch.testing.assert_close(f[b][rows], expected[rows], rtol=1e-10, atol=1e-11)
        assert (f[b][~rows] == 0).all()


@pytest.mark.parametrize("name", [name for name in catalog if name != "multi-head"])
def test_one_row_of_a_mask_is_a_key_mask(name):
    rng = np.random.default_rng(0)
    q, k, v = tensors(*rng.standard_normal((3, 2, 9, 4)))
    key_mask = torch.tensor(rng.random((2, 9)) < 0.7)
    expected = torch_impl.attention(catalog[name], q, k, v, key_mask)
    torch.testing.assert_close(torch_impl.attention(catalog[name], q, k, v, attn_mask=key_mask[:, None]), expected)
    floats = torch.where(key_mask, 0.0, float("-inf")).double()[:, None]
    torch.testing.assert_close(torch_impl.attention(catalog[name], q, k, v, attn_mask=floats), expected)


@pytest.mark.parametrize("name", catalog)
def test_attention_to_zeros_is_attention_where_what_is_hidden_is_zero(name):
    primal = heads(name, 3)
    rng = np.random.default_rng(0)
    key_mask = torch.arange(9) < torch.tensor([[9], [6]])
    q, k, v = (x * key_mask[:, None, :, None] for x in tensors(*rng.standard_normal((3, 2, 3, 9, 4))))
    anything = torch.where(key_mask[:, None, :, None], 0, float("nan"))
    expected = torch_impl.attention(primal, q, k + anything, v + anything, key_mask)
    assert torch.equal(attention_unchecked(primal, q, k, v, key_mask), expected)


@pytest.mark.parametrize("kernel", [Exponential(), EluPlusOne(), Gaussian(), primal_dual.Taylor(2)])
@pytest.mark.parametrize("support", [primal_dual.Everything(), Window(2), Causal(), primal_dual.Strided(2)])
@pytest.mark.parametrize("rows", [1, 7])
def test_finite_weights_multiply_the_kernel(kernel, support, rows):
    rng = np.random.default_rng(0)
    q, k, v = tensors(*rng.standard_normal((3, 7, 4)))
    log_weight = torch.tensor(rng.standard_normal((rows, 7)))
    ours = torch_impl.attention(Primal(kernel, support=support), q, k, v, attn_mask=log_weight)
    weights = torch_impl.attention_weights(Primal(kernel, support=support), q, k) * log_weight.exp()
    torch.testing.assert_close(ours, weights @ v / weights.sum(-1, keepdim=True), rtol=1e-10, atol=1e-12)


def test_finite_weights_are_averaged_over_a_pool():
    q, k, v = tensors(*np.random.default_rng(0).standard_normal((3, 6, 4)))
    log_weight = torch.tensor([[1.0, 3.0, 0.0, 0.0, -1.0, 1.0]], dtype=torch.double)
    pooled = torch.tensor([[2.0, 0.0, 0.0]], dtype=torch.double)
    ours = torch_impl.attention(Primal(scale=2), q, k, v, attn_mask=log_weight)
    k, v = (x.unflatten(0, (3, 2)).mean(1) for x in (k, v))
    torch.testing.assert_close(ours, torch_impl.attention(Primal(), q, k, v, attn_mask=pooled))
