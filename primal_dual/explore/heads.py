"""A real head: its attention map, the SVR that it solves, and the certificate that proves it."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from primal_dual import attention, attention_weights, certify
from primal_dual.explore.controls import choice, slider
from primal_dual.explore.head_sources import Head, Source
from primal_dual.explore.svr import ROUNDING, kinds_of
from primal_dual.svr.optimality import SUPPORT_VECTOR
from primal_dual.svr.training_sets import training_set

MOST_OUTPUTS, MOST_QUERIES = 128, 512  # that the sliders reach
ALL = 9  # where the slider of the decimals ends
SMALLEST = 1e-300  # whose logarithm stands for that of zero
WHOSE = 'print(f"Whose SVR: query {exact.query}, with the largest gap")\n'


@dataclass(frozen=True)
class HeadState:
    """What is chosen. An empty word is the first that there is."""

    source: str = choice("", "Head of")
    attention: str = choice("", "Attention")
    layer: str = choice("", "Layer")
    head: str = choice("", "Head")
    output: int = slider(1, "Output", 1, MOST_OUTPUTS, 1)
    decimals: int = slider(ALL, "Decimals of the values that are kept", 0, ALL, 1, last="all")
    query: int = slider(0, "Query (row)", 0, MOST_QUERIES - 1, 1)


@dataclass(frozen=True, eq=False)
class Certified:
    """A head with values (N, Dv), some of whose decimals were dropped, and its certificate.

    size (n, Dv): |delta| / C of each training point and output. norm: |W| of the head as it is.
    bound and error: how far its function may be from the optimum, and is from that of all decimals, at any key as a
    query whose SVR is certified: the one with the largest gap, where each has its own.
    """

    head: Head
    values: np.ndarray
    weights: np.ndarray
    certificate: Any
    size: np.ndarray
    norm: float
    bound: float
    error: float

    def output(self, state: HeadState) -> int:
        """The number of the output that a state asks for, from zero; the last one if it has fewer."""
        return min(state.output, self.values.shape[1]) - 1

    def kinds(self, output: int) -> np.ndarray:
        """Of each training point, in one output: 0 no support vector, 1 a free one, 2 one at the bound."""
        return kinds_of(self.size[:, output])


class RealHeads:
    """The heads of some sources, by their names."""

    def __init__(self, sources: Mapping[str, Source]) -> None:
        self.sources = sources
        self._certified = lru_cache(maxsize=8)(certified)
        self._head = lru_cache(maxsize=8)(lambda source, *place: self.sources[source].head(*place))

    def options(self, state: HeadState) -> dict[str, list[str]]:
        """The words of the choices."""
        source = self.sources[self._source(state)]
        return {
            "source": list(self.sources),
            "attention": list(source.attentions),
            "layer": list(source.layers),
            "head": [str(number + 1) for number in range(source.heads)],
        }

    def ends(self, state: HeadState) -> dict[str, int]:
        """The last query and the last output are those of the head."""
        head = self.head(state)
        outputs, queries = head.values.shape[1], len(head.queries)
        return {"output": min(outputs, MOST_OUTPUTS), "query": min(queries, MOST_QUERIES) - 1}

    def _source(self, state: HeadState) -> str:
        name = state.source or next(iter(self.sources))
        if name not in self.sources:
            raise ValueError(f"Head of: expected {' or '.join(self.sources)}; got {name}")
        return name

    def head(self, state: HeadState) -> Head:
        """The head of a state: the first of each choice that its source does not have."""
        options = self.options(state)
        attention, layer, head = (
            word if word in options[name] else options[name][0]
            for name, word in (("attention", state.attention), ("layer", state.layer), ("head", state.head))
        )
        return self._head(self._source(state), attention, layer, int(head) - 1)

    def certified(self, state: HeadState) -> Certified:
        """The head of a state with its certificate."""
        return self._certified(self.head(state), state.decimals)

    def weights_of_query(self, state: HeadState) -> np.ndarray:
        """The attention weights (N,) of a query."""
        weights = self.certified(state).weights
        return weights[min(state.query, len(weights) - 1)]

    def readout(self, state: HeadState) -> dict[str, str]:
        """The numbers beside the picture."""
        found = self.certified(state)
        proof, kinds = found.certificate, found.kinds(found.output(state))
        N, D = found.head.keys.shape
        numbers = {
            "Keys, features": f"{N}, {D}",
            "Support vectors": f"{(kinds == 1).sum()} free, {(kinds == 2).sum()} at the bound",
            "Norm of W": f"{found.norm:.5g}",
            "C": f"{np.exp(proof.log_C):.5g}",
            "Primal value": f"{proof.primal_value * np.exp(proof.log_scale):.6g}",
            "Dual value": f"{proof.dual_value * np.exp(proof.log_scale):.6g}",
            "Gap, relative": f"{proof.relative_gap:.1e}",
            "Error of f at the keys, at most": f"{max(found.bound, ROUNDING):.1e}",
            "Error of f there, in fact": f"{found.error:.1e}",
            "Largest weight of the query": f"{self.weights_of_query(state).max():.4f}",
        }
        return numbers if proof.query is None else numbers | {"Whose SVR": f"query {proof.query}, with the largest gap"}

    def as_python(self, state: HeadState) -> str:
        """Lines that compute the numbers of the page."""
        head, found = self.head(state), self.certified(state)
        query, output = found.certificate.query, found.output(state)
        rows, whose = ("", "") if query is None else (f"[{query}]", WHOSE)
        kept = "values" if state.decimals == ALL else f"np.trunc(values * 1e{state.decimals}) / 1e{state.decimals}"
        return f"""\
{head.python}
exact = certify(primal, keys, values, **svr)
kept = {kept}
svr = dict(targets=exact.targets, C=np.exp(exact.log_C)) | svr | dict(query=exact.query)
certificate = {"exact" if state.decimals == ALL else "certify(primal, keys, kept, **svr)"}

