"""Large training sets: the same solution without the Gram matrix in memory."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from primal_dual import ConvergenceWarning, Gaussian, Polynomial, Primal, SVRAttention, catalog, solve_dual
from primal_dual.svr.gram_rows import GramRows
from primal_dual.svr.training_sets import training_set

PRIMALS = {name: catalog[name] for name in ("softmax", "rbf", "bn+sh", "linear")} | {
    "signed": Primal(Polynomial(3, 0.5)),
    "no normaliser": Primal(normalizer="one"),
}


def problem(primal, N=61, outputs=2):
    rng = np.random.default_rng(0)
    keys, targets = rng.standard_normal((N, 3)), rng.standard_normal((N, outputs))
    return keys, targets, dict(C=training_set(primal, keys).penalty(10), epsilon=0.1, solver="newton")


@pytest.fixture
def few_rows_at_a_time(monkeypatch):
    monkeypatch.setattr("primal_dual.svr.training_sets.MOST_HELD", 10)
    monkeypatch.setattr("primal_dual.svr.solve.MOST_HELD", 10)
    for module in ("training_sets", "gram_rows"):
        monkeypatch.setattr(f"primal_dual.svr.{module}.ROWS_AT_A_TIME", 7)


@pytest.mark.parametrize("name", PRIMALS)
def test_rows_are_those_of_the_gram_matrix(name, few_rows_at_a_time):
    primal = PRIMALS[name]
    keys, _, svr = problem(primal)
    train = training_set(primal, keys)
    G, Q = train.gram(train.keys), GramRows(train, np.log(svr["C"]))
    scale = abs(svr["C"] * G).max()
    n = len(G)
    np.testing.assert_allclose(Q[np.array([5, 0, 11])], svr["C"] * G[[5, 0, 11]], atol=1e-13 * scale)
    np.testing.assert_allclose(Q[3:9], svr["C"] * G[3:9], atol=1e-13 * scale)
    np.testing.assert_allclose(Q.diagonal(), svr["C"] * G.diagonal(), atol=1e-13 * scale)
    np.testing.assert_allclose(Q.matrix(), svr["C"] * G, atol=1e-13 * scale)
    u = np.random.default_rng(1).standard_normal((n, 2)) * (np.arange(n) % 3 > 0)[:, None]
    np.testing.assert_allclose(Q @ u, svr["C"] * G @ u, atol=1e-12 * scale)
    np.testing.assert_allclose(Q @ u[:, 0], svr["C"] * G @ u[:, 0], atol=1e-12 * scale)
    np.testing.assert_array_equal(Q @ np.zeros(n), np.zeros(n))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("name", ["softmax", "rbf", "bn+sh", "no normaliser"])
def test_the_solution_is_the_same(name, bias, request):
    primal = replace(PRIMALS[name], bias=bias)
    keys, targets, svr = problem(primal)
    held = solve_dual(primal, keys, targets, **svr)
    request.getfixturevalue("few_rows_at_a_time")
    by_rows = solve_dual(primal, keys, targets, **svr)
    assert abs(by_rows.relative_gap) <= 1e-12 and abs(by_rows.value / held.value - 1) <= 1e-12
    np.testing.assert_allclose(by_rows.predict(keys), held.predict(keys), atol=1e-8)
    np.testing.assert_allclose(by_rows.bias, held.bias, atol=1e-8)


def test_no_matrix_of_all_points_is_made(monkeypatch):
    N = 1500
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((N, 16)), rng.standard_normal(N)
    monkeypatch.setattr("primal_dual.svr.training_sets.MOST_HELD", 1000)
    monkeypatch.setattr("primal_dual.svr.solve.MOST_HELD", 1000)
    tracemalloc.start()
    model = SVRAttention(C=1.0, epsilon=1.5).fit(X, y)  # few support vectors
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < N * N * 8 and abs(model.relative_gap_) < 1e-12


def test_a_nearly_singular_matrix_needs_all_of_it_or_leaves_a_gap_that_is_reported(few_rows_at_a_time, monkeypatch):
    x = np.linspace(-3, 3, 60)[:, None]
    y = np.sin(3 * x) + 0.2 * np.random.default_rng(0).standard_normal((60, 1))
    primal, svr = Primal(Gaussian(1.0), normalizer="one"), dict(C=1e3, epsilon=0.1, solver="newton")
    assert abs(solve_dual(primal, x, y, **svr).relative_gap) < 1e-12
    monkeypatch.setattr("primal_dual.svr.projected_newton.LARGEST_MATRIX", 50)
    with pytest.warns(ConvergenceWarning, match="gap"):
        assert solve_dual(primal, x, y, **svr).relative_gap > 1e-8
