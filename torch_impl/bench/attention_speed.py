"""Speed and memory of the mirror, as ratios to torch's scaled_dot_product_attention inside one run.

    python -m torch_impl.bench [--device cpu|cuda] [--quick] [--json FILE] [--plot FILE]

CPU: float32, batch 1. GPU: bfloat16, batch 32. D = 64, 8 heads, forward and backward. Each ratio is the median over
interleaved pairs of calls; memory is the peak of what a call allocates beyond its input.
"""

import argparse
from functools import partial
from importlib.util import find_spec

import torch
import torch.nn.functional as F

from primal_dual.io.files import check_writable, write_file, write_json
from primal_dual.kernels import EluPlusOne
from primal_dual.primal import Primal, heads
from primal_dual.supports import Causal, Window
from torch_impl.bench.measure import interleaved, peak, timed
from torch_impl.expansion import attention
from torch_impl.training.machine import machine

D, H = 64, 8
WINDOW = Primal(support=Window(128))
CAUSAL_LINEAR = Primal(EluPlusOne(), support=Causal())
RATIOS = [  # what, primal, baseline is causal, N, at most on a CPU, and on a GPU (compiled)
    ("Attention-BN", "bn", False, 1024, 1.15, 1.20),
    ("Attention-BN", "bn", False, 4096, 1.05, 1.05),
    ("Attention-SH, scales 1, 2, 4, 8", "sh", False, 4096, 0.52, 0.55),
    ("BN+SH", "bn+sh", False, 4096, 0.55, 0.60),
    ("causal BN / causal SDPA", "causal-bn", True, 4096, 1.10, 1.10),
    ("causal BN / causal SDPA", "causal-bn", True, 16384, 1.10, 1.10),
    ("window of radius 128", WINDOW, False, 16384, 0.08, 0.15),
    ("linear attention", "linear", False, 16384, 0.08, None),
    ("causal linear / full SDPA", CAUSAL_LINEAR, False, 16384, 0.15, None),
]
MEMORY = [("Attention-SH", "sh", 1.05), ("Attention-BN", "bn", 1.6), ("linear attention", "linear", 1.6)]
SWEEP = [256, 512, 1024, 2048, 4096, 8192, 16384]
CURVES = {  # primal, and the share of softmax's multiplications that it needs at N
    "softmax": ("softmax", lambda N: 1.0),
    "bn": ("bn", lambda N: 1.0),
    "sh": ("sh", lambda N: 15 / 32),
    "bn+sh": ("bn+sh", lambda N: 15 / 32),
    "window 128": (WINDOW, lambda N: min(257 / N, 1.0)),
    "linear": ("linear", lambda N: D / N),
}


def run(device, quick=False, say=lambda line: None):
    """All benchmarks -> a dictionary for JSON. quick: lengths up to 2,048, and a pair of calls each."""
    pairs = 1 if quick else 7
    batch, dtype = setting(device)
    rows = []
    for what, primal, is_causal, N, cpu, gpu in RATIOS:
        if quick and N > 2048:
            continue
        for compiled in (False, True) if device == "cuda" else (False,):
            ours, theirs = step(device, primal, N, compiled), sdpa_step(device, N, is_causal)
            ratio, seconds, base = interleaved(ours, theirs, device, pairs if N <= 4096 else min(pairs, 3))
            at_most = (gpu if compiled else None) if device == "cuda" else cpu
            rows.append(_row(f"{what}{', compiled' * compiled}", N, ratio, at_most, seconds, base))
            say(_line(rows[-1]))
    for what, primal, at_most in MEMORY:
        N = 1024 if quick else 4096
        ratio = peak(step(device, primal, N), device) / peak(sdpa_step(device, N), device)
        rows.append(_row(f"peak memory, {what}", N, ratio, at_most if device == "cuda" else None))
        say(_line(rows[-1]))
    curves = []
    for N in SWEEP[: 4 if quick else None]:
        for name, (primal, floor) in CURVES.items():
            call = sdpa_step(device, N) if name == "softmax" else step(device, primal, N)
            seconds = min(timed(call, device) for _ in range(3 if N < 8192 else 2))
            point = dict(name=name, N=N, seconds=seconds, floor=floor(N), bytes=peak(call, device))
            curves.append(point | dict(least_bytes=4 * N * H * D * batch * dtype.itemsize))
        say(f"swept N = {N:,}")
    return {"machine": machine(device), "rows": rows, "curves": curves}


