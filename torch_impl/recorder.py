"""A record of the calls of `attention` inside a module, by the names of its submodules."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import nn

from primal_dual.primal import Heads, Primal, members_of
from primal_dual.transforms import BatchNorm, Convolution


class Call(NamedTuple):
    """What `attention` was called with."""

    primal: Primal | Heads
    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    key_mask: torch.Tensor | None = None
    query_mask: torch.Tensor | None = None
    attn_mask: torch.Tensor | None = None
    is_causal: bool = False
    beta: torch.Tensor | None = None
    taps: torch.Tensor | None = None

    def over_heads(self, mask: torch.Tensor | None) -> torch.Tensor | None:
        """A mask of keys or queries, with an axis of length one for the heads if there are any."""
        return mask[..., None, :] if mask is not None and isinstance(self.primal, Heads) else mask

    def primals(self) -> tuple[Primal, ...]:
        """The primal of each head, with the numbers that it has learned in the place of its own.

        Examples
        --------
        >>> from primal_dual import BatchNorm
        >>> q, beta = torch.ones(1, 3, 2), torch.tensor([0.25])
        >>> call = Call(Heads(Primal(transform=BatchNorm())), q, q, q, beta=beta)
        >>> call.primals()[0].transform
        (BatchNorm(beta=0.25, eps=1e-05),)
        """
        members = members_of(self.primal)
        if self.beta is None and self.taps is None:
            return members
        betas = [None] * len(members) if self.beta is None else self.beta.reshape(-1).expand(len(members)).tolist()
        return tuple(_with_learned(primal, beta, self.taps) for primal, beta in zip(members, betas, strict=True))


def _with_learned(primal: Primal, beta: float | None, taps: torch.Tensor | None) -> Primal:
    parts = primal.transform if isinstance(primal.transform, tuple) else (primal.transform,)
    learned: list[Any] = []
    for part in parts:
        if isinstance(part, BatchNorm) and beta is not None:
            part = replace(part, beta=beta)
        if isinstance(part, Convolution) and taps is not None:
            part = replace(part, kernel=tuple(taps.tolist()))
        learned.append(part)
    return replace(primal, transform=tuple(learned))


class _Recorder(threading.local):
    """What a thread does with each Call while there is a `recording` in it."""

    record: Callable[[Call], None] | None = None


_recorder = _Recorder()


def record(call: Call) -> None:
    """Add a call of `attention` to the list of the `recording` that runs in this thread, if one does."""
    if _recorder.record is not None:
        _recorder.record(call)


@contextmanager
def recording(module: nn.Module) -> Iterator[list[tuple[str, Call]]]:
    """A context with a list of the calls of `attention` that happen in it while `module` runs in this thread.

    Each is a pair: the name of the innermost submodule that ran, and the Call.

    Examples
    --------
    >>> from torch_impl import MultiheadAttention
    >>> layer, x = MultiheadAttention(8, 2), torch.ones(3, 1, 8)
    >>> with recording(layer) as calls:
    ...     _ = layer(x, x, x, need_weights=False)
    >>> [(name, tuple(call.q.shape)) for name, call in calls]
    [('MultiheadAttention', (1, 2, 3, 4))]
    """
    calls: list[tuple[str, Call]] = []
    running: list[str] = []
    hooks = []
    before = _recorder.record

    def note(call: Call) -> None:
        if running:
            calls.append((running[-1], call))

    def enter(name: str) -> Callable[..., None]:
        def push(*_: object) -> None:
            if _recorder.record is note:
                running.append(name)

        return push

    def leave(*_: object) -> None:
        if _recorder.record is note:
            running.pop()

    try:
        for path, child in module.named_modules():
            if isinstance(child, torch.jit.ScriptModule):
                continue  # takes no hooks, and has no attention of ours inside
            hooks.append(child.register_forward_pre_hook(enter(path or type(module).__name__)))
            hooks.append(child.register_forward_hook(leave, always_call=True))
        _recorder.record = note
        yield calls
    finally:
        _recorder.record = before
        for hook in hooks:
            hook.remove()
