"""Supports against the formulas in their docstrings."""

import pickle
from copy import deepcopy

import numpy as np
import pytest

from primal_dual import Causal, Everything, Mask, Primal, Strided, Window
from primal_dual.supports import svr_queries


def test_supports():
    i, j = np.arange(4)[:, None], np.arange(5)
    table = np.random.default_rng(0).random((4, 5)) < 0.5
    for support, sees in (
        (Everything(), lambda i, j: True),
        (Window(1), lambda i, j: abs(i - j) <= 1),
        (Strided(3), lambda i, j: (i - j) % 3 == 0),
        (Causal(), lambda i, j: j <= i),
        (Mask(table), lambda i, j: table[i, j]),
    ):
        assert (support.sees(i, j) == [[sees(a, b) for b in range(5)] for a in range(4)]).all()
    assert Mask(np.array([[True]])).sees(0, 0)
    for empty in ((0, 3), (3, 0)):
        with pytest.raises(ValueError, match=r"expected an \(M, N\) table of booleans; got bool \(\d, \d\)"):
            Mask(np.ones(empty, bool))
    mask = Mask(table)
    assert mask == mask != Mask(table) and hash(mask) == hash(mask)
    unpickled = pickle.loads(pickle.dumps(mask))
    assert (unpickled.table == table).all() and not unpickled.table.flags.writeable
    assert deepcopy(Primal(support=mask)) == Primal(support=mask)


def test_each_query_has_an_svr_of_its_own_unless_all_see_every_key():
    assert svr_queries(Everything(), 5) == [None]
    assert list(svr_queries(Causal(), 5)) == [0, 1, 2, 3, 4]
    assert list(svr_queries(Mask(np.ones((3, 5), dtype=bool)), 5)) == [0, 1, 2]
