"""Time and memory of a call, where both are known."""

import torch

from torch_impl.analysis import cost
from torch_impl.bench import measure


def test_live_memory_is_the_most_that_is_alive_at_a_time():
    def call():
        a = torch.ones(1000)  # float32: 4,000 bytes
        b = a + a
        del a
        view = b[:10]
        c = torch.ones(500)
        return view, c

    assert cost.peak(call, "cpu") == 8000

    def longer():
        kept = call()
        return kept, torch.ones(2000)

    assert cost.peak(longer, "cpu") == 4000 + 2000 + 8000


def test_pairs_are_interleaved_after_a_first_call_of_each(monkeypatch):
    calls, seconds = [], iter([1.0, 2.0, 6.0, 3.0, 4.0, 2.0])
    monkeypatch.setattr(measure, "timed", lambda call, device: call() or next(seconds))
    ratio, ours, theirs = measure.interleaved(lambda: calls.append("a"), lambda: calls.append("b"), "cpu", 3)
    assert calls == ["a", "b"] * 4
    assert (ratio, ours, theirs) == (2.0, 4.0, 2.0)  # medians of 1/2, 6/3, 4/2, of 1, 6, 4, and of 2, 3, 2


def test_a_call_is_timed_by_the_clock(monkeypatch):
    clock = iter([10.0, 12.5])
    monkeypatch.setattr(cost.time, "perf_counter", lambda: next(clock))
    assert cost.timed(lambda: None, "cpu") == 2.5
