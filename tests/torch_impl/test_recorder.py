"""The record of the calls of attention inside a module."""

import threading

import torch
from torch import nn

from torch_impl import MultiheadAttention, certify_module
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
