"""The record of the calls of attention inside a module."""

import threading

import pytest
import torch
from torch import nn

from torch_impl import MultiheadAttention, certify_module
from torch_impl.drop_in import replace_attention
from torch_impl.recorder import recording


class Beside(nn.Module):
    """An attention that runs once, after another thread has run it and a second one, each with more tokens."""

    def __init__(self):
        super().__init__()
        self.own, self.others = (MultiheadAttention(8, 2, batch_first=True) for _ in range(2))

    def run(self, *layers, tokens):
        x = torch.ones(1, tokens, 8)
        for layer in layers:
            layer(x, x, x)

    def forward(self, x):
        thread = threading.Thread(target=self.run, args=(self.own, self.others), kwargs=dict(tokens=9))
        thread.start()
        thread.join()
        return self.own(x, x, x)[0]


def test_calls_in_other_threads_are_not_recorded():
    model, x = Beside(), torch.ones(1, 5, 8)
    with recording(model) as calls:
        model(x)
    assert [(name, call.k.shape[-2]) for name, call in calls] == [("own", 5)]
    assert [each.module for each in certify_module(model, x)] == ["own", "own"]


def test_a_graph_of_torch_compile_is_recorded_and_left_as_it_was():
    layer, x = MultiheadAttention(8, 2, primal="bn").eval(), torch.randn(5, 1, 8)
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    for _ in range(2):
        assert compiled(x, x, x)[0].shape == x.shape
        with recording(compiled) as calls:
            compiled(x, x, x)
        assert len(calls) == 1


def test_calls_outside_of_the_module_are_not_recorded():
    layer, x = MultiheadAttention(8, 2), torch.ones(3, 1, 8)
    with recording(nn.Linear(8, 8)) as calls:
        layer(x, x, x)
    assert calls == []


def hooks_of(model):
    return sum(len(each._forward_hooks) + len(each._forward_pre_hooks) for each in model.modules())


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_part_that_is_a_script_takes_no_hooks():
    model = nn.Sequential(nn.TransformerEncoderLayer(8, 2), torch.jit.script(nn.Linear(8, 8)))
    before = hooks_of(replace_attention(model, "bn"))
    certificates = certify_module(model, torch.randn(3, 1, 8))
    assert {each.module for each in certificates} == {"0.self_attn"} and hooks_of(model) == before


class TakesNoHooks(nn.Identity):
    def register_forward_pre_hook(self, hook, **options):
        raise RuntimeError("no hooks")


def test_no_hook_stays_if_a_recording_cannot_start():
    model = nn.Sequential(nn.Linear(8, 8), TakesNoHooks())
    with pytest.raises(RuntimeError, match="no hooks"):
        certify_module(model, torch.ones(1, 8))
    assert hooks_of(model) == 0
