"""A record of the calls of `attention` inside a module, by the names of its submodules."""

from contextlib import contextmanager
from typing import NamedTuple

import torch


class Call(NamedTuple):
    """What `attention` was called with."""

    primal: object
    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    key_mask: torch.Tensor | None
    attn_mask: torch.Tensor | None
    is_causal: bool
    beta: torch.Tensor | None
    taps: torch.Tensor | None


_record = None  # called with each Call while something listens


def record(*arguments):
    """Tell whoever listens that `attention` was called."""
    if _record is not None:
        _record(Call(*arguments))


@contextmanager
def recording(module):
    """A list that collects (name of the innermost submodule, Call) while `module` runs."""
    global _record
    calls, running, hooks = [], [], []
    for name, child in module.named_modules():
        name = name or type(module).__name__
        hooks.append(child.register_forward_pre_hook(lambda *_, name=name: running.append(name)))
        hooks.append(child.register_forward_hook(lambda *_: running.pop() and None, always_call=True))
    before, _record = _record, lambda call: calls.append((running[-1], call))
    try:
        yield calls
    finally:
        _record = before
        for hook in hooks:
            hook.remove()
