"""The processes that train one model together, as torchrun starts them; one process alone is the common case."""

import os
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from primal_dual.types import Int, Num


class World(NamedTuple):
    """The processes that train together.

    Parameters
    ----------
    rank : int
        The number of this process, from 0.
    size : int
        How many there are.
    device : torch.device
        Where this process computes.

    Examples
    --------
    >>> World(0, 1, torch.device("cpu")).first
    True
    """

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and says how far the training is."""
        return self.rank == 0

    def sum(self, x: Num[torch.Tensor, "..."]) -> Num[torch.Tensor, "..."]:
        """The sum of x over the processes, in place."""
        if self.size > 1:
            dist.all_reduce(x)
        return x

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.size > 1:
            dist.barrier()


def this_process() -> World:
    """The World of this process: that of torchrun, which it joins; without torchrun, a world of its own.

    It computes on a GPU if there is one. ValueError for more processes than GPUs.
    """
    size, cuda = int(os.environ.get("WORLD_SIZE", 1)), torch.cuda.is_available()
    local = int(os.environ.get("LOCAL_RANK", 0))
    if cuda and local >= torch.cuda.device_count():
        raise ValueError(f"torchrun: expected a GPU a process; got {torch.cuda.device_count()} for process {local}")
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    if size > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if cuda else "gloo")
    return World(dist.get_rank() if size > 1 else 0, size, device)


def parallel_model(model: nn.Module, world: World) -> nn.Module:
    """The model in a wrapper that averages its gradients over the processes; the model itself if there is one process.

    Raises
    ------
    ValueError
        For batch norm on a CPU, where torch cannot share its statistics.
    """
    if world.size == 1:
        return model
    if world.device.type == "cuda":
        return DistributedDataParallel(nn.SyncBatchNorm.convert_sync_batchnorm(model), [world.device])
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):
        raise ValueError("norm: expected layer or pre-layer where processes on a CPU share a batch; got batch")
    return DistributedDataParallel(model)


class Part(NamedTuple):
    """Examples of a batch that a process computes at once.

    Parameters
    ----------
    examples : tensor of integers, (part,)
        Their index in the training split.
    weight : float
        The weight of their mean loss in the mean loss of the batch.
    """

    examples: Int[torch.Tensor, " part"]
    weight: float


def share_batch(batch: Int[torch.Tensor, " batch"], parts: int, world: World) -> Iterator[Part]:
    """What this process computes of a batch, in several parts, one after the other.

    A part without an example computes the first one of the batch with weight zero, so that all processes take the same
    steps.

    Parameters
    ----------
    batch : tensor of integers, (batch,)
        The index of the batch in the training split.
    parts : int
        How many there are in each process.
    world : World
        The processes.

    Examples
    --------
    >>> for part in share_batch(torch.tensor([3, 1, 4]), 2, World(0, 1, torch.device("cpu"))):
    ...     print(part.examples.tolist(), round(part.weight, 3))
    [3, 1] 0.667
    [4] 0.333
    """
    for examples in batch[world.rank :: world.size].tensor_split(parts):
        if len(examples):
            yield Part(examples, len(examples) / len(batch))
        else:
            yield Part(batch[:1], 0.0)


def shutdown_distributed() -> None:
    """Leave the world of torchrun, after all training."""
    if dist.is_initialized():
        dist.destroy_process_group()
