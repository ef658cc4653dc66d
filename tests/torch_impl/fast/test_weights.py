"""The matrix of weights, which is evaluated by itself: with values it gives attention, and dropout thins it."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import torch_impl
from primal_dual import Primal, Window, catalog, heads
from tests.problems import TOKENWISE, primals, random_mask, random_problem, seeds, tensors
from torch_impl import MultiheadAttention
from torch_impl.expansion import attention_with_weights

M, N = 7, 11


@given(primals(transforms=TOKENWISE), st.booleans(), st.booleans(), seeds)
def test_weights_times_values_are_attention(primal, masked, is_causal, seed):
    rng, q, k, v, key_mask = random_problem(seed, (2,), 7, 7, 3, 2, True)
    q, k, v, key_mask = tensors(q, k, v, key_mask)
    options = dict(is_causal=is_causal, attn_mask=torch.tensor(random_mask(rng, 7, 7).table) if masked else None)
    expected = torch_impl.attention(primal, q, k, v, key_mask, **options)
    f, A = attention_with_weights(primal, q, k, v, key_mask, **options)
    torch.testing.assert_close(f, expected, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(A @ v, expected, rtol=1e-9, atol=1e-11)
    assert torch.equal(torch_impl.attention_weights(primal, q, k, key_mask, **options), A)


@pytest.mark.parametrize("name", catalog)
def test_heads_masks_with_more_axes_and_gradients(name):
    torch.manual_seed(0)
    primal = heads(name, 4)
    q, k, v = (torch.randn(2, 4, n, 3, dtype=torch.double, requires_grad=True) for n in (M, N, N))
    mask = torch.rand(5, 2, 1, M, N) < 0.7
    mask[..., 0] = True
    expected = torch_impl.attention(primal, q, k, v, attn_mask=mask)
    f, A = attention_with_weights(primal, q, k, v, attn_mask=mask)
    assert A.shape == (5, 2, 4, M, N)
    torch.testing.assert_close(f, expected, rtol=1e-9, atol=1e-11)
    direction = torch.randn_like(f)
    ours, right = (torch.autograd.grad((each * direction).sum(), (q, k, v)) for each in (f, expected))
    torch.testing.assert_close(ours, right, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", catalog)
def test_dropout_is_that_of_the_weights_which_are_returned(name):
    torch.manual_seed(0)
    primal, p = heads(name, 4), 0.4
    q, k, v = torch.randn(3, 2, 4, 13, 3, dtype=torch.double)
    whole = torch_impl.attention_weights(primal, q, k)
    f, A = attention_with_weights(primal, q, k, v, dropout_p=p)
    torch.testing.assert_close(A @ v, f)
    torch.testing.assert_close(A[A != 0], (whole / (1 - p))[A != 0])
    assert abs((A == 0)[whole != 0].double().mean() - p) < 0.1
    dropped, kept = (A == 0) & (whole != 0), A != 0
    for s, member in enumerate(primal):  # a pool is dropped as one
        pools = zip(dropped[:, s].split(member.scale, -1), kept[:, s].split(member.scale, -1), strict=True)
        assert not any((gone.any(-1) & there.any(-1)).any() for gone, there in pools)


def test_hidden_values_may_be_anything():
    q, k, v = torch.randn(3, 2, 3, 5, 4)
    key_mask = torch.arange(5) < 3
    v[..., 3:, :] = float("nan")
    f, A = attention_with_weights(heads("sh", 3), q, k, v, key_mask)
    assert f.isfinite().all() and (A[..., 3:] == 0).all()
    for row in (key_mask, torch.where(key_mask, 0.0, float("-inf"))):  # a mask of one row hides keys from all queries
        f_of_row, A_of_row = attention_with_weights(heads("sh", 3), q, k, v, attn_mask=row[None])
        torch.testing.assert_close(f_of_row, f)
        assert (A_of_row[..., 3:] == 0).all()
    assert (attention_with_weights(Primal(), q, k, v, torch.zeros(5).bool())[1] == 0).all()


def test_a_layer_returns_the_weights_that_it_used():
    torch.manual_seed(0)
    layer = MultiheadAttention(12, 3, dropout=0.5, batch_first=True, primal="bn").double()
    x = torch.randn(2, 7, 12).double()
    f, weights = layer(x, x, x, average_attn_weights=False)
    v = layer._to_heads(layer._project(x, x, x)[2], True)
    torch.testing.assert_close(layer._from_heads(weights @ v, True), f)
    assert (weights == 0).any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_the_dtype_is_that_of_the_values(dtype):
    q, k, v = np.random.default_rng(0).standard_normal((3, 7, 4))
    q, k, v = (torch.tensor(x, dtype=dtype) for x in (q, k, v))
    for primal in (Primal(), catalog["linear"], catalog["window-sh"], Primal(support=Window(2))):
        f, A = attention_with_weights(primal, q, k, v)
        assert f.dtype == A.dtype == dtype
        torch.testing.assert_close(f, torch_impl.attention(primal, q, k, v), rtol=2e-2, atol=2e-2)
