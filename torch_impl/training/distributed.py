"""The processes that train together."""

import os
from typing import NamedTuple

import torch
import torch.distributed as dist


class World(NamedTuple):
    """The processes that train together: which one this is, of how many, on which device."""

    rank: int
    size: int
    device: torch.device

    @property
    def first(self):
        return self.rank == 0

    def sum(self, x):
        if self.size > 1:
            dist.all_reduce(x)
        return x

    def wait(self):
        if self.size > 1:
            dist.barrier()


def this_process():
    """The World of torchrun, or of one process alone."""
    size, cuda = int(os.environ.get("WORLD_SIZE", 1)), torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    if size > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if cuda else "gloo")
    return World(dist.get_rank() if size > 1 else 0, size, device)


def shutdown_distributed():
    """The end of training together."""
    if dist.is_initialized():
        dist.destroy_process_group()
