"""Heads of trained models, for the explorable: those that come with the package, or one of the reader's own."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from primal_dual.cli.console import torch_part
from primal_dual.explore.head_sources import MOST_TOKENS, Head, Source
from primal_dual.primal import Primal
from primal_dual.supports import Causal, Everything
from primal_dual.svr.training_sets import training_set

DATA = "JapaneseVowels/"  # whose utterances come with aeon
PREFIX = f"pretrained:{DATA}"
PYTHON = """\
import numpy as np
import torch

from primal_dual import Causal, Everything, attention, attention_weights, certify
from dataclasses import replace
from pathlib import Path
from {training_sets} import training_set
from torch_impl.analysis.models_to_certify import load_model
from torch_impl.recorder import recording

model, example = load_model({arguments})
with recording(model) as calls, torch.no_grad():
    model({stars}example)
_, call = calls[{layer}]
real = slice(None) if call.key_mask is None else call.key_mask[0].numpy()
queries, keys, values = (x[0, {head}].numpy()[real].astype(float) for x in (call.q, call.k, call.v))
primal, svr = call.primals()[{head}], {{}}
if call.is_causal and primal.support == Everything():
    primal = replace(primal, support=Causal())
"""


class OneModel:
    """The heads of a model, on one input. It is loaded at once, so that what cannot be shown is refused at the start.

    name, file and data are as `load_model` takes them.
    """

    attentions = ("its own",)

    def __init__(self, name: str, file: Path | None = None, data: Path | None = None) -> None:
        self.calls, stars = _calls(name, file, data)
        paths = {key: f"Path({str(path)!r})" for key, path in (("file", file), ("data_folder", data)) if path}
        arguments = ", ".join([repr(name), *(f"{key}={path}" for key, path in paths.items())])
        self.lines = {"arguments": arguments, "stars": stars, "training_sets": training_set.__module__}
        for call in self.calls:
            tokens = call.k.shape[-2]
            if call.attn_mask is not None or call.k.ndim != 4 or tokens > MOST_TOKENS:
                got = f"{tokens} keys" if tokens > MOST_TOKENS else "a mask of its own, or other axes"
                raise ValueError(
                    f"{name}: expected attention of (examples, heads, N, D), N at most {MOST_TOKENS}; got {got}"
                )
        self.layers = tuple(str(number + 1) for number in range(len(self.calls)))
        self.heads = min(len(call.primal) for call in self.calls)

    def head(self, attention: str, layer: str, head: int) -> Head:
        number = int(layer) - 1
        call = self.calls[number]
        real = slice(None) if call.key_mask is None else call.key_mask[0].numpy()
        queries, keys, values = (x[0, head].numpy()[real].astype(float) for x in (call.q, call.k, call.v))
        primal: Primal = call.primals()[head]
        if call.is_causal and primal.support == Everything():
            primal = replace(primal, support=Causal())
        return Head(primal, keys, values, queries, PYTHON.format(layer=number, head=head, **self.lines))


class Pretrained:
    """Those that come with the package, on the first utterance of the test split. They are loaded when looked at."""

    @cached_property
    def attentions(self) -> tuple[str, ...]:
        names = torch_part("training.trained.pretrained_models").pretrained()
        return tuple(name.removeprefix(DATA) for name in names if name.startswith(DATA))

    @property
    def layers(self) -> tuple[str, ...]:  # of all models the same
        return _pretrained(self.attentions[0]).layers

    @property
    def heads(self) -> int:
        return _pretrained(self.attentions[0]).heads

    def head(self, attention: str, layer: str, head: int) -> Head:
        return _pretrained(attention).head(attention, layer, head)


@cache
def _pretrained(attention: str) -> OneModel:
    return OneModel(PREFIX + attention)


def _calls(name: str, file: Path | None, data: Path | None) -> tuple[list[Any], str]:
    """What each layer of a model calls `attention` with, and the stars that the model's argument is called with."""
    models, recorder = torch_part("analysis.models_to_certify"), torch_part("recorder")
    import torch

    model, example = models.load_model(name, file, data)
    stars = "**" if isinstance(example, Mapping) else "*"
    with recorder.recording(model.eval()) as calls, torch.no_grad():
        model(**example) if stars == "**" else model(*example)
    return [call for _, call in calls], stars


def sources() -> dict[str, Source]:
    """The package's own, by their name; none without torch."""
    return {"a trained transformer": Pretrained()} if find_spec("torch") else {}