def setting(device):
    """Batch and dtype."""
    return (32, torch.bfloat16) if device == "cuda" else (1, torch.float32)


def step(device, primal, N, compiled=False):
    """A forward and backward of `attention`, as a function."""
    members = heads(primal, H)
    call = torch.compile(partial(attention, members)) if compiled else partial(attention, members)
    return _step(device, N, call)


def sdpa_step(device, N, is_causal=False):
    """The same of torch's softmax attention."""
    return _step(device, N, partial(F.scaled_dot_product_attention, is_causal=is_causal))


def _step(device, N, call):
    batch, dtype = setting(device)
    q, k, v, g = (torch.randn(batch, H, N, D, device=device, dtype=dtype) for _ in range(4))
    x = [each.requires_grad_() for each in (q, k, v)]
    return lambda: torch.autograd.grad(call(*x), x, g)


def draw(result):
    """Time and memory against N, log-log, each with its floor -> a matplotlib Figure."""
    from matplotlib.figure import Figure

    from torch_impl.analysis.plots import COLOURS

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    seconds, memory = figure.subplots(1, 2)
    softmax = {point["N"]: point for point in result["curves"] if point["name"] == "softmax"}
    for name, colour in zip(CURVES, COLOURS, strict=False):
        points = [point for point in result["curves"] if point["name"] == name]
        N = [point["N"] for point in points]
        seconds.loglog(N, [point["seconds"] for point in points], "o-", color=colour, label=name, markersize=4)
        floor = [softmax[point["N"]]["seconds"] * point["floor"] for point in points]
        seconds.loglog(N, floor, ":", color=colour)
        memory.loglog(N, [point["bytes"] / 2**20 for point in points], "o-", color=colour, label=name, markersize=4)
    memory.loglog(N, [point["least_bytes"] / 2**20 for point in points], ":", color="#000000")
    for axes, label in ((seconds, "seconds, forward and backward"), (memory, "peak memory, MiB")):
        axes.set(xlabel="tokens N", ylabel=label)
        axes.grid(True, which="major", alpha=0.3)
        axes.set_xticks(N, [f"{n:,}" for n in N], rotation=45)
        axes.minorticks_off()
    seconds.legend(title="dotted: softmax's time by\nthe share of its multiplications", fontsize=8, title_fontsize=8)
    memory.legend(title="dotted: output and gradients alone", fontsize=8, title_fontsize=8)
    return figure


def _row(what, N, ratio, at_most, seconds=None, sdpa_seconds=None):
    return dict(what=what, N=N, ratio=ratio, at_most=at_most, seconds=seconds, sdpa_seconds=sdpa_seconds)


def _line(row):
    bar = "" if row["at_most"] is None else f"{row['at_most']:6.2f}"
    seconds = "" if row["seconds"] is None else f"{row['seconds']:9.4f} s {row['sdpa_seconds']:9.4f} s"
    return f"{row['what']:44} {row['N']:6,} {row['ratio']:7.3f} {bar:6} {seconds}"


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m torch_impl.bench", description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--quick", action="store_true", help="lengths up to 2,048, a pair of calls each")
    parser.add_argument("--json", metavar="FILE", help="write the results there")
    parser.add_argument("--plot", metavar="FILE", help="draw time and memory against N there (needs matplotlib)")
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no GPU here; leave it out for the CPU")
    try:
        for path in filter(None, (options.json, options.plot)):
            check_writable(path)
    except ValueError as error:
        parser.error(str(error))
    if options.plot and find_spec("matplotlib") is None:
        parser.error("--plot needs matplotlib: pip install 'primal-dual-attention[plot]'")
    print(f"{'forward and backward':44} {'N':>6} {'ratio':>7} {'bar':6} {'ours':>11} {'SDPA':>11}", flush=True)
    result = run(options.device, options.quick, partial(print, flush=True))
    if options.json:
        write_json(options.json, result)
    if options.plot:
        write_file(options.plot, draw(result).savefig)
