"""Benchmarks of speed and memory: each a ratio of medians inside one run, beside its bar."""

import os
import platform
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np

from primal_dual.certificates.certificate import certify
from primal_dual.expansion import attention
from primal_dual.primal import Heads, Primal, catalog
from primal_dual.svr.solve import solve_dual
from primal_dual.svr.training_sets import training_set

REPEATS = 7
LARGE = 10_000  # examples
MOST_EXAMPLES = 500  # of a problem of regression
GRID = {"C": [0.3, 1, 3, 10, 30, 100, 1000], "gamma": [0.003, 0.01, 0.03, 0.1, 0.3], "epsilon": [0.03, 0.1, 0.3]}
Row = dict[str, Any]


def run(with_memory: bool, track: Callable[..., Iterable[Any]]) -> dict[str, Any]:
    """All benchmarks -> a dictionary for JSON; track(list, description=...) goes through a list and shows progress."""
    chosen = [
        solvers,
        newton_beside_others,
        large_training_set,
        regressors,
        certificate,
        forward,
        *([memory] if with_memory else []),
    ]
    rows = [row for benchmark in track(chosen, description="benchmarks") for row in benchmark()]
    machine = {
        "python": sys.version.split()[0],
        "numpy": np.__version__,
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "system": platform.system(),
    }
    return {"machine": machine, "rows": rows}


def solvers() -> list[Row]:
    """solve_dual at N = 500, D = 16, 8 outputs: seconds an output and relative gap, beside scikit-learn's libsvm."""
    import cvxpy
    from sklearn.svm import SVR

    N, D, outputs = 500, 16, 8
    rng = np.random.default_rng(0)
    keys, targets = rng.standard_normal((N, D)), rng.standard_normal((N, outputs))
    primal = Primal()
    train = training_set(primal, keys)
    C, epsilon = train.penalty(10), 0.1
    rows = []
    for solver in ("newton", "CLARABEL", "PIQP"):
        if solver not in ("newton", *cvxpy.installed_solvers()):
            continue
        solve_dual(primal, keys[:9], targets[:9], C=C, epsilon=epsilon, solver=solver)  # loads what it needs
        solve = partial(solve_dual, primal, keys, targets, C=C, epsilon=epsilon, solver=solver)
        seconds, solution = _timed(solve, 3)
        rows += [
            _row(f"solve_dual, {solver}: seconds an output", seconds / outputs, 0.25),
            _row(f"solve_dual, {solver}: relative gap", solution.relative_gap, 1e-8),
        ]

    def libsvm() -> np.ndarray:
        """scikit-learn's SVR has a bias always: its gap is that of its own problem, from its dual variables."""
        delta = np.zeros((N, outputs))
        for d in range(outputs):
            model = SVR(kernel="precomputed", C=C, epsilon=epsilon).fit(G, targets[:, d])
            delta[model.support_, d] = model.dual_coef_[0]
        return delta

    G = train.gram(keys)
    seconds, delta = _timed(libsvm, 3)
    biased = Primal(bias=True)
    values = delta / np.exp(train.log_h)[:, None]
    found: Any = certify(biased, keys, values, targets=targets, C=C * (1 + 1e-9), epsilon=epsilon)
    return [
        *rows,
        _row("sklearn.svm.SVR: seconds an output", seconds / outputs),
        _row("sklearn.svm.SVR: relative gap", found.relative_gap),
    ]


def newton_beside_others() -> list[Row]:
    """Newton's method beside libsvm and Clarabel on the same Gram matrices: D = 16, no bias, one thread."""
    from sklearn.svm import SVR
    from threadpoolctl import threadpool_limits

    from primal_dual.svr.projected_newton import newton
    from primal_dual.svr.quadratic_programs import dual_program

    rows = []
    epsilon = 0.1
    with threadpool_limits(1):
        for N, at_most in ((500, 2), (1000, 4), (2000, 6)):
            G, C, y = _svr_problem(N, outputs=8)
            ours = partial(newton, C * G, y[:, :1], epsilon, False)
            libsvm = partial(SVR(kernel="precomputed", C=C, epsilon=epsilon).fit, G, y[:, 0])
            rows.append(_row(f"newton / sklearn.svm.SVR, N = {N}", _ratio(ours, libsvm), at_most))
            rows.append(_row(f"newton, N = {N}: relative gap", ours().relative_gap, 1e-12))
            if N == 1000:
                cvxpy = partial(dual_program(C * G, None, np.ones(N), epsilon, False, "CLARABEL", None), y[:, 0])
                rows.append(_row("newton / Clarabel, N = 1000", _timed(ours, 3)[0] / _timed(cvxpy, 1)[0], 1 / 15))
                eight = partial(newton, C * G, y, epsilon, False)
                rows.append(_row("newton, N = 1000, 8 outputs / 1", _ratio(eight, ours), 5))
    return rows


