"""Speed of training, as ratios inside one run.

    python -m torch_impl.bench.training_speed [--json FILE] [--epochs 15]

An epoch of JapaneseVowels (3 layers, width 128, 16 heads, feed-forward 256, batch 16) beside one of torch's own
TransformerEncoderLayer, as it is commonly written: a DataLoader that pads each batch, on all tokens. And a step of
DeiT-tiny: Attention-BN and SH beside softmax, and each with its images augmented, at 224 x 224; batch 256 in bf16 on a
GPU, 8 in float32 on a CPU.
"""

import argparse
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader

from primal_dual.io.files import check_writable, write_json
from torch_impl.bench.measure import interleaved
from torch_impl.data.dataset import DataSet, Split
from torch_impl.models.vision_transformer import deit_tiny
from torch_impl.training.benchmarks import ImageNet, JapaneseVowels
from torch_impl.training.machine import machine
from torch_impl.training.trainer import train

EPOCH = JapaneseVowels(patch=1, num_heads=16, dropout=0.1, norm="layer", warp=0.0, scale=0.0, jitter=0.0)
AT_MOST = {"epoch": 0.45, "bn": 1.03, "sh": 1.05}


class Baseline(nn.Module):
    """The encoder of EPOCH out of torch's own layers: post-norm, on all tokens, padded ones masked."""

    def __init__(self, features, length, classes):
        super().__init__()
        self.embed = nn.Linear(features, EPOCH.width)
        self.positions = nn.Parameter(torch.empty(length, EPOCH.width).uniform_(-0.02, 0.02))
        options = dict(dropout=EPOCH.dropout, activation="gelu", batch_first=True)
        layer = nn.TransformerEncoderLayer(EPOCH.width, EPOCH.num_heads, EPOCH.feedforward, **options)
        self.encoder = nn.TransformerEncoder(layer, EPOCH.layers, enable_nested_tensor=False)
        self.dropout = nn.Dropout(EPOCH.dropout)
        self.head = nn.Linear(length * EPOCH.width, classes)

    def forward(self, series, key_mask):
        x = self.dropout(self.embed(series) + self.positions)
        x = self.dropout(F.gelu(self.encoder(x, src_key_padding_mask=~key_mask)))
        return self.head((x * key_mask[..., None]).flatten(1))

    def take_weights(self, ours):
        """The weights of a TimeSeriesEncoder."""
        names = {"qkv.": "self_attn.in_proj_", "proj.": "self_attn.out_proj.", "up.": "linear1.", "down.": "linear2."}
        state = {}
        for name, weight in ours.state_dict().items():
            name = name.replace("blocks.", "encoder.layers.")
            for short, long in names.items():
                name = name.replace(f".{short}", f".{long}")
            state[name] = weight
        self.load_state_dict(state)


def epoch_ratio(data, epochs, say):
    """The median seconds of an epoch of ours and of the baseline's, by turns."""
    torch.manual_seed(0)
    model = Baseline(**data.sizes)
    optimizer = torch.optim.AdamW(model.parameters(), lr=EPOCH.lr, weight_decay=EPOCH.weight_decay)
    series, key_mask, labels = data.train
    cases = [(x[valid], label) for x, valid, label in zip(series, key_mask, labels, strict=True)]
    loader = DataLoader(cases, EPOCH.batch, shuffle=True, collate_fn=partial(_padded, data.sizes["length"]))
    ours, theirs = [], []

    def baseline(line):
        """Called after each epoch of ours; those that were tested too are left out."""
        start = time.perf_counter()
        model.train()
        for x, valid, label in loader:
            optimizer.zero_grad()
            F.cross_entropy(model(x, valid), label, label_smoothing=EPOCH.label_smoothing).backward()
            nn.utils.clip_grad_norm_(model.parameters(), EPOCH.clip)
            optimizer.step()
        if "test_accuracy" not in line and line["epoch"] > 1:
            ours.append(line["seconds"])
            theirs.append(time.perf_counter() - start)
            say(f"epoch {line['epoch']}: {ours[-1]:.3f} s, baseline {theirs[-1]:.3f} s")

    with tempfile.TemporaryDirectory() as folder:
        train(replace(EPOCH, epochs=epochs), "softmax", 0, data, folder, baseline)
    return statistics.median(ours), statistics.median(theirs)


def _padded(length, cases):
    """A batch of cases (n_i, features), one by one: series, key_mask, labels."""
    series = torch.zeros(len(cases), length, cases[0][0].shape[1])
    key_mask = torch.zeros(len(cases), length, dtype=torch.bool)
    for i, (x, _) in enumerate(cases):
        series[i, : len(x)], key_mask[i, : len(x)] = x, True
    return series, key_mask, torch.stack([label for _, label in cases])


def deit_step(name, device, batch, augmented=False, model=None):
    """A training step of DeiT-tiny on images that lie on the device, as a function."""
    torch.manual_seed(0)
    model = (deit_tiny(name) if model is None else model).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    images = torch.randint(256, (batch, 3, 224, 224), dtype=torch.uint8, device=device)
    images = Split(images, None, torch.randint(1000, (batch,), device=device))
    data = DataSet("random", images, images, range(1000), {}, [0.5] * 3, [0.25] * 3)
    recipe = ImageNet()
    plain = replace(recipe, crop="none", flip=0.0, rand_augment=0.0, erasing=0.0, mixup=0.0, cutmix=0.0)

    def step():
        inputs, targets = (recipe if augmented else plain).augment(images, data)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            loss = F.cross_entropy(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def run(epochs=22, say=print):
    """All measurements -> a dictionary for JSON."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    batch = 256 if device == "cuda" else 8
    ours, theirs = epoch_ratio(EPOCH.load(None, say), epochs, say)
    rows = [_row("JapaneseVowels epoch / torch's layers", ours / theirs, AT_MOST["epoch"], ours, theirs)]
    softmax = deit_step("softmax", device, batch)
    for name in ("bn", "sh", "bn+sh"):
        ratio, seconds, base = interleaved(deit_step(name, device, batch), softmax, device, 5)
        at_most = AT_MOST.get(name) if device == "cuda" else None
        rows.append(_row(f"DeiT-tiny step, {name} / softmax", ratio, at_most, seconds, base))
        say(f"{name}: {ratio:.3f}")
    ratio, seconds, base = interleaved(deit_step("softmax", device, batch, augmented=True), softmax, device, 5)
    rows.append(_row("DeiT-tiny step, augmented / not", ratio, None, seconds, base))
    try:
        from timm import create_model
    except ImportError:
        say("timm is not installed: its DeiT-tiny is left out")
    else:
        theirs = deit_step(None, device, batch, model=create_model("deit_tiny_patch16_224"))
        ratio, seconds, base = interleaved(softmax, theirs, device, 5)
        rows.append(_row("DeiT-tiny step, ours / timm's", ratio, None, seconds, base))
    return {"machine": machine(device), "batch": batch, "rows": rows}


def _row(what, ratio, at_most, seconds, baseline_seconds):
    return dict(what=what, ratio=ratio, at_most=at_most, seconds=seconds, baseline_seconds=baseline_seconds)


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="python -m torch_impl.bench.training_speed", description=__doc__.splitlines()[0]
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


if __name__ == "__main__":
    sys.exit(main())
