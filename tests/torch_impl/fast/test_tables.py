"""Attention-BN under tables of a mask, in float32 by products with the table, against the definition in float64."""

import pytest
import torch

import torch_impl
from primal_dual import BatchNorm, Primal, Strided, Window, catalog, heads
from torch_impl.fast import blockwise, softmax

N = 23
POSITION = torch.arange(N)
TABLES = {
    "sliding": (POSITION[:, None] - POSITION < 5) & (POSITION[:, None] >= POSITION),
    "any": torch.rand(N, N, generator=torch.Generator().manual_seed(0)) < 0.5,
    "by example": torch.rand(2, 1, N, N, generator=torch.Generator().manual_seed(0)) < 0.5,
    "by head": torch.rand(2, 3, N, N, generator=torch.Generator().manual_seed(0)) < 0.5,
}


@pytest.mark.parametrize("support", [None, Window(4), Strided(3)], ids=str)
@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("masked", [False, True])
def test_float32_follows_the_definition(table, support, masked):
    torch.manual_seed(0)
    primal = Primal(transform=BatchNorm(0.5, eps=0.1), **({} if support is None else dict(support=support)))
    q, k, v = torch.randn(3, 2, 3, N, 5)
    k = (k + 20).requires_grad_()
    mask = TABLES[table] | torch.eye(N).bool()
    key_mask = (torch.tensor([[N], [17]]) > POSITION) if masked else None

    def attend(*x):
        return torch_impl.attention(heads(primal, 3), *x, key_mask, attn_mask=mask, is_causal=table == "sliding")

    expected = attend(q.double(), k.double(), v.double())
    found = attend(q, k, v)
    seen = torch.ones(2, N).bool() if key_mask is None else key_mask
    rows = seen[:, None, :, None].expand_as(found)
    torch.testing.assert_close(found.double()[rows], expected[rows], rtol=1e-3, atol=1e-4)
    direction = torch.randn_like(found) * rows
    ours, right = (torch.autograd.grad((f * direction).sum(), k)[0] for f in (found, expected))
    torch.testing.assert_close(ours, right, rtol=1e-3, atol=1e-3)


def test_the_statistics_are_those_of_products(monkeypatch):
    """And of no table of keys for each query, which would take N times the memory of the keys."""
    calls = []
    of_table = softmax.key_statistics.of_table
    monkeypatch.setattr(softmax.key_statistics, "of_table", lambda *x: calls.append(x) or of_table(*x))
    q, k, v = torch.randn(3, N, 5)
    torch_impl.attention(Primal(transform=BatchNorm()), q, k, v, attn_mask=TABLES["any"])
    assert len(calls) == 1


@pytest.mark.parametrize("name", ["linear-bn", "bn+sh"])
def test_what_stays_slow_says_so(name, monkeypatch):
    monkeypatch.setattr(blockwise, "LARGEST_BLOCK", 500)
    q, k, v = torch.randn(3, N, 5)
    with pytest.warns(UserWarning, match="under this table, .* need copies of 23 keys for each of 23 queries"):
        torch_impl.attention(catalog[name], q, k, v, attn_mask=TABLES["any"])
