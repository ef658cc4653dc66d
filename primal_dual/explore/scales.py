"""What scaled heads see: a sequence of noisy targets, and an SVR that is trained on averages of neighbours."""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from primal_dual import Exponential, Primal, attention_weights, solve_dual
from primal_dual.explore.controls import slider
from primal_dual.explore.python_lines import imports
from primal_dual.svr.optimality import SUPPORT_VECTOR
from primal_dual.svr.training_sets import training_set

SCALES = (1, 2, 3, 4, 6, 8, 12, 16)  # that are compared


@dataclass(frozen=True)
class ScalesState:
    """What is chosen."""

    scale: int = slider(4, "Scale: tokens in an average", 1, 16, 1)
    tokens: int = slider(48, "Tokens", 16, 96, 1)
    waves: float = slider(2.0, "Waves of the signal", 0.5, 6.0, 0.5)
    noise: float = slider(0.3, "Noise in the targets", 0.0, 1.0, 0.05)
    sharpness: float = slider(30.0, "Sharpness of the kernel", 1.0, 200.0, 0.05, logarithmic=True)
    C: float = slider(10.0, "C, times the median of h(k)", 0.1, 1000.0, 0.05, logarithmic=True)
    epsilon: float = slider(0.1, "epsilon, half the tube", 0.0, 1.0, 0.01)
    seed: int = slider(0, "Another draw of the noise", 0, 20, 1)
    query: int = slider(10, "Query token", 0, 95, 1)

    @property
    def token(self) -> int:
        """The query token; the last one, where there are fewer."""
        return min(self.query, self.tokens - 1)


@dataclass(frozen=True, eq=False)
class Sequence:
    """Keys (N, 2), each the place of a token on half a circle; the signal (N,), and targets (N, 1) with noise."""

    keys: np.ndarray
    signal: np.ndarray
    targets: np.ndarray


def sequence(state: ScalesState) -> Sequence:
    """The sequence of a state."""
    angle = np.pi * (np.arange(state.tokens) + 0.5) / state.tokens
    signal = np.sin(2 * state.waves * angle)
    noise = np.random.default_rng(state.seed).standard_normal(state.tokens)
    return Sequence(np.array([np.cos(angle), np.sin(angle)]).T, signal, (signal + state.noise * noise)[:, None])


def primal_of(state: ScalesState) -> Primal:
    """Attention-SH: neighbours on the circle have large weights, the sharper the kernel, the fewer of them."""
    return Primal(Exponential(scale=state.sharpness), scale=state.scale)


@dataclass(frozen=True, eq=False)
class Head:
    """The SVR at one scale.

    f (N,): its function at the tokens. error: the root of the mean square of f less the signal. cost: how many pairs of
    a token and a training point have a weight, as a part of those at scale 1. points: the number of training points,
    of which support_vectors have a delta other than zero.
    """

    f: np.ndarray
    error: float
    cost: float
    points: int
    support_vectors: int


def head(state: ScalesState) -> Head:
    """The SVR of a state; it does not depend on the query."""
    return _head(replace(state, query=0))


@lru_cache(maxsize=64)
def _head(state: ScalesState) -> Head:
    given, primal = sequence(state), primal_of(state)
    C = training_set(primal, given.keys).penalty(state.C)
    solution: Any = solve_dual(primal, given.keys, given.targets, C=C, epsilon=state.epsilon, solver="newton")
    f = solution.predict(given.keys)[:, 0]
    points = len(solution.alpha)
    support_vectors = int((abs(solution.alpha - solution.alpha_tilde) > SUPPORT_VECTOR * C).sum())
    error = float(np.sqrt(((f - given.signal) ** 2).mean()))
    return Head(f, error, points / state.tokens, points, support_vectors)


def by_scale(state: ScalesState) -> dict[int, Head]:
    """The heads that are compared."""
    return {scale: head(replace(state, scale=scale)) for scale in SCALES}


def ends(state: ScalesState) -> dict[str, int]:
    """The last query token is the last token."""
    return {"query": state.tokens - 1}


def weights_of_query(state: ScalesState) -> np.ndarray:
    """The attention weights (N,) of the query token."""
    keys = sequence(state).keys
    return attention_weights(primal_of(state), keys[[state.token]], keys)[0]


def readout(state: ScalesState) -> dict[str, str]:
    """The numbers beside the picture."""
    found, plain = head(state), head(replace(state, scale=1))
    return {
        "Training points": f"{found.points} of {state.tokens} tokens",
        "Support vectors": f"{found.support_vectors}",
        "Cost, of that at scale 1": f"{found.cost:.3f}",
        "Error": f"{found.error:.4f}",
        "Error at scale 1": f"{plain.error:.4f}",
        "Weight of the query's pool": f"{_weight_of_own_pool(state):.4f}",
    }


def _weight_of_own_pool(state: ScalesState) -> float:
    group = np.arange(state.tokens) // state.scale
    return float(weights_of_query(state)[group == group[state.token]].sum())


def as_python(state: ScalesState) -> str:
    """Lines that compute the numbers of the page."""
    given = sequence(state)
    multiples = [
        training_set(primal_of(each), given.keys).penalty(state.C) for each in (state, replace(state, scale=1))
    ]
    return f"""\
import numpy as np

{imports(primal_of(state), "attention_weights", "solve_dual")}

N = {state.tokens}
angle = np.pi * (np.arange(N) + 0.5) / N
signal = np.sin(2 * {state.waves!r} * angle)
noise = np.random.default_rng({state.seed}).standard_normal(N)
keys = np.array([np.cos(angle), np.sin(angle)]).T
targets = (signal + {state.noise!r} * noise)[:, None]


def solve(primal, C):
    solution = solve_dual(primal, keys, targets, C=C, epsilon={state.epsilon!r}, solver="newton")
    return solution, np.sqrt(((solution.predict(keys)[:, 0] - signal) ** 2).mean())


primal = {primal_of(state)}
plain = {primal_of(replace(state, scale=1))}
C = {multiples[0]!r}  # {state.C:g} medians of |h(k_j)|
solution, error = solve(primal, C)
points = len(solution.alpha)
print(f"Training points: {{points}} of {{N}} tokens")
print(f"Support vectors: {{(abs(solution.alpha - solution.alpha_tilde) > {SUPPORT_VECTOR!r} * C).sum()}}")
print(f"Cost, of that at scale 1: {{points / N:.3f}}")
print(f"Error: {{error:.4f}}")
print(f"Error at scale 1: {{solve(plain, {multiples[1]!r})[1]:.4f}}")

query = {state.token}
weights = attention_weights(primal, keys[[query]], keys)[0]
group = np.arange(N) // {state.scale}
print(f"Weight of the query's pool: {{weights[group == group[query]].sum():.4f}}")
"""
