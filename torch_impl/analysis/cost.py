"""The time and the memory of a call."""

import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Step = Callable[[], object]  # what is measured


class LiveMemory(TorchDispatchMode):
    """The largest number of bytes that are alive at a time in tensors made inside, on any device.

    Views of tensors from outside take none. What an operation of torch needs while it runs is not seen.

    Examples
    --------
    >>> x = torch.ones(500)
    >>> with LiveMemory() as memory:
    ...     y = 2 * x.view(5, 100)
    >>> memory.peak, memory.alive
    (2000, 2000)
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
        for storage in self._unknown((arguments, options)):
            self._count(storage, 0)  # it was made outside
        result = operation(*arguments, **(options or {}))
        for storage in self._unknown(result):
            self._count(storage, storage.nbytes())
        return result

    def _unknown(self, tree: Any) -> Iterator[torch.UntypedStorage]:
        """The storages of the tensors in a tree that were not met before."""
        for x in tree_leaves(tree):
            if isinstance(x, torch.Tensor) and id(x.untyped_storage()) not in self._known:
                yield x.untyped_storage()

    def _count(self, storage: torch.UntypedStorage, size: int) -> None:
        self._known.add(id(storage))
        self.alive += size
        self.peak = max(self.peak, self.alive)
        weakref.finalize(storage, self._free, id(storage), size)

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
    >>> x = torch.ones(1000)
    >>> peak(lambda: 2 * x, "cpu"), peak(lambda: x.view(10, 100), "cpu")
    (4000, 0)
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
