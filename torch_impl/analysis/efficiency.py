"""What an attention costs beside softmax: the operations, memory and time of a layer, in training and in inference.

    primal-dual efficiency [--json FILE] [--figure FILE]

The layer is a block of the encoder with 8 heads, width 512, feed-forward width 1,024 and no dropout, on one sequence
(32 on a GPU). Its operations are counted by torch.utils.flop_counter, which counts matrix products, forward and
backward, on the meta device, where nothing is computed.
"""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from primal_dual.primal import COMPARED, heads
from torch_impl.analysis.cost import Step, peak, timed
from torch_impl.models.encoder_block import EncoderBlock
from torch_impl.models.tokens import Tokens
from torch_impl.training.runs.machine import describe_machine

LENGTHS = (256, 512, 1024, 2048, 4096, 8192)
WIDTH, HEADS = 512, 8
TOKENS_TIMED = 2**14  # at least, since the times of short sequences scatter more


def run(
    device_type: str,
    lengths: Sequence[int] = LENGTHS,
    attentions: Sequence[str] = COMPARED,
    repeats: int | None = None,
    track: Callable[..., Iterable[int]] | None = None,
) -> dict[str, Any]:
    """Measure some attentions at some lengths.

    Parameters
    ----------
    device_type : str
        "cpu" or "cuda".
    lengths : sequence of int
        Numbers of tokens N.
    attentions : sequence of str
        Names of the catalog, with softmax.
    repeats : int, optional
        The number of timings; by default at least 3, and more for short sequences.
    track : callable, optional
        track(lengths, description=...) iterates over the lengths and shows the progress, as rich's `Progress.track`.

    Returns
    -------
    dict
        machine, and rows: one for each length, attention and mode ("training" or "inference"), with its flops, bytes
        (peak memory) and seconds, and with each of them as a ratio to softmax's.
    """
    rows = []
    for N in lengths if track is None else track(lengths, description="lengths"):
        for mode in ("training", "inference"):
            steps = {name: _step(name, N, device_type, mode) for name in attentions}
            seconds = _median_seconds(steps, device_type, repeats or max(3, TOKENS_TIMED // N))
            measured = {
                name: dict(flops=flops(name, N, mode), bytes=peak(step, device_type), seconds=seconds[name])
                for name, step in steps.items()
            }
            for name, numbers in measured.items():
                ratios = {f"{what}_ratio": numbers[what] / measured["softmax"][what] for what in numbers}
                rows.append({"N": N, "attention": name, "mode": mode} | numbers | ratios)
    return {"machine": describe_machine(device_type), "rows": rows}


def flops(name: str, N: int, mode: str) -> int:
    """The operations of a layer on one sequence, counted without computing.

    Parameters
    ----------
    name : str
        A name of the catalog.
    N : int
        The number of tokens.
    mode : str
        "training" or "inference".

    Examples
    --------
    >>> flops("softmax", 16, "inference") == 2 * 16 * 512 * (4 * 512 + 2 * 1024 + 2 * 16)
    True
    """
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        _step(name, N, "meta", mode)()
    return counter.get_total_flops()


def _step(name: str, N: int, device_type: str, mode: str) -> Step:
    """A call of the layer on random tokens, with its gradients in training."""
    torch.manual_seed(0)
    batch = 32 if device_type == "cuda" else 1
    with torch.device(device_type):
        block = EncoderBlock(heads(name, HEADS), WIDTH, 2 * WIDTH, dropout=0.0, norm="layer", rate=0.0)
        x = torch.randn(batch * N, WIDTH)
    tokens = Tokens(None, batch, N)
    weights = list(block.parameters())
    if mode == "training":
        return lambda: torch.autograd.grad(block(x, tokens).sum(), weights)
    return torch.no_grad()(lambda: block(x, tokens))


def _median_seconds(steps: Mapping[str, Step], device_type: str, repeats: int) -> dict[str, float]:
    """The median seconds of each step, which take turns, after a first turn that is not timed."""
    for step in steps.values():
        step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            times[name].append(timed(step, device_type))
    return {name: statistics.median(each) for name, each in times.items()}