train = training_set(primal, keys, exact.query)
log_size = np.log(np.maximum(abs(train.pool(kept)[:, {output}]), {SMALLEST!r})) + train.log_h
size = np.exp(log_size - certificate.log_C)  # |delta_j| / C of an output
bound = (size > {1 - SUPPORT_VECTOR!r}).sum()
unit = np.exp(certificate.log_scale)
error = np.linalg.norm(attention(primal, keys, keys, values - kept), axis=1)
weights = attention_weights(primal, queries, keys)

print(f"Keys, features: {{len(keys)}}, {{keys.shape[1]}}")
print(f"Support vectors: {{(size > {SUPPORT_VECTOR!r}).sum() - bound}} free, {{bound}} at the bound")
print(f"Norm of W: {{np.exp(exact.log_norm):.5g}}")
print(f"C: {{np.exp(certificate.log_C):.5g}}")
print(f"Primal value: {{certificate.primal_value * unit:.6g}}")
print(f"Dual value: {{certificate.dual_value * unit:.6g}}")
print(f"Gap, relative: {{certificate.relative_gap:.1e}}")
print(f"Error of f at the keys, at most: {{max(certificate.error_bound(keys){rows}.max(), {ROUNDING!r}):.1e}}")
print(f"Error of f there, in fact: {{error{rows}.max():.1e}}")
print(f"Largest weight of the query: {{weights[{min(state.query, len(head.queries) - 1)}].max():.4f}}")
{whose}"""


def certified(head: Head, decimals: int) -> Certified:
    """The certificate of a head whose values keep some decimals: the others are dropped towards zero.

    The SVR is that of all decimals, so that the gap says how much is lost. |delta| stays below C, as values shrink.
    """
    primal, keys, values, queries = head.primal, head.keys, head.values, head.queries
    exact: Any = certify(primal, keys, values, **head.svr)
    kept, found = values, exact
    if decimals != ALL:
        kept = np.trunc(values * 10.0**decimals) / 10.0**decimals
        svr = {"targets": exact.targets, "C": np.exp(exact.log_C)} | dict(head.svr) | {"query": exact.query}
        found = certify(primal, keys, kept, **svr)
    train = training_set(primal, keys, exact.query)
    log_size = np.log(np.maximum(abs(train.pool(kept)), SMALLEST)) + train.log_h[:, None]
    error = np.linalg.norm(attention(primal, keys, keys, values - kept), axis=1)
    rows = slice(None) if exact.query is None else exact.query
    return Certified(
        head,
        values=kept,
        weights=attention_weights(primal, queries, keys),
        certificate=found,
        size=np.exp(log_size - found.log_C),
        norm=float(np.exp(exact.log_norm)),
        bound=float(found.error_bound(keys)[rows].max()),
        error=float(error[rows].max()),
    )
