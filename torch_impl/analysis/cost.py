"""The time and the memory of a call."""

import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Step = Callable[[], object]  # what is measured


class LiveMemory(TorchDispatchMode):
    """The largest number of bytes that are alive at a time in tensors made inside, on any device.

    Examples
    --------
    >>> with LiveMemory() as memory:
    ...     x = torch.ones(1000)
    >>> memory.peak, memory.alive
    (4000, 4000)
    """

    def __init__(self) -> None:
        super().__init__()
        self.alive, self.peak = 0, 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self,
        operation: Callable,
        types: Sequence[type],
        arguments: Sequence[Any] = (),
        options: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run an operation of torch, and count the storages that it makes."""
        result = operation(*arguments, **(options or {}))
        for x in tree_leaves(result):
            if isinstance(x, torch.Tensor) and id(x.untyped_storage()) not in self._known:
                self._count(x.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        self._known.add(id(storage))
        self.alive += storage.nbytes()
        self.peak = max(self.peak, self.alive)
        weakref.finalize(storage, self._free, id(storage), storage.nbytes())

    def _free(self, identity: int, size: int) -> None:
        self._known.discard(identity)
        self.alive -= size


def timed(step: Step, device: str) -> float:
    """The seconds of one call, with the work that it leaves to a GPU.

    Examples
    --------
    >>> timed(lambda: time.sleep(0.01), "cpu") >= 0.01
    True
    """
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def peak(step: Step, device: str) -> int:
    """The largest number of bytes that a call has alive at a time, beyond its input.

    Examples
    --------
    >>> peak(lambda: torch.ones(1000), "cpu")
    4000
    """
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with LiveMemory() as memory:
        step()
    return memory.peak
