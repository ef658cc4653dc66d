"""The speed and memory of attention, as ratios to torch's scaled_dot_product_attention (SDPA) inside one run.

    python -m torch_impl.bench [--device cpu|cuda] [--quick] [--json FILE] [--plot FILE]

CPU: float32, batch 1. GPU: bfloat16, batch 32. D = 64, 8 heads, forward and backward. Each ratio is the median over
pairs of calls that take turns; memory is the peak of what a call allocates beyond its input.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from itertools import chain
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from primal_dual.io.files import check_writable, write_file, write_json
from primal_dual.kernels import EluPlusOne
from primal_dual.primal import Primal, heads
from primal_dual.supports import Causal, Window
from torch_impl.analysis.cost import Step, peak, timed
from torch_impl.bench.measure import interleaved
from torch_impl.data.messages import Say, say_nothing
from torch_impl.expansion import attention
from torch_impl.training.runs.machine import default_device, describe_machine

D, H = 64, 8
WINDOW = Primal(support=Window(128))
CAUSAL_LINEAR = Primal(EluPlusOne(), support=Causal())


class Ratio(NamedTuple):
    """A time to measure at N tokens, and the most that its ratio to SDPA should be, where there is a bound."""

    what: str
    primal: str | Primal
    baseline_is_causal: bool
    N: int
    most_on_cpu: float
    most_on_gpu: float | None  # compiled


class Memory(NamedTuple):
    """A peak memory to measure, and the most that its ratio to SDPA's should be on a GPU."""

    what: str
    primal: str
    most_on_gpu: float


class Curve(NamedTuple):
    """What is measured at each length, and the fraction of softmax's multiplications that it needs at N tokens."""

    primal: str | Primal
    fraction: Callable[[int], float]


RATIOS = [
    Ratio("Attention-BN", "bn", False, 1024, 1.15, 1.20),
    Ratio("Attention-BN", "bn", False, 4096, 1.05, 1.05),
    Ratio("Attention-SH, scales 1, 2, 4, 8", "sh", False, 4096, 0.52, 0.55),
    Ratio("BN+SH", "bn+sh", False, 4096, 0.55, 0.60),
    Ratio("causal BN / causal SDPA", "causal-bn", True, 4096, 1.10, 1.10),
    Ratio("causal BN / causal SDPA", "causal-bn", True, 16384, 1.10, 1.10),
    Ratio("window of radius 128", WINDOW, False, 16384, 0.08, 0.15),
    Ratio("linear attention", "linear", False, 16384, 0.08, None),
    Ratio("causal linear / full SDPA", CAUSAL_LINEAR, False, 16384, 0.15, None),
]
MEMORY = [
    Memory("Attention-SH", "sh", 1.05),
    Memory("Attention-BN", "bn", 1.6),
    Memory("linear attention", "linear", 1.6),
]
LENGTHS = [256, 512, 1024, 2048, 4096, 8192, 16384]
CURVES = {
    "softmax": Curve("softmax", lambda N: 1.0),
    "bn": Curve("bn", lambda N: 1.0),
    "sh": Curve("sh", lambda N: 15 / 32),
    "bn+sh": Curve("bn+sh", lambda N: 15 / 32),
    "window 128": Curve(WINDOW, lambda N: min(257 / N, 1.0)),
    "linear": Curve("linear", lambda N: D / N),
}


def run(
    device: str, quick: bool = False, say: Say = say_nothing, keep: Callable[[dict[str, Any]], object] = say_nothing
) -> dict[str, Any]:
    """All measurements.

    Parameters
    ----------
    device : str
        "cpu" or "cuda".
    quick : bool
        Lengths up to 2,048 alone, and one pair of calls each.
    say : callable
        Is called with each result.
    keep : callable
        Is called with all that is measured so far, each time that there is more of it.

    Returns
    -------
    dict
        machine; rows, the ratios; and curves, the seconds and the memory at each length.
    """
    result: dict[str, Any] = {"machine": describe_machine(device), "rows": [], "curves": []}
    for row in chain(_time_rows(device, quick), _memory_rows(device, quick)):
        result["rows"].append(row)
        say(_line(row))
        keep(result)
    for N in LENGTHS[: 4 if quick else None]:
        result["curves"] += [_point(name, N, device) for name in CURVES]
        say(f"swept N = {N:,}")
        keep(result)
    return result


def step(device: str, primal: str | Primal, N: int, compiled: bool = False) -> Step:
    """A forward and backward pass of `attention` on N random tokens, as a function."""
    call: Callable[..., torch.Tensor] = partial(attention, heads(primal, H))
    if compiled:
        torch.compiler.reset()  # else the graphs of the lengths before it would make the length a variable
        call = torch.compile(call, dynamic=False)
    return _forward_and_backward(device, N, call)


def sdpa_step(device: str, N: int, is_causal: bool = False) -> Step:
    """The same of torch's softmax attention."""
    return _forward_and_backward(device, N, partial(F.scaled_dot_product_attention, is_causal=is_causal))


