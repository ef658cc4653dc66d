"""Newton's method: against cvxpy, against the conditions of optimality, and at the edges."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from primal_dual import Everything, Primal, SVRAttention, catalog, solve_dual, solve_primal
from primal_dual.svr.optimality import feasible, objective_values
from primal_dual.svr.projected_newton import interior, newton, step, sweep
from primal_dual.svr.quadratic_programs import dual_program
from primal_dual.svr.training_sets import training_set

ENTRIES = [name for name, primal in catalog.items() if isinstance(primal, Primal)]


def optimal(Q, y, epsilon, bias, u, b, atol):
    """Every condition of optimality of u (n, Dv), b (Dv,), in its own words; residuals up to `atol`."""
    r = y - Q @ u - b
    assert abs(u).max() <= 1 and (not bias or (abs(u.sum(axis=0)) <= 1e-14 * abs(u).sum(axis=0) + 1e-300).all())
    assert bias or (b == 0).all()
    small = 1e-9 * abs(u).max(axis=0)  # entries that a bias has moved off 0 or +-1 by rounding
    inside, zero = (abs(u) < 1 - 1e-9) & (abs(u) > small), abs(u) <= small
    assert abs(abs(r) - epsilon)[inside].max(initial=0) <= atol
    assert (np.sign(u) * r)[~zero].min(initial=np.inf) >= epsilon - atol
    assert abs(r)[zero].max(initial=0) <= epsilon + atol


def gram(rng, n, kind):
    x = rng.standard_normal((n, 3))
    if kind == "repeated":
        x = x[rng.integers(0, -(-n // 3), n)]
    if kind == "zeros":
        x[rng.random(n) < 0.4] = 0
    if kind in ("zeros", "low rank"):
        return x @ x.T
    d = np.exp(rng.uniform(-6, 6, n)) if kind == "spread" else np.ones(n)
    return np.outer(d, d) * np.exp(-((x[:, None] - x) ** 2).sum(axis=-1) / 2)


KINDS = ["smooth", "repeated", "zeros", "low rank", "spread"]


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 23),
    st.sampled_from(KINDS),
    st.sampled_from([0.0, 0.1, 0.7]),
    st.booleans(),
)
@settings(max_examples=100)
def test_random_problems_agree_with_cvxpy(seed, n, kind, epsilon, bias):
    rng = np.random.default_rng(seed)
    Q = 10 ** rng.uniform(-3, 2) * gram(rng, n, kind)
    y = rng.standard_normal((n, 2)) if rng.random() < 0.7 else rng.integers(-1, 2, (n, 2)).astype(float)
    u, b, gap = newton(Q, y, epsilon, bias)
    assert abs(gap) <= 1e-12
    maximise = dual_program(Q, None, np.ones(n), epsilon, bias, "CLARABEL", None)
    theirs = feasible(np.array([maximise(t) for t in y.T]).T, bias, np.diag(Q))
    ours, cvxpys = (
        objective_values(Q @ a, (a * (Q @ a)).sum(axis=0), a, y, epsilon, bias)[1].sum() for a in (u, theirs)
    )
    size = max(abs(ours), 0.01 * abs(y).sum())
    assert -1e-12 * size <= ours - cvxpys <= 1e-6 * size
    optimal(Q, y, epsilon, bias, u, b, 1e-5 * max(abs(y).max(), 1))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("name", ENTRIES)
def test_the_catalog_agrees(name, bias):
    done = 0
    for seed in range(6):
        primal, rng = replace(catalog[name], bias=bias), np.random.default_rng(seed)
        keys, targets = rng.standard_normal((17, 5)), rng.standard_normal((17, 3))
        query = None if isinstance(primal.support, Everything) else 9
        train = training_set(primal, keys, query)
        if np.ptp(train.log_h) > 15:
            continue
        C, y = train.penalty(10 ** rng.uniform(-2, 3)), train.pool(targets)
        epsilon = rng.choice([0, 0.1, 0.5])
        u, b, gap = newton(C * train.gram(train.keys), y, epsilon, bias)
        dual = solve_dual(primal, keys, targets, C=C, epsilon=epsilon, query=query)
        f = C * train.gram(train.keys) @ u
        D = objective_values(f, (u * f).sum(axis=0), u, y, epsilon, bias)[1].sum()
        assert abs(gap) <= 1e-12
        assert abs(C * D - dual.value) <= 1e-10 * max(abs(dual.value), 0.01 * C * abs(y).sum())
        np.testing.assert_allclose(f + b, train.attend(train.keys, train.pool(dual.values)) + dual.bias, atol=1e-6)
        done += 1
    assert done >= 3


EDGES = {
    "one point": (np.array([[2.0]]), [[1.0]]),
    "one point of weight zero": (np.array([[0.0]]), [[1.0]]),
    "all inside the tube": (np.eye(5), 0.05 * np.arange(5.0)[:, None] - 0.1),
    "targets of zero": (np.eye(4), np.zeros((4, 1))),
    "no weights at all": (np.zeros((5, 5)), np.array([[3.0, -2.0, 0.05, 1.0, 1.0]]).T),
    "rank one": (np.ones((6, 6)), np.array([[3.0, -2.0, 0.05, 1.0, 1.0, 0.0]]).T),
    "the same key, other targets": (np.kron(np.eye(3), np.ones((2, 2))), np.array([[1.0, -1, 2, 2, 0.3, -0.1]]).T),
    "at the edge of the tube": (np.eye(4), np.array([[0.1, -0.1, 0.1, 1.1]]).T),
    "large": (1e14 * (np.eye(4) + 1), np.array([[1.0, -1, 2, 0.5]]).T),
    "tiny": (1e-14 * (np.eye(4) + 1), np.array([[1.0, -1, 2, 0.5]]).T),
    "large targets": (np.eye(4) + 1, 1e9 * np.array([[1.0, -1, 2, 0.5]]).T),
}


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("edge", EDGES)
def test_edges(edge, bias):
    Q, y = EDGES[edge]
    y = np.asarray(y, dtype=float)
    u, b, gap = newton(Q, y, 0.1, bias)
    assert abs(gap) <= 1e-12
    optimal(Q, y, 0.1, bias, u, b, 1e-12 * max(1, abs(y).max(), Q.max() * abs(u).max()))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("multiple", [1e-8, 1e-2, 1e4, 1e13, 1e20, 1e50, 1e100])
@pytest.mark.parametrize("scale", [1, 3])
def test_any_penalty_and_any_spread(scale, multiple, bias):
    """Keys 3 times as large make log h span 52."""
    rng = np.random.default_rng(0)
    train = training_set(Primal(), scale * rng.standard_normal((100, 16)))
    Q = train.penalty(multiple) * train.gram(train.keys)
    assert abs(newton(Q, rng.standard_normal((100, 1)), 0.1, bias)[2]) <= 1e-12


@pytest.mark.parametrize("bias", [False, True])
def test_a_nearly_singular_problem_needs_the_interior_point_method(bias, monkeypatch):
    calls = []
    monkeypatch.setattr(
        "primal_dual.svr.projected_newton.interior", lambda *problem: (calls.append(1), interior(*problem))[1]
    )
    rng = np.random.default_rng(0)
    x, noise = rng.standard_normal((120, 1)), rng.standard_normal((120, 1))
    Q = 1e3 * np.exp(-((x - x.T) ** 2) / 2)
    u, b, gap = newton(Q, np.sin(3 * x) + 0.2 * noise, 0.1, bias)
    assert abs(gap) <= 1e-12 and calls
    optimal(Q, np.sin(3 * x) + 0.2 * noise, 0.1, bias, u, b, 1e-9)


@pytest.mark.parametrize("bias", [False, True])
def test_the_interior_point_method_alone(bias):
    rng = np.random.default_rng(0)
    for kind in KINDS:
        Q, y = 10 * gram(rng, 50, kind), rng.standard_normal(50)
        (gap, u), b = interior(Q, y, 0.1, bias)
        assert abs(gap) <= 1e-12, kind
        f = (Q @ u)[:, None]
        P, D, _ = objective_values(f, u @ f, u[:, None], y[:, None], 0.1, bias)
        assert abs(P - D) <= 1e-11 * abs(P) and (bias or b == 0)


@pytest.mark.parametrize("seed", range(4))
def test_the_interior_point_method_keeps_the_digits_of_small_multipliers(seed):
    """Rows of zero beside rows of 1e14, with a bias: u spans 14 digits, and must not come from alpha - alpha~."""
    rng = np.random.default_rng(seed)
    d = 10 ** rng.uniform(-2, 7, 30) * (rng.random(30) < 0.7)
    Q, y = np.outer(d, d) * gram(rng, 30, "smooth"), rng.standard_normal(30)
    assert abs(interior(Q, y, 0.0, True)[0][0]) <= 1e-9
    assert abs(newton(Q, y[:, None], 0.1, True)[2]) <= 1e-12


def problem(N, outputs=1, seed=0, multiple=10):
    rng = np.random.default_rng(seed)
    train = training_set(Primal(), rng.standard_normal((N, 16)))
    return train.penalty(multiple), train.gram(train.keys), rng.standard_normal((N, outputs))


@pytest.mark.parametrize("bias", [False, True])
def test_outputs_and_starts_are_independent(bias, monkeypatch):
    C, G, y = problem(300, outputs=3)
    u, b, gap = newton(C * G, y, 0.1, bias)
    for d in range(3):
        one, b_one, _ = newton(C * G, y[:, [d]], 0.1, bias)
        np.testing.assert_array_equal(one[:, 0], u[:, d])
        np.testing.assert_allclose(b_one[0], b[d], rtol=1e-12, atol=1e-15)
    steps = []
    monkeypatch.setattr("primal_dual.svr.projected_newton.step", lambda *state: (steps.append(1), step(*state))[1])
    for start, most in ((u, 2 * 3), (u + 1e-3 * np.sin(np.arange(300))[:, None], 6 * 3)):
        steps.clear()
        again, b_again, gap = newton(C * G, y, 0.1, bias, start=start)
        np.testing.assert_allclose(again, u, atol=1e-12)
        np.testing.assert_allclose(b_again, b, atol=1e-12)
        assert len(steps) <= most and abs(gap) <= 1e-14
    near, _, gap = newton(1.1 * C * G, y, 0.1, bias, start=u)  # another C
    np.testing.assert_allclose(near, newton(1.1 * C * G, y, 0.1, bias)[0], atol=1e-12)
    assert abs(gap) <= 1e-14


def test_the_sum_falls_with_the_bias_as_the_docstring_says():
    C, G, y = problem(60)
    Q = C * G
    at = [newton(Q, y - b, 0.1, False)[0][:, 0] for b in (0.1, 0.1 + 1e-6)]
    free = (abs(at[0]) < 1) & (at[0] != 0)
    slope = -np.ones(free.sum()) @ np.linalg.solve(Q[np.ix_(free, free)], np.ones(free.sum()))
    np.testing.assert_allclose((at[1].sum() - at[0].sum()) / 1e-6, slope, rtol=1e-6)


@given(st.integers(0, 2**32 - 1), st.sampled_from(KINDS))
@settings(max_examples=60)
def test_a_step_never_falls(seed, kind):
    """The dual value of a fixed bias grows from step to step, from any start: a free set has an ascent direction."""
    rng = np.random.default_rng(seed)
    Q, y = gram(rng, 20, kind), rng.standard_normal(20)
    u = np.clip(2 * rng.standard_normal(20), -1, 1) * (rng.random(20) < 0.7)
    f, b = Q @ u, rng.standard_normal()

    def D(u):
        return (y - b) @ u - u @ Q @ u / 2 - 0.1 * abs(u).sum()

    for _ in range(4):
        new, f, same, _ = step(Q, y, 0.1, False, u, f, b)
        assert same == b and D(new) >= D(u) - 1e-12 * (1 + abs(D(u)))
        np.testing.assert_allclose(f, Q @ new, atol=1e-9 * (1 + abs(Q).max()))
        u = new


def test_the_sweep_is_a_good_start():
    C, G, y = problem(500)
    u, first = newton(C * G, y, 0.1, False)[0][:, 0], sweep(C * G, y[:, 0], 0.1, False)
    assert (u[abs(first) == 1] == first[abs(first) == 1]).mean() > 0.9 and (abs(first) == 1).sum() > 150


@pytest.mark.parametrize("name", ENTRIES)
def test_solver_newton_of_the_public_functions(name):
    rng = np.random.default_rng(1)
    primal, keys, targets = catalog[name], rng.standard_normal((30, 5)), rng.standard_normal((30, 3))
    query = None if isinstance(primal.support, Everything) else 12
    problem = dict(C=training_set(primal, keys, query).penalty(10), epsilon=0.1, query=query)
    reference = solve_dual(primal, keys, targets, **problem)
    for solve in (solve_dual, solve_primal):
        solution = solve(primal, keys, targets, **problem, solver="newton")
        assert abs(solution.relative_gap) <= 1e-12
        assert abs(solution.value / reference.value - 1) <= 1e-11
        np.testing.assert_allclose(solution.predict(keys), reference.predict(keys), atol=1e-7)


def test_the_estimator_uses_it_and_options_are_refused():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((50, 4)), rng.standard_normal(50)
    fast, cvxpy = SVRAttention().fit(X, y), SVRAttention(solver="CLARABEL").fit(X, y)
    assert SVRAttention().solver == "newton" and abs(fast.relative_gap_) <= 1e-14
    np.testing.assert_allclose(fast.predict(X), cvxpy.predict(X), atol=1e-8)
    for solve in (solve_dual, solve_primal):
        with pytest.raises(ValueError, match='solver_options: expected none for solver "newton"'):
            solve(Primal(), X, y[:, None], C=1, epsilon=0.1, solver="newton", solver_options={"max_iter": 1})
