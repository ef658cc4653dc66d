"""An SVR is an attention: one-dimensional keys and targets, the SVR that is fitted to them, and its attention."""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from primal_dual import (
    BatchNorm,
    Causal,
    EluPlusOne,
    Everything,
    Exponential,
    Gaussian,
    Identity,
    Polynomial,
    Primal,
    RandomFeatures,
    Strided,
    Taylor,
    UnitNorm,
    Window,
    attention_weights,
    certify,
    solve_dual,
)
from primal_dual.explore.controls import choice, numbers, slider
from primal_dual.explore.python_lines import array, imports
from primal_dual.svr.optimality import SUPPORT_VECTOR
from primal_dual.svr.training_sets import training_set

KERNELS: dict[str, Any] = {
    "exponential": Exponential(),
    "gaussian": Gaussian(0.5),
    "linear": EluPlusOne(),
    "taylor": Taylor(4),
    "polynomial": Polynomial(2, 1.0),
    "random features": RandomFeatures(50, seed=0),
}
SUPPORTS: dict[str, Any] = {"all keys": Everything(), "window": Window(3), "strided": Strided(2), "causal": Causal()}
EXACT = 11  # where the slider of the tolerance ends: 10^-0 to 10^-10, and then Newton's method
GRID = np.linspace(-3, 3, 151)
ROUNDING = 2e-16  # a bound below it is not told


@dataclass(frozen=True)
class SVRState:
    """What is chosen. The keys count from left to right, wherever they stand in the list."""

    kernel: str = choice("exponential", "Kernel", KERNELS)
    transform: str = choice("none", "Transform", ("none", "batch normalisation", "unit length"))
    support: str = choice("all keys", "Support", SUPPORTS)
    position: int = slider(0, "Whose SVR: position of the query", 0, 59, 1)
    scale: int = slider(1, "Keys in an average (scale)", 1, 6, 1)
    bias: str = choice("no", "Bias", ("no", "yes"))
    C: float = slider(10.0, "C, times the median of h(k)", 0.1, 1000.0, 0.05, logarithmic=True)
    epsilon: float = slider(0.15, "epsilon, half the tube", 0.0, 1.0, 0.01)
    beta: float = slider(1.0, "beta, share of the mean", -1.0, 2.0, 0.05)
    digits: int = slider(EXACT, "Solver stops at this many digits", 0, EXACT, 1, last="all")
    query: float = slider(0.4, "Query x", -3.0, 3.0, 0.01)
    keys: tuple[float, ...] = numbers(
        (-2.4, -2.0, -1.7, -1.3, -0.9, -0.6, -0.2, 0.1, 0.5, 0.9, 1.2, 1.6, 1.9, 2.3), "Keys"
    )
    targets: tuple[float, ...] = numbers(
        (-0.5, -0.9, -1.1, -0.9, -0.9, -0.2, -0.3, 0.3, 0.3, 1.0, 0.8, 1.1, 0.9, 0.4), "Targets"
    )


@dataclass(frozen=True, eq=False)
class Problem:
    """The SVR that a state asks for. `query` is the position of the query whose SVR it is, under a support."""

    primal: Primal
    keys: np.ndarray
    targets: np.ndarray
    C: float
    epsilon: float
    query: int | None
    stopped: dict[str, Any]

    @property
    def svr(self) -> dict[str, Any]:
        """What solvers and certificate take beside keys and targets."""
        return {"C": self.C, "epsilon": self.epsilon, "query": self.query}


@dataclass(frozen=True, eq=False)
class Solved:
    """The solution of a problem, with f and its error bound on GRID.

    points, point_targets and delta, each (n,), belong to the training points, which are averages under a scale. Values
    and their gap are divided by C.
    """

    problem: Problem
    solution: Any
    points: np.ndarray
    point_targets: np.ndarray
    delta: np.ndarray
    f: np.ndarray
    bound: np.ndarray
    primal_value: float
    dual_value: float
    gap: float
    certificate: Any

    @property
    def kinds(self) -> np.ndarray:
        """Of each training point: 0 no support vector, 1 a free one, 2 one at the bound."""
        return kinds_of(abs(self.delta) / self.problem.C)

    def predict(self, x: float) -> float:
        return float(self.solution.predict(np.array([[x]]))[0, 0])

    def error_bound(self, x: float) -> float:
        return float(self.certificate.error_bound(np.array([[x]]))[0])


def kinds_of(size: np.ndarray) -> np.ndarray:
    """Of each |delta| / C: 0 no support vector, 1 a free one, 2 one at the bound."""
    return (size > SUPPORT_VECTOR).astype(int) + (size > 1 - SUPPORT_VECTOR)


def problem(state: SVRState) -> Problem:
    """The SVR of a state, in the terms of the package."""
    if len(state.keys) != len(state.targets):
        raise ValueError(f"Targets: expected {len(state.keys)}, one a key; got {len(state.targets)}")
    order = np.argsort(state.keys, kind="stable")
    keys, targets = (np.array(x)[order][:, None] for x in (state.keys, state.targets))
    transforms: dict[str, Any] = {
        "none": Identity(),
        "batch normalisation": BatchNorm(beta=state.beta),
        "unit length": UnitNorm(),
    }
    primal = Primal(
        KERNELS[state.kernel],
        transform=transforms[state.transform],
        support=SUPPORTS[state.support],
        scale=state.scale,
        bias=state.bias == "yes",
    )
    query = None if state.support == "all keys" else min(state.position, len(keys) - 1)
    tolerance = 10.0**-state.digits
    options = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), tolerance)
    stopped: dict[str, Any] = {"solver": "newton"} if state.digits == EXACT else {"solver_options": options}
    C = training_set(primal, keys, query).penalty(state.C)
    return Problem(primal, keys, targets, C, state.epsilon, query, stopped)


