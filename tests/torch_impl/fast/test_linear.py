"""Linear attention against its two sums, in float64, one query after another."""

import math

import numpy as np
import pytest
import torch

from torch_impl.fast import linear
from torch_impl.fast.linear import linear_attention


def naive(log_q, log_k, v, valid, log_weight, is_causal):
    """sum_j v_j <Phi(q_i), Phi(k_j)> / sum_j <Phi(q_i), Phi(k_j)> by logarithms of sums; zero where no key is seen."""
    f = np.zeros((len(log_q), v.shape[1]))
    for i, row in enumerate(log_q):
        seen = [j for j in range(len(log_k)) if valid[j] and (j <= i or not is_causal)]
        if seen:
            logits = np.array([np.logaddexp.reduce(row + log_k[j]) + log_weight[j] for j in seen])
            weights = np.exp(logits - logits.max())
            f[i] = weights @ v[seen] / weights.sum()
    return f


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("M, N", [(1, 1), (7, 7), (4, 4), (13, 13), (3, 11), (11, 3)])
@pytest.mark.parametrize("size", [1.0, 30.0])
def test_it_is_the_two_sums(M, N, masked, weighted, is_causal, size, monkeypatch):
    """In chunks of four, so that a few tokens fill several; example 1 has no key at its beginning."""
    monkeypatch.setattr(linear, "CHUNK", 4)
    rng = np.random.default_rng(0)
    log_q, log_k, v = (
        size * rng.standard_normal((2, M, 3)),
        size * rng.standard_normal((2, N, 3)),
        rng.standard_normal((2, N, 2)),
    )
    valid = rng.random((2, N)) < 0.7
    valid[1, : N // 2] = False
    valid = valid if masked else np.ones((2, N), bool)
    v = v * valid[..., None]
    log_weight = rng.standard_normal((2, 1, N)) if weighted else np.zeros((2, 1, N))
    f = linear_attention(
        *map(torch.tensor, (log_q, log_k, v)),
        torch.tensor(valid) if masked else None,
        torch.tensor(log_weight) if weighted else None,
        is_causal=is_causal,
    )
    for b in range(2):
        expected = naive(log_q[b], log_k[b], v[b], valid[b], log_weight[b, 0], is_causal)
        np.testing.assert_allclose(f[b].cpu().numpy(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_sums_are_in_float32_and_the_result_in_the_dtype_of_the_values(dtype, is_causal):
    """Ten thousand equal keys, whose sum float16 does not hold."""
    v = torch.ones(10_000, 1, dtype=dtype)
    x = torch.full((10_000, 2), 3.0, dtype=dtype)
    f = linear_attention(x, x, v, is_causal=is_causal)
    assert f.dtype == dtype
    torch.testing.assert_close(f, v, rtol=1e-3 if dtype == torch.float32 else 1e-2, atol=0)
    no_weights = torch.zeros(1, 10_000, dtype=dtype)
    assert torch.equal(linear_attention(x, x, v, log_weight=no_weights, is_causal=is_causal), f)


def test_no_later_chunk_makes_an_early_key_vanish():
    """Keys grow by e^200 a chunk; each query still sees its own, and the ones before as small as they are."""
    log_k = torch.arange(6.0, dtype=torch.float64).repeat_interleave(linear.CHUNK)[:, None] * 200
    v = torch.arange(float(len(log_k)), dtype=torch.float64)[:, None]
    f = linear_attention(-log_k, log_k, v, is_causal=True)[:, 0]
    start = torch.arange(len(v)) // linear.CHUNK * linear.CHUNK
    means = (start + torch.arange(len(v))) / 2  # of the keys of its own chunk up to itself: those before weigh e^-200
    torch.testing.assert_close(f, means.double(), rtol=1e-12, atol=1e-12)
    assert math.exp(-200) < 1e-80
