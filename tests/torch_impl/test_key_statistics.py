"""Mean and variance of each query's keys, against those of the keys that it sees, one query after another."""

import numpy as np
import pytest
import torch

from torch_impl.key_statistics import causal, first_key, of_table, shared, window

M, N = 19, 23
QUERY, KEY = np.arange(M)[:, None], np.arange(N)
ANY = np.random.default_rng(0).random((M, N)) < 0.6
CASES = {  # the function, and which keys a query sees
    "shared": (lambda keys, valid: shared(keys, valid), np.ones((1, N), bool)),
    "causal": (lambda keys, valid: causal(keys, valid, M), KEY <= QUERY),
    "window": (lambda keys, valid: window(keys, valid, M, 5, 5), abs(QUERY - KEY) <= 5),
    "window that looks back": (lambda keys, valid: window(keys, valid, M, 4, 0), (KEY <= QUERY) & (QUERY - KEY <= 4)),
    "window of one": (lambda keys, valid: window(keys, valid, M, 0, 0), QUERY == KEY),
    "window of all": (lambda keys, valid: window(keys, valid, M, 40, 40), np.ones((M, N), bool)),
    "table": (lambda keys, valid: of_table(keys, among_valid(ANY, valid)), ANY),
    "causal table": (lambda keys, valid: of_table(keys, among_valid(KEY <= QUERY, valid)), KEY <= QUERY),
}


def among_valid(table, valid):
    table = torch.tensor(table)
    return table if valid is None else table & valid[:, None]


def keys_and_mask(masked, dtype=torch.float64, size=1.0, far=1000.0):
    """Keys a thousand standard deviations from zero; the first is always valid, two in a row of example 0 are not."""
    torch.manual_seed(0)
    keys = size * (torch.randn(2, N, 3, dtype=torch.float64) + far * torch.randn(3, dtype=torch.float64))
    valid = torch.rand(2, N) < 0.7
    valid[:, 0], valid[0, 3:5] = True, False
    return keys.to(dtype), valid if masked else None


def naive_statistics(keys, valid, table, scale=1):
    """(mu, variance), each (2, queries, D), of pools of what each query sees; NaN where it sees nothing."""
    mu = np.full((2, len(table), 3), np.nan)
    variance = mu.copy()
    for b, i in np.ndindex(2, len(table)):
        seen = table[i] & (True if valid is None else valid[b].cpu().numpy())
        pools = [np.flatnonzero(seen[g : g + scale]) + g for g in range(0, N, scale)]
        points = [keys[b].double().cpu().numpy()[pool].mean(axis=0) for pool in pools if len(pool)]
        if points:
            mu[b, i], variance[b, i] = np.mean(points, axis=0), np.var(points, axis=0)
    return mu, variance


def assert_close(found, expected, mean, variance):
    """Up to a tolerance each, where the query sees a key; that must be at most of them."""
    seen = ~np.isnan(expected[0])
    assert seen.mean() > 0.5
    for ours, right, atol in zip(found[:2], expected, (mean, variance), strict=True):
        ours = np.broadcast_to(ours.double().cpu().numpy(), right.shape)
        np.testing.assert_allclose(ours[seen], right[seen], rtol=0, atol=atol)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_statistics_are_those_of_the_keys_that_are_seen(name, masked):
    function, table = CASES[name]
    keys, valid = keys_and_mask(masked)
    found = function(keys, valid)
    assert_close(found, naive_statistics(keys, valid, table), 1e-11, 1e-11)
    constant = keys - found.centred  # the same for every key, up to the last digit, and near them
    torch.testing.assert_close(constant, constant[:, :1].expand_as(keys), rtol=1e-13, atol=0)
    assert found.centred.abs().max() < 10


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("scale", [1, 2, 3, 5, 40])
def test_statistics_of_pools_are_those_of_the_means_of_what_is_seen(scale, masked):
    keys, valid = keys_and_mask(masked)
    found = causal(keys, valid, M, scale)
    assert_close(found, naive_statistics(keys, valid, KEY <= QUERY, scale), 1e-11, 1e-11)


@pytest.mark.parametrize("size", [1.0, 1e3, 1e-4])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_float32_keeps_the_digits_of_keys_far_from_zero(name, masked, size):
    """To a few of the last digits of the keys, which are size 2000 / 2^24 apart."""
    function, table = CASES[name]
    keys, valid = keys_and_mask(masked, torch.float32, size)
    assert_close(function(keys, valid), naive_statistics(keys, valid, table), 4e-4 * size, 1e-4 * size**2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", CASES)
def test_half_precision_is_evaluated_in_float32(name, dtype):
    keys, valid = keys_and_mask(True, dtype, far=0.0)
    found = CASES[name][0](keys, valid)
    assert {x.dtype for x in found} == {torch.float32}
    assert_close(found, naive_statistics(keys, valid, CASES[name][1]), 1e-5, 1e-5)


@pytest.mark.parametrize("name", CASES)
def test_a_query_that_sees_nothing_has_finite_statistics(name):
    keys, _ = keys_and_mask(False)
    assert all(x.isfinite().all() for x in CASES[name][0](keys, torch.zeros(2, N, dtype=torch.bool)))


def test_the_first_key_is_the_first_valid_one():
    keys = torch.arange(8.0).reshape(2, 4, 1)
    valid = torch.tensor([[False, True, True, False], [True, False, True, True]])
    for mask, first in ((valid, [1.0, 4.0]), (None, [0.0, 4.0])):
        assert torch.equal(first_key(keys, mask).flatten(), torch.tensor(first))


def test_heads_share_a_table_or_have_their_own():
    torch.manual_seed(0)
    keys, table = torch.randn(2, 4, N, 3), torch.rand(2, 1, M, N) < 0.6
    each = [of_table(keys[:, h], table[:, 0]) for h in range(4)]
    for given in (table, table.expand(-1, 4, -1, -1)):
        found = of_table(keys, given)
        for h in range(4):
            torch.testing.assert_close(found.mu[:, h], each[h].mu)
            torch.testing.assert_close(found.variance[:, h], each[h].variance)


def test_a_key_that_no_query_sees_counts_for_nothing():
    keys, table = torch.randn(N, 3), torch.rand(M, N) < 0.6
    table[:, 5] = False
    expected = of_table(keys, table)
    keys[5] = 1e30
    found = of_table(keys, table)
    torch.testing.assert_close(found[:2], expected[:2], rtol=0, atol=0)
