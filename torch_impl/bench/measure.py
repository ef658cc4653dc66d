"""Time and memory of a call."""

import statistics
import time
import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveMemory(TorchDispatchMode):
    """The most bytes alive at a time in tensors made inside, on any device."""

    def __init__(self):
        super().__init__()
        self.alive, self.peak, self._known = 0, 0, set()

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        result = operation(*arguments, **(options or {}))
        for x in tree_leaves(result):
            if isinstance(x, torch.Tensor) and id(x.untyped_storage()) not in self._known:
                self._count(x.untyped_storage())
        return result

    def _count(self, storage):
        self._known.add(id(storage))
        self.alive += storage.nbytes()
        self.peak = max(self.peak, self.alive)
        weakref.finalize(storage, self._free, id(storage), storage.nbytes())

    def _free(self, identity, size):
        self._known.discard(identity)
        self.alive -= size


def timed(call, device):
    """Seconds of one call."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def interleaved(ours, theirs, device, pairs):
    """The median of the pairs' ratios, and the medians of their seconds."""
    ours(), theirs()
    times = [(timed(ours, device), timed(theirs, device)) for _ in range(pairs * (10 if device == "cuda" else 1))]
    return (statistics.median(a / b for a, b in times), *(statistics.median(each) for each in zip(*times, strict=True)))


def peak(call, device):
    """The most bytes that a call has alive at a time, beyond its input."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with LiveMemory() as memory:
        call()
    return memory.peak
