"""Where a real head comes from: the spoken vowel, trained by convex optimisation; or files of keys and values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from primal_dual import Heads, Primal, checks, solve_dual
from primal_dual.io import files
from primal_dual.io.datasets import japanese_vowels
from primal_dual.primal import catalog
from primal_dual.supports import Everything
from primal_dual.svr.training_sets import training_set

MOST_TOKENS = 512  # of a map that is drawn


@dataclass(frozen=True, eq=False)
class Head:
    """A head: its primal, keys (N, D), values (N, Dv) and queries (M, D).

    svr has the targets, C and epsilon of the SVR that it solves, as `certify` takes them; it is empty where they are to
    be found from the values. `python` are the lines that make all five.
    """

    primal: Primal
    keys: np.ndarray
    values: np.ndarray
    queries: np.ndarray
    python: str
    svr: Mapping[str, Any] = field(default_factory=dict)


class Source(Protocol):
    """Some heads: which attentions they may be, their layers, and how many there are in each."""

    @property
    def attentions(self) -> tuple[str, ...]:
        """Their names in the catalog."""

    @property
    def layers(self) -> tuple[str, ...]:
        """Their names."""

    @property
    def heads(self) -> int:
        """How many a layer has."""

    def head(self, attention: str, layer: str, head: int) -> Head:
        """One of them."""


class Vowel:
    """The forecaster of `primal-dual demo`: a frame of a spoken vowel is a key, and the next frame its target."""

    attentions = tuple(
        name for name, each in catalog.items() if isinstance(each, Primal) and isinstance(each.support, Everything)
    )
    layers, heads = ("the only one",), 1

    def head(self, attention: str, layer: str, head: int) -> Head:
        return _vowel(attention)


@lru_cache(maxsize=4)
def _vowel(attention: str) -> Head:
    primal, (keys, targets) = _one(attention), japanese_vowels()
    C, epsilon = training_set(primal, keys).penalty(10), 0.1
    solution: Any = solve_dual(primal, keys, targets, C=C, epsilon=epsilon, solver="newton")
    python = f"""\
import numpy as np

from primal_dual import attention, attention_weights, catalog, certify, solve_dual
from primal_dual.io.datasets import japanese_vowels
from primal_dual.svr.training_sets import training_set

keys, targets = japanese_vowels()
queries, primal = keys, catalog[{attention!r}]
svr = dict(C={C!r}, epsilon={epsilon!r})  # C is 10 medians of |h(k_j)|
values = solve_dual(primal, keys, targets, **svr, solver="newton").values
svr["targets"] = targets
"""
    return Head(primal, keys, solution.values, keys, python, {"C": C, "epsilon": epsilon, "targets": targets})


class Files:
    """Heads of one's own, in arrays (N, D), (heads, N, D) or (layers, heads, N, D)."""

    attentions = tuple(name for name, each in catalog.items() if isinstance(each, Primal))

    def __init__(self, arrays: Mapping[str, np.ndarray], python: str) -> None:
        """arrays: keys, values and, if the queries are others than the keys, queries. python: what loads them."""
        self.python, self.axes = python, arrays["keys"].ndim
        self.arrays = {name: _four_axes(name, x) for name, x in arrays.items()}
        keys = arrays["keys"].shape
        expected = {"keys": keys, "values": (*keys[:-1], "Dv"), "queries": (*keys[:-2], "M", keys[-1])}
        for name, x in arrays.items():
            any_size = {"M": x.shape[-2], "Dv": x.shape[-1]}
            if x.shape != tuple(any_size.get(size, size) for size in expected[name]):
                raise ValueError(f"{name}: expected shape {expected[name]}, as the keys have; got {x.shape}")
        self.layers = tuple(map(str, range(1, 1 + len(self.arrays["keys"]))))
        self.heads = self.arrays["keys"].shape[1]

    @classmethod
    def load(cls, keys: Path | None, values: Path | None, both: Path | None) -> "Files":
        """From two .npy files, or from one .npz file with the arrays keys, values and maybe queries."""
        if both is None:
            if keys is None or values is None:
                raise ValueError("--keys and --values: expected both or none")
            arrays = {"keys": files.load_array(keys), "values": files.load_array(values)}
            lines = [f"{name} = np.load({str(path)!r})" for name, path in (("keys", keys), ("values", values))]
            return cls(arrays, "\n".join(lines))
        if keys is not None or values is not None:
            raise ValueError("--keys and --values: expected none beside a .npz file")
        return cls(_load_npz(both), f"arrays = np.load({str(both)!r})\nkeys, values = arrays['keys'], arrays['values']")

    def head(self, attention: str, layer: str, head: int) -> Head:
        place = (int(layer) - 1, head)
        found = {name: x[place] for name, x in self.arrays.items()}
        index = {2: "", 3: f"[{head}]", 4: f"[{place[0]}, {head}]"}[self.axes]
        queries = f"arrays['queries']{index}" if "queries" in found else "keys"
        python = f"""\
import numpy as np

from primal_dual import attention, attention_weights, catalog, certify
from primal_dual.svr.training_sets import training_set

{self.python}
keys, values = keys{index}, values{index}
queries, primal, svr = {queries}, catalog[{attention!r}], {{}}
"""
        return Head(_one(attention), found["keys"], found["values"], found.get("queries", found["keys"]), python)


def _one(attention: str) -> Primal:
    primal = catalog[attention]
    if isinstance(primal, Heads):
        raise ValueError(f"primal: expected the attention of one head; got {attention}")
    return primal


def _four_axes(name: str, x: np.ndarray) -> np.ndarray:
    x = checks.array(name, x, "N D")
    if x.ndim > 4 or x.shape[-2] > MOST_TOKENS:
        shapes = "(N, D), (heads, N, D) or (layers, heads, N, D)"
        raise ValueError(f"{name}: expected {shapes} with N of at most {MOST_TOKENS}; got {x.shape}")
    return x.reshape((1,) * (4 - x.ndim) + x.shape)


def _load_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in ("keys", "values", "queries") if name != "queries" or name in arrays}
    except (OSError, KeyError, ValueError, AttributeError, *files.DAMAGED) as error:
        raise ValueError(f"{path}: expected a .npz file with the arrays keys and values; {error}") from error
