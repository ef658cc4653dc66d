"""The speed of training, as ratios inside one run.

    python -m torch_impl.bench.training_speed [--json FILE] [--epochs 22]

An epoch of JapaneseVowels (3 layers, width 128, 16 heads, feed-forward width 256, batch 16) is compared with one of
torch's own TransformerEncoderLayer, as it is commonly written: a DataLoader that pads each batch, and all tokens
computed. A step of DeiT-tiny with Attention-BN, with SH and with both is compared with softmax's, and a step whose
images are augmented with one whose are not, at 224 x 224; batch 256 in bf16 on a GPU, 8 in float32 on a CPU. So is a
step of the short training on text, of 32 sequences of 512 bytes, in float32 on both.
"""

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader

from primal_dual.io.files import check_writable, write_json
from primal_dual.types import Bool, Float, Int
from torch_impl.analysis.cost import Step, timed
from torch_impl.bench.measure import Comparison, interleaved
from torch_impl.bench.torch_encoder import EPOCH, Baseline
from torch_impl.data.dataset import DataSet, Split
from torch_impl.data.messages import Say
from torch_impl.models.vision_transformer import deit_tiny
from torch_impl.training.experiments import SHORT_TEXT
from torch_impl.training.recipes.base_recipe import Recipe
from torch_impl.training.recipes.benchmarks import ImageNet, recipe
from torch_impl.training.runs.distributed import this_process
from torch_impl.training.runs.machine import default_device, describe_machine
from torch_impl.training.runs.trainer import train

AT_MOST = {"epoch": 0.45, "bn": 1.03, "sh": 1.05}

Example = tuple[Float[torch.Tensor, "_ features"], Int[torch.Tensor, ""]]  # without padding, and its label


def epoch_ratio(data: DataSet, epochs: int, say: Say) -> tuple[float, float]:
    """The median seconds of an epoch of ours and of an epoch of the baseline, which take turns.

    Parameters
    ----------
    data : DataSet
        JapaneseVowels, or a part of it.
    epochs : int
        How many. The first one is not timed, and those whose model is tested are not.
    say : callable
        Is called with each pair of times.
    """
    torch.manual_seed(0)
    device = this_process().device
    model = Baseline(**data.sizes).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=EPOCH.lr, weight_decay=EPOCH.weight_decay)
    loader = _loader(data)
    ours, baseline = [], []

    def train_baseline(line: dict[str, Any]) -> None:
        """An epoch of the baseline after each epoch of ours."""
        seconds = timed(partial(_train_baseline_epoch, model, optimizer, loader, device), device.type)
        if "test_accuracy" not in line and line["epoch"] > 1:
            ours.append(line["seconds"])
            baseline.append(seconds)
            say(f"epoch {line['epoch']}: {ours[-1]:.3f} s, baseline {baseline[-1]:.3f} s")

    with tempfile.TemporaryDirectory() as folder:
        train(replace(EPOCH, epochs=epochs), "softmax", 0, data, folder, train_baseline)
    return statistics.median(ours), statistics.median(baseline)


def deit_step(model: nn.Module, device: str, batch: int, augmented: bool = False) -> Step:
    """A training step of a model of ImageNet on random images that are on the device, as a function.

    Parameters
    ----------
    model : nn.Module
        What is trained.
    device : str
        "cpu" or "cuda".
    batch : int
        The number of images.
    augmented : bool
        Whether they are augmented as by the recipe of ImageNet.
    """
    torch.manual_seed(0)
    images = torch.randint(256, (batch, 3, 224, 224), dtype=torch.uint8)
    examples = Split(images, None, torch.randint(1000, (batch,)))
    data = DataSet("random", examples, examples, range(1000), {}, [0.5] * 3, [0.25] * 3)
    chosen = ImageNet(bf16=device == "cuda")
    if not augmented:
        chosen = replace(chosen, crop="none", flip=0.0, rand_augment=0.0, erasing=0.0, mixup=0.0, cutmix=0.0)
    return _step(model, chosen, data, device)


def text_step(name: str, device: str) -> Step:
    """A training step of the short training on text, on random bytes without padding, as a function.

    Parameters
    ----------
    name : str
        Of the attention.
    device : str
        "cpu" or "cuda".
    """
    torch.manual_seed(0)
    chosen, length = recipe("Text", **SHORT_TEXT), SHORT_TEXT["length"]
    sizes = {"vocabulary": 257, "length": length, "classes": 2}
    tokens = torch.randint(1, 257, (chosen.batch, length))
    examples = Split(tokens, None, torch.randint(2, (chosen.batch,)))
    data = DataSet("random", examples, examples, range(2), sizes, [], [])
    return _step(chosen.model(sizes, name), chosen, data, device)


