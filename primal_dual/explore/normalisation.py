"""What batch normalisation changes: keys in the plane, and one query in softmax attention and in Attention-BN."""

from dataclasses import dataclass

import numpy as np

from primal_dual import BatchNorm, Exponential, Identity, Primal, attention_weights
from primal_dual.explore.controls import numbers, slider
from primal_dual.explore.python_lines import array

REACH = 4.0  # of the axes


@dataclass(frozen=True)
class NormalisationState:
    """What is chosen. The keys are also the queries whose common vote is shown."""

    beta: float = slider(1.0, "beta, share of the mean", -0.5, 1.5, 0.05)
    query_x: float = slider(0.6, "Query, across", -REACH, REACH, 0.05)
    query_y: float = slider(0.4, "Query, up", -REACH, REACH, 0.05)
    keys_x: tuple[float, ...] = numbers((0.4, 0.8, 1.0, 1.3, 1.5, 1.8, 2.1, 2.4, 2.6, 3.2), "Keys, across")
    keys_y: tuple[float, ...] = numbers((1.1, 0.2, 1.6, 0.9, 2.3, 0.4, 1.5, 2.2, 0.9, 1.9), "Keys, up")


def keys_of(state: NormalisationState) -> np.ndarray:
    """The keys, (N, 2)."""
    if len(state.keys_x) != len(state.keys_y):
        raise ValueError(f"Keys, up: expected {len(state.keys_x)}, one a key; got {len(state.keys_y)}")
    return np.array([state.keys_x, state.keys_y]).T


def transforms(state: NormalisationState) -> dict[str, Identity | BatchNorm]:
    """Those of the two attentions that are compared."""
    return {"softmax": Identity(), "Attention-BN": BatchNorm(beta=state.beta)}


def weights_of_query(state: NormalisationState) -> dict[str, np.ndarray]:
    """The attention weights (N,) of the query, in each."""
    query, keys = np.array([[state.query_x, state.query_y]]), keys_of(state)
    return {name: attention_weights(Primal(transform=T), query, keys)[0] for name, T in transforms(state).items()}


def votes(state: NormalisationState) -> dict[str, np.ndarray]:
    """What all queries say of each key (N,), in each: its mean logit over the queries, less that of all keys."""
    keys, vote = keys_of(state), {}
    for name, transform in transforms(state).items():
        transformed = transform.fit(keys, np.ones(len(keys), bool))(keys)
        logits = Exponential().log_gram(transformed, transformed)
        vote[name] = logits.mean(axis=0) - logits.mean()
    return vote


def readout(state: NormalisationState) -> dict[str, str]:
    """The numbers beside the picture."""
    keys = keys_of(state)
    mu, sigma = keys.mean(axis=0), keys.std(axis=0)
    numbers = {
        "Mean of the keys": f"({mu[0]:.3f}, {mu[1]:.3f})",
        "Their deviation": f"({sigma[0]:.3f}, {sigma[1]:.3f})",
    }
    for name, weights in weights_of_query(state).items():
        numbers[f"Largest weight, {name}"] = f"{weights.max():.4f}"
    for name, vote in votes(state).items():
        numbers[f"Largest vote, {name}"] = f"{round(abs(vote).max(), 9):.4f}"
    return numbers


def as_python(state: NormalisationState) -> str:
    """Lines that compute the numbers of the page."""
    keys = keys_of(state)
    return f"""\
import numpy as np

from primal_dual import BatchNorm, Exponential, Identity, Primal, attention_weights

keys = {array(keys)}
query = np.array([[{state.query_x!r}, {state.query_y!r}]])
mu, sigma = keys.mean(axis=0), keys.std(axis=0)
print(f"Mean of the keys: ({{mu[0]:.3f}}, {{mu[1]:.3f}})")
print(f"Their deviation: ({{sigma[0]:.3f}}, {{sigma[1]:.3f}})")

transforms = {{
    "softmax": Identity(),
    "Attention-BN": BatchNorm(beta={state.beta!r}),
}}
for name, transform in transforms.items():
    weights = attention_weights(Primal(transform=transform), query, keys)
    print(f"Largest weight, {{name}}: {{weights.max():.4f}}")
for name, transform in transforms.items():
    transformed = transform.fit(keys, np.ones(len(keys), bool))(keys)
    logits = Exponential().log_gram(transformed, transformed)
    vote = logits.mean(axis=0) - logits.mean()
    print(f"Largest vote, {{name}}: {{round(abs(vote).max(), 9):.4f}}")
"""