def solve(state: SVRState) -> Solved:
    """The solution; it does not depend on where the query is."""
    return _solve(replace(state, query=0.0))


@lru_cache(maxsize=8)
def _solve(state: SVRState) -> Solved:
    asked = problem(state)
    solution: Any = solve_dual(asked.primal, asked.keys, asked.targets, **asked.svr, **asked.stopped)
    found: Any = certify(asked.primal, asked.keys, solution.values, targets=asked.targets, **asked.svr)
    train, grid = training_set(asked.primal, asked.keys, asked.query), GRID[:, None]
    unit = np.exp(found.log_scale) / asked.C
    return Solved(
        asked,
        solution,
        points=train.keys[:, 0],
        point_targets=found.targets[:, 0],
        delta=(solution.alpha - solution.alpha_tilde)[:, 0],
        f=solution.predict(grid)[:, 0],
        bound=found.error_bound(grid),
        primal_value=found.primal_value * unit,
        dual_value=found.dual_value * unit,
        gap=max(found.primal_value - found.dual_value, 0.0) * unit,
        certificate=found,
    )


def weights_of_query(state: SVRState) -> np.ndarray:
    """The attention weights (N,) of the query at state.query, in the place of the query whose SVR it is."""
    asked = solve(state).problem
    place = asked.query or 0
    return attention_weights(asked.primal, np.full((place + 1, 1), state.query), asked.keys)[place]


def attention_map(state: SVRState) -> np.ndarray:
    """The attention weights (N, N) of the keys as queries."""
    asked = solve(state).problem
    return attention_weights(asked.primal, asked.keys, asked.keys)


def ends(state: SVRState) -> dict[str, int]:
    """The last position is that of the last key."""
    return {"position": len(state.keys) - 1}


def idle(state: SVRState) -> list[str]:
    """The controls that have no effect."""
    without_position = ["position"] if state.support == "all keys" else []
    return without_position + (["beta"] if state.transform != "batch normalisation" else [])


def readout(state: SVRState) -> dict[str, str]:
    """The numbers beside the picture."""
    found = solve(state)
    free, bound = ((found.kinds == kind).sum() for kind in (1, 2))
    return {
        "Primal value / C": f"{found.primal_value:.6f}",
        "Dual value / C": f"{found.dual_value:.6f}",
        "Gap / C": f"{found.gap:.1e}",
        "Gap, relative": f"{found.certificate.relative_gap:.1e}",
        "Support vectors": f"{free} free, {bound} at the bound, of {len(found.kinds)} points",
        "f at the query": f"{found.predict(state.query):.4f}",
        "Error of f there, at most": f"{max(found.error_bound(state.query), ROUNDING):.1e}",
        "Largest weight there": f"{weights_of_query(state).max():.4f}",
        "C": f"{found.problem.C:.5g}",
    }


def as_python(state: SVRState) -> str:
    """Lines that compute the numbers of the page."""
    asked = problem(state)
    query = "" if asked.query is None else f", query={asked.query}"
    place = asked.query or 0
    stopped = ", ".join(f"{name}={value!r}" for name, value in asked.stopped.items())
    return f"""\
import numpy as np

{imports(asked.primal, "attention_weights", "certify", "solve_dual")}

keys = {array(asked.keys[:, 0])}[:, None]
targets = {array(asked.targets[:, 0])}[:, None]
primal = {asked.primal}
svr = dict(C={asked.C!r}, epsilon={asked.epsilon!r}{query})  # C is {state.C:g} medians of |h(k_j)|

solution = solve_dual(primal, keys, targets, **svr, {stopped})
certificate = certify(primal, keys, solution.values, targets=targets, **svr)
unit = np.exp(certificate.log_scale) / svr["C"]
gap = max(certificate.primal_value - certificate.dual_value, 0.0) * unit
size = abs(solution.alpha - solution.alpha_tilde) / svr["C"]
bound = (size > {1 - SUPPORT_VECTOR!r}).sum()
free = (size > {SUPPORT_VECTOR!r}).sum() - bound

x = np.array([[{state.query!r}]])
weights = attention_weights(primal, np.repeat(x, {place + 1}, axis=0), keys)[{place}]

print(f"Primal value / C: {{certificate.primal_value * unit:.6f}}")
print(f"Dual value / C: {{certificate.dual_value * unit:.6f}}")
print(f"Gap / C: {{gap:.1e}}")
print(f"Gap, relative: {{certificate.relative_gap:.1e}}")
print(f"Support vectors: {{free}} free, {{bound}} at the bound, of {{len(size)}} points")
print(f"f at the query: {{solution.predict(x)[0, 0]:.4f}}")
print(f"Error of f there, at most: {{max(certificate.error_bound(x)[0], {ROUNDING!r}):.1e}}")
print(f"Largest weight there: {{weights.max():.4f}}")
print(f"C: {{svr['C']:.5g}}")
"""