def _svr_problem(N: int, outputs: int) -> tuple[np.ndarray, float, np.ndarray]:
    """The Gram matrix of random keys, C = 10 medians of |h|, and random targets."""
    rng = np.random.default_rng(0)
    train = training_set(Primal(), rng.standard_normal((N, 16)))
    return train.gram(train.keys), train.penalty(10), rng.standard_normal((N, outputs))


def large_training_set() -> list[Row]:
    """SVRAttention.fit at D = 16, where no N x N matrix is made."""
    from primal_dual.model_selection.estimator import SVRAttention

    rng = np.random.default_rng(0)
    X, noise = rng.standard_normal((LARGE, 16)), rng.standard_normal(LARGE)
    y = np.sin(X[:, 0]) + X[:, 1] * X[:, 2] / 2 + 0.3 * noise
    seconds, model = _timed(lambda: SVRAttention().fit(X, y), 1)
    return [
        _row(f"SVRAttention.fit, N = {LARGE:,}: seconds", seconds, 90),
        _row(f"SVRAttention.fit, N = {LARGE:,}: relative gap", model.relative_gap_, 1e-12),
    ]


def regressors() -> list[Row]:
    """R2 of SVRAttention beside a tuned SVR, mean of 3 folds: all settings are chosen on the training folds alone."""
    from sklearn import datasets
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVR

    from primal_dual.model_selection.estimator import SVRAttention

    def score(model: Any, X: np.ndarray, y: np.ndarray) -> float:
        """X and y are standardised by the training folds."""
        scaled = TransformedTargetRegressor(make_pipeline(StandardScaler(), model), transformer=StandardScaler())
        return cross_val_score(scaled, X, y, cv=KFold(3, shuffle=True, random_state=0)).mean()

    rows = []
    for name, (X, y) in {
        "diabetes": datasets.load_diabetes(return_X_y=True),
        "friedman1": datasets.make_friedman1(300, noise=1.0, random_state=0),
        "friedman2": datasets.make_friedman2(300, noise=50.0, random_state=0),
    }.items():
        X, y = X[:MOST_EXAMPLES], y[:MOST_EXAMPLES]
        theirs = score(GridSearchCV(SVR(), GRID, cv=3), X, y)
        ours = score(SVRAttention(C="loo", epsilon="loo", metric="loo"), X, y)
        rows.append(_row(f"R2 of a tuned SVR, {name}", theirs))
        rows.append(_row(f"the same less that of SVRAttention, {name}", theirs - ours, 0.01))
    return rows


def certificate() -> list[Row]:
    """certify at N = 1024, D = Dv = 64, against one forward of attention: one SVR, and the 1,024 of a causal head."""
    q, k, v = np.random.default_rng(0).standard_normal((3, 1024, 64))
    rows = []
    for what, name, at_most in (("certify", "softmax", 3), ("certify, causal", "causal", 10)):
        ratio = _ratio(partial(certify, catalog[name], k, v), partial(attention, Primal(), q, k, v))
        rows.append(_row(f"{what} / attention, N = 1024", ratio, at_most))
    return rows


def forward() -> list[Row]:
    """attention at N = 1024, D = 64 in float64, against torch's scaled_dot_product_attention where torch is there."""
    try:
        import torch
    except ImportError:
        return []
    q, k, v = np.random.default_rng(0).standard_normal((3, 1024, 64))
    tq, tk, tv = (torch.tensor(x)[None, None] for x in (q, k, v))
    torch_attention = torch.nn.functional.scaled_dot_product_attention
    ratio = _ratio(lambda: attention(Primal(), q, k, v), lambda: torch_attention(tq, tk, tv))
    return [_row("attention / torch, N = 1024, float64", ratio, 2)]


def memory() -> list[Row]:
    """Peak MiB of attention at N = 16,384, D = 64 beyond its input, for each support and transform of the catalog."""
    rows = []
    q, k, v = np.random.default_rng(0).standard_normal((3, 16_384, 64))
    for name, primal in catalog.items():
        if isinstance(primal, Heads):
            continue
        tracemalloc.start()
        attention(primal, q, k, v)
        peak = tracemalloc.get_traced_memory()[1] / 2**20
        tracemalloc.stop()
        rows.append(_row(f"attention, {name}, N = 16,384: peak MiB", peak, 300))
    return rows


def _row(what: str, measured: float, at_most: float | None = None) -> Row:
    return {"what": what, "measured": float(measured), "at_most": at_most}


def _timed(function: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """The median time of a call in seconds, and what it returned."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = function()
        times.append(time.perf_counter() - start)
    return statistics.median(times), result


def _ratio(function: Callable[[], object], other: Callable[[], object]) -> float:
    """The median over interleaved pairs of calls of the ratio of their times."""
    function(), other()
    return statistics.median(_timed(function, 1)[0] / _timed(other, 1)[0] for _ in range(REPEATS))
