"""What an attention costs beside softmax: operations, memory and time of a layer, in training and in inference.

    primal-dual efficiency [--json FILE] [--figure FILE]

A block of the encoder with 8 heads, width 512, feed-forward 1,024, without dropout, on one sequence (32 on a GPU).
Operations are those of torch.utils.flop_counter under the MATH backend, counted on the meta device. It counts matrix
products, forward and backward.
"""

import statistics

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from torch_impl.bench.measure import peak, timed
from torch_impl.models.encoders import TimeSeriesEncoder, Tokens
from torch_impl.training.machine import machine

ATTENTIONS = ("softmax", "bn", "sh", "bn+sh")
LENGTHS = (256, 512, 1024, 2048, 4096, 8192)
WIDTH, HEADS = 512, 8
TIMED = 2**14  # tokens, at least


def run(device, lengths=LENGTHS, attentions=ATTENTIONS, repeats=3, track=lambda each, description: each):
    """All measurements -> {"machine", "rows"}: a row a length, attention and mode ("training" or "inference"), with
    flops, bytes and seconds, each also as a ratio to softmax's. repeats: the fewest; short sequences have more, since
    their times scatter more. track: shows progress over the lengths."""
    rows = []
    for N in track(lengths, description="lengths"):
        for mode in ("training", "inference"):
            calls = {name: _call(name, N, device, mode) for name in attentions}
            seconds = _interleaved(calls, device, max(repeats, TIMED // N))
            found = {
                name: dict(flops=flops(name, N, mode), bytes=peak(call, device), seconds=seconds[name])
                for name, call in calls.items()
            }
            for name, values in found.items():
                ratios = {f"{what}_ratio": values[what] / found["softmax"][what] for what in values}
                rows.append(dict(N=N, attention=name, mode=mode) | values | ratios)
    return {"machine": machine(device), "rows": rows}


def device():
    """Where it is measured: on the GPU if there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def flops(name, N, mode):
    """Operations of a layer on one sequence of N tokens, counted without computing."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        _call(name, N, "meta", mode)()
    return counter.get_total_flops()


def _call(name, N, device, mode):
    """A step on random tokens, as a function."""
    torch.manual_seed(0)
    batch = 32 if device == "cuda" else 1
    options = dict(layers=1, width=WIDTH, num_heads=HEADS, feedforward=2 * WIDTH, dropout=0.0, norm="layer")
    with torch.device(device):
        block = TimeSeriesEncoder(1, 1, 2, name, **options).blocks[0]
        x = torch.randn(batch * N, WIDTH)
    tokens = Tokens(None, batch, N)
    weights = list(block.parameters())
    if mode == "training":
        return lambda: torch.autograd.grad(block(x, tokens).sum(), weights)
    return torch.no_grad()(lambda: block(x, tokens))


def _interleaved(calls, device, repeats):
    """The median seconds of each call, taken by turns."""
    for call in calls.values():
        call()
    times = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            times[name].append(timed(call, device))
    return {name: statistics.median(each) for name, each in times.items()}