def run(epochs: int = 22, say: Say = print) -> dict[str, Any]:
    """All measurements.

    Parameters
    ----------
    epochs : int
        Of JapaneseVowels.
    say : callable
        Is called with the results.

    Returns
    -------
    dict
        machine; batch, of DeiT-tiny; and rows, the ratios.
    """
    device = default_device()
    batch = 256 if device == "cuda" else 8
    ours, baseline = epoch_ratio(EPOCH.load(None, say), epochs, say)
    comparison = Comparison(ours / baseline, ours, baseline)
    rows = [_row("JapaneseVowels epoch / torch's layers", comparison, AT_MOST["epoch"])]
    softmax = deit_step(deit_tiny(), device, batch)
    softmax_on_text = text_step("softmax", device)
    for name in ("bn", "sh", "bn+sh"):
        comparison = interleaved(deit_step(deit_tiny(name), device, batch), softmax, device, 5)
        at_most = AT_MOST.get(name) if device == "cuda" else None
        rows.append(_row(f"DeiT-tiny step, {name} / softmax", comparison, at_most))
        say(f"{name}: {comparison.ratio:.3f}")
        on_text = interleaved(text_step(name, device), softmax_on_text, device, 5)
        rows.append(_row(f"text step, {name} / softmax", on_text))
        say(f"{name} on text: {on_text.ratio:.3f}")
    comparison = interleaved(deit_step(deit_tiny(), device, batch, augmented=True), softmax, device, 5)
    rows.append(_row("DeiT-tiny step, augmented / not", comparison))
    try:
        from timm import create_model
    except ImportError:
        say("timm is not installed: its DeiT-tiny is left out")
    else:
        timms = deit_step(create_model("deit_tiny_patch16_224"), device, batch)
        rows.append(_row("DeiT-tiny step, ours / timm's", interleaved(softmax, timms, device, 5)))
    return {"machine": describe_machine(device), "batch": batch, "rows": rows}


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line, see the top of this file."""
    parser = argparse.ArgumentParser(
        prog="python -m torch_impl.bench.training_speed", description=str(__doc__).splitlines()[0]
    )
    parser.add_argument("--json", metavar="FILE", help="write the results there")
    parser.add_argument(
        "--epochs", type=int, default=22, help="of JapaneseVowels; ten of them are tested, too, and not timed"
    )
    options = parser.parse_args(arguments)
    if options.epochs < 18:
        parser.error(f"--epochs: expected 18 or more; got {options.epochs}")
    try:
        if options.json:
            check_writable(options.json)
        result = run(options.epochs, partial(print, flush=True))
    except ValueError as error:
        parser.error(str(error))
    for row in result["rows"]:
        at_most = "" if row["at_most"] is None else f"at most {row['at_most']}"
        seconds = f"{row['seconds']:8.3f} s {row['baseline_seconds']:8.3f} s"
        print(f"{row['what']:40} {row['ratio']:6.3f} {at_most:12} {seconds}")
    if options.json:
        write_json(options.json, result)


def _step(model: nn.Module, chosen: Recipe, data: DataSet, device: str) -> Step:
    """A training step on all examples of a data set, which lie on the device."""
    model = model.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    assert isinstance(data.train, Split)
    examples = data.train.to(device)

    def step() -> None:
        inputs, _, targets = next(iter(chosen.augmented([examples], data)))
        with torch.autocast(device, torch.bfloat16, enabled=chosen.bf16):
            loss = F.cross_entropy(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def _loader(data: DataSet) -> DataLoader:
    """The training split without padding, one example at a time, which the loader pads into batches."""
    series, key_mask, labels = data.train.take(torch.arange(len(data.train)))
    assert key_mask is not None  # the utterances of JapaneseVowels differ in length
    examples = [(x[valid], label) for x, valid, label in zip(series, key_mask, labels, strict=True)]
    pad = partial(_padded, data.sizes["length"])
    return DataLoader(examples, EPOCH.batch, shuffle=True, collate_fn=pad)  # type: ignore[arg-type]


def _padded(
    length: int, examples: list[Example]
) -> tuple[Float[torch.Tensor, "B N features"], Bool[torch.Tensor, "B N"], Int[torch.Tensor, " B"]]:
    """A batch of examples: series, padding mask and labels."""
    series = torch.zeros(len(examples), length, examples[0][0].shape[1])
    key_mask = torch.zeros(len(examples), length, dtype=torch.bool)
    for i, (x, _) in enumerate(examples):
        series[i, : len(x)] = x
        key_mask[i, : len(x)] = True
    return series, key_mask, torch.stack([label for _, label in examples])


def _train_baseline_epoch(
    model: Baseline, optimizer: torch.optim.Optimizer, loader: DataLoader, device: torch.device
) -> None:
    model.train()
    for batch in loader:
        series, key_mask, labels = (x.to(device) for x in batch)
        optimizer.zero_grad()
        F.cross_entropy(model(series, key_mask), labels, label_smoothing=EPOCH.label_smoothing).backward()
        nn.utils.clip_grad_norm_(model.parameters(), EPOCH.clip)
        optimizer.step()


def _row(what: str, comparison: Comparison, at_most: float | None = None) -> dict[str, Any]:
    ratio, seconds, baseline_seconds = comparison
    return dict(what=what, ratio=ratio, at_most=at_most, seconds=seconds, baseline_seconds=baseline_seconds)


if __name__ == "__main__":
    main()
