"""Blocks of queries give what one query after the other gives."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from primal_dual import Mask, Primal, Window, catalog, certify
from primal_dual.certificates import position_blocks
from primal_dual.certificates.causal_positions import gaps_by_running_sums
from primal_dual.certificates.position_blocks import gaps_by_blocks
from primal_dual.svr.training_sets import training_set
from tests.problems import SUPPORTS, primals, random_mask, seeds

N = 11
SPARSE = st.sampled_from((*SUPPORTS[1:], "mask"))


@pytest.mark.parametrize("entries", [1, 300, 2**16])
@given(primals(supports=st.just(Window(1))), SPARSE, seeds, st.booleans(), st.sampled_from((0.0, 0.3)))
@settings(max_examples=40)
def test_the_gaps_are_those_of_each_query(entries, primal, support, seed, fitted, epsilon):
    """Whether a block has one query or several, which are filled up to one size."""
    rng = np.random.default_rng(seed)
    primal = replace(primal, support=random_mask(rng, N, N) if support == "mask" else support)
    keys, values, y = (rng.standard_normal((N, D)) for D in (3, 2, 2))
    y = None if fitted else y
    try:
        C = None if fitted else 2 * training_set(primal, keys, N - 1).penalty(1.0)
        alone = [certify(primal, keys, values, targets=y, C=C, epsilon=epsilon, query=i) for i in range(N)]
    except ValueError:
        assume(False)  # an h near zero
    right = [each.relative_gap for each in alone]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(position_blocks, "ENTRIES_AT_A_TIME", entries)
        gaps = gaps_by_blocks(primal, keys, values, y, C, epsilon)
    np.testing.assert_allclose(gaps, right, rtol=1e-7, atol=1e-9)
    worst = certify(primal, keys, values, targets=y, C=C, epsilon=epsilon)
    assert worst.relative_gap >= np.max(right) - 1e-9 or worst.relative_gap == np.inf
    np.testing.assert_array_equal(worst.targets, alone[worst.query].targets)


def test_running_sums_and_blocks_agree():
    rng = np.random.default_rng(0)
    keys, values, y = rng.standard_normal((3, 70, 3))
    causal = catalog["causal"]
    C = training_set(causal, keys, 69).penalty(3.0)
    by_sums = gaps_by_running_sums(causal, keys, values, y, C, 0.1)
    np.testing.assert_allclose(gaps_by_blocks(causal, keys, values, y, C, 0.1), by_sums, rtol=1e-10)


def test_a_mistake_shows_in_the_gap(monkeypatch):
    """f and |W|^2 are computed apart: an attention that is off by 1e-9 does not prove itself."""
    rng = np.random.default_rng(0)
    keys, values = rng.standard_normal((2, 13, 3))
    right = position_blocks.attention
    assert abs(gaps_by_blocks(catalog["window-bn"], keys, values, None, None, 0.0)).max() < 1e-13
    monkeypatch.setattr(position_blocks, "attention", lambda *arguments: right(*arguments) * (1 + 1e-9))
    assert abs(gaps_by_blocks(catalog["window-bn"], keys, values, None, None, 0.0)).min() > 1e-10


def test_queries_that_see_nothing_and_targets_that_do_not_fit():
    rng = np.random.default_rng(0)
    keys, values = rng.standard_normal((2, 5, 3))
    table = np.eye(5, dtype=bool)
    table[3] = False
    with pytest.raises(ValueError, match="query 3 sees no key"):
        certify(Primal(support=Mask(table)), keys, values)
    with pytest.raises(ValueError, match=r"Mask: expected a table \(5, 5\)|expected"):
        certify(Primal(support=Mask(table[:, :4])), keys, values)
    one = rng.standard_normal((1, 3))  # one target a training point: each query has one
    given_one = certify(Primal(support=Mask(np.eye(5, dtype=bool))), keys, values, targets=one, C=1e9)
    np.testing.assert_array_equal(given_one.targets, one)
    with pytest.raises(ValueError, match="targets: expected 5 rows, one a key"):
        certify(catalog["window"], keys, values, targets=one)
    with pytest.raises(ValueError, match="as many outputs as the values, 3; got"):
        certify(catalog["window"], keys, values, targets=values[:, :1])
    with pytest.raises(ValueError, match="that a float can hold"):
        certify(catalog["window"], keys, 1e200 * values)
