"""Heads of the trained models that come with the package, for the explorable."""

from functools import cache, cached_property
from importlib.util import find_spec
from typing import Any

from primal_dual.cli.console import torch_part
from primal_dual.explore.head_sources import Head, Source
from primal_dual.svr.training_sets import training_set

DATA = "JapaneseVowels/"  # whose utterances come with aeon
PREFIX = f"pretrained:{DATA}"
PYTHON = """\
import numpy as np
import torch

from primal_dual import attention, attention_weights, certify
from {training_sets} import training_set
from torch_impl.analysis.models_to_certify import load_model
from torch_impl.recorder import recording

model, example = load_model({name!r})
with recording(model) as calls, torch.no_grad():
    model(*example)
_, call = calls[{layer}]
real = call.key_mask[0].numpy()
queries, keys, values = (x[0, {head}].numpy()[real].astype(float) for x in (call.q, call.k, call.v))
primal, svr = call.primal.primals[{head}], {{}}
"""


class Pretrained:
    """The heads of these models, on the first utterance of the test split. torch is loaded when one is looked at."""

    @cached_property
    def attentions(self) -> tuple[str, ...]:
        names = torch_part("training.trained.pretrained_models").pretrained()
        return tuple(name.removeprefix(DATA) for name in names if name.startswith(DATA))

    @property
    def layers(self) -> tuple[str, ...]:  # of all models the same
        return tuple(str(number + 1) for number in range(len(_calls(self.attentions[0]))))

    @property
    def heads(self) -> int:
        return len(_calls(self.attentions[0])[0].primal)

    def head(self, attention: str, layer: str, head: int) -> Head:
        number = int(layer) - 1
        call = _calls(attention)[number]
        real = call.key_mask[0].numpy()
        queries, keys, values = (x[0, head].numpy()[real].astype(float) for x in (call.q, call.k, call.v))
        python = PYTHON.format(training_sets=training_set.__module__, name=PREFIX + attention, layer=number, head=head)
        return Head(call.primal.primals[head], keys, values, queries, python)


@cache
def _calls(attention: str) -> list[Any]:
    """What each layer of a model calls `attention` with."""
    import torch

    model, example = torch_part("analysis.models_to_certify").load_model(PREFIX + attention)
    with torch_part("recorder").recording(model) as calls, torch.no_grad():
        model(*example)
    return [call for _, call in calls]


def sources() -> dict[str, Source]:
    """Their source, by its name; none without torch."""
    return {"a trained transformer": Pretrained()} if find_spec("torch") else {}