def draw(result: dict[str, Any]) -> Any:
    """A matplotlib Figure of the time and the memory against N, log-log, each with what it is at least.

    Parameters
    ----------
    result : dict
        That of `run`.
    """
    from matplotlib.figure import Figure

    from torch_impl.analysis.colours import styles

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    time_axes, memory_axes = figure.subplots(1, 2)
    softmax = {point["N"]: point for point in result["curves"] if point["name"] == "softmax"}
    for name, style in styles(CURVES).items():
        points = [point for point in result["curves"] if point["name"] == name]
        N = [point["N"] for point in points]
        options: dict[str, Any] = dict(label=name, markersize=4, **style)
        time_axes.loglog(N, [point["seconds"] for point in points], **options)
        least_seconds = [softmax[point["N"]]["seconds"] * point["floor"] for point in points]
        time_axes.loglog(N, least_seconds, ":", color=style["color"])
        memory_axes.loglog(N, [point["bytes"] / 2**20 for point in points], **options)
    lengths = list(softmax)
    memory_axes.loglog(lengths, [point["least_bytes"] / 2**20 for point in softmax.values()], ":", color="#000000")
    for axes, label in ((time_axes, "seconds, forward and backward"), (memory_axes, "peak memory, MiB")):
        axes.set(xlabel="tokens N", ylabel=label)
        axes.grid(True, which="major", alpha=0.3)
        axes.set_xticks(lengths, [f"{N:,}" for N in lengths], rotation=45)
        axes.minorticks_off()
    title = "dotted: softmax's time by\nthe share of its multiplications"
    time_axes.legend(title=title, fontsize=8, title_fontsize=8)
    memory_axes.legend(title="dotted: output and gradients alone", fontsize=8, title_fontsize=8)
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line, see the top of this file."""
    parser = argparse.ArgumentParser(prog="python -m torch_impl.bench", description=str(__doc__).splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default=default_device())
    parser.add_argument("--quick", action="store_true", help="lengths up to 2,048, a pair of calls each")
    parser.add_argument("--json", metavar="FILE", help="write the results there")
    parser.add_argument("--plot", metavar="FILE", help="draw time and memory against N there (needs matplotlib)")
    options = parser.parse_args(arguments)
    if options.device == "cuda" and default_device() == "cpu":
        parser.error("--device cuda: torch sees no GPU here; leave it out for the CPU")
    try:
        for path in filter(None, (options.json, options.plot)):
            check_writable(path)
    except ValueError as error:
        parser.error(str(error))
    if options.plot and find_spec("matplotlib") is None:
        parser.error('--plot needs matplotlib: pip install ".[plot]" in the checkout')
    print(f"{'forward and backward':44} {'N':>6} {'ratio':>7} {'bar':6} {'ours':>11} {'SDPA':>11}", flush=True)
    keep = partial(write_json, options.json) if options.json else say_nothing
    result = run(options.device, options.quick, partial(print, flush=True), keep)
    if options.plot:
        write_file(options.plot, draw(result).savefig)


def _time_rows(device: str, quick: bool) -> Iterator[dict[str, Any]]:
    for what, primal, baseline_is_causal, N, most_on_cpu, most_on_gpu in RATIOS:
        if quick and N > 2048:
            continue
        pairs = 1 if quick else 7 if N <= 4096 else 3
        for compiled in (False, True) if device == "cuda" and most_on_gpu is not None else (False,):
            ours, baseline = step(device, primal, N, compiled), sdpa_step(device, N, baseline_is_causal)
            found = interleaved(ours, baseline, device, pairs)
            at_most = most_on_cpu if device == "cpu" else most_on_gpu if compiled else None
            yield {
                "what": f"{what}, compiled" if compiled else what,
                "N": N,
                "ratio": found.ratio,
                "at_most": at_most,
                "seconds": found.seconds,
                "sdpa_seconds": found.baseline_seconds,
            }


def _memory_rows(device: str, quick: bool) -> Iterator[dict[str, Any]]:
    N = 1024 if quick else 4096
    for what, primal, most_on_gpu in MEMORY:
        yield {
            "what": f"peak memory, {what}",
            "N": N,
            "ratio": peak(step(device, primal, N), device) / peak(sdpa_step(device, N), device),
            "at_most": most_on_gpu if device == "cuda" else None,
            "seconds": None,
            "sdpa_seconds": None,
        }


def _point(name: str, N: int, device: str) -> dict[str, Any]:
    """A point of a curve: the shortest of a few times and the peak memory, with a lower bound of each."""
    primal, fraction = CURVES[name]
    call = sdpa_step(device, N) if name == "softmax" else step(device, primal, N)
    batch, dtype = _setting(device)
    return {
        "name": name,
        "N": N,
        "seconds": min(timed(call, device) for _ in range(3 if N < 8192 else 2)),
        "floor": fraction(N),
        "bytes": peak(call, device),
        "least_bytes": 4 * N * H * D * batch * dtype.itemsize,
    }


def _setting(device: str) -> tuple[int, torch.dtype]:
    """The batch and the dtype."""
    return (32, torch.bfloat16) if device == "cuda" else (1, torch.float32)


def _forward_and_backward(device: str, N: int, call: Callable[..., torch.Tensor]) -> Step:
    batch, dtype = _setting(device)
    q, k, v, gradient = (torch.randn(batch, H, N, D, device=device, dtype=dtype) for _ in range(4))
    inputs = [x.requires_grad_() for x in (q, k, v)]
    return lambda: torch.autograd.grad(call(*inputs), inputs, gradient)


def _line(row: dict[str, Any]) -> str:
    bar = "" if row["at_most"] is None else f"{row['at_most']:6.2f}"
    seconds = "" if row["seconds"] is None else f"{row['seconds']:9.4f} s {row['sdpa_seconds']:9.4f} s"
    return f"{row['what']:44} {row['N']:6,} {row['ratio']:7.3f} {bar:6} {seconds}"
