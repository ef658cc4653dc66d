"""Train a time-series encoder by a recipe, and go on where it was interrupted: in one file, from top to bottom.

JapaneseVowels by its recipe: about 20 s a seed on 2 cores.

A run is a folder FOLDER/RECIPE/ATTENTION/SEED: config.json, log.jsonl (a line an epoch), two checkpoints by turns, and
at its end model.safetensors and result.json. Each epoch draws its random numbers from a seed of its own, so that what
is resumed is what would have been: bit for bit on a CPU with as many threads.
"""

import hashlib
import json
import math
import os
import platform
import subprocess
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load, save

from primal_dual.data import write_file, write_json
from primal_dual.primal import Heads, Primal, heads
from primal_dual.transforms import BatchNorm
from torch_impl.models import TimeSeriesEncoder
from torch_impl.series import augment

TESTS = 10  # how often a run is tested; all but the last time only for best_test_epoch


def train(recipe, attention, seed, data, folder, say=lambda line: None):
    """One run, from its last checkpoint if it has one -> its result, a dictionary.

    Raises ValueError for a run folder of another configuration or number of threads, and a loss that is not finite.
    """
    run = Path(folder) / recipe.name / attention / str(seed)
    result = run / "result.json"
    config = {"recipe": asdict(recipe), "attention": attention, "seed": seed, "threads": torch.get_num_threads()}
    _same_configuration(run, config)
    if result.exists():
        return json.loads(result.read_text())

    torch.manual_seed(_seed(seed, "weights"))
    model = TimeSeriesEncoder(**data.sizes, primal=primal(attention, recipe), **recipe.model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)
    done, log = _resume(run, model, optimizer, say)

    steps_an_epoch = math.ceil(len(data.train) / recipe.batch)
    steps = recipe.epochs * steps_an_epoch
    tested = {math.ceil(recipe.epochs * (i + 1) / TESTS) for i in range(TESTS)}
    for epoch in range(done, recipe.epochs):
        start = time.perf_counter()
        torch.manual_seed(_seed(seed, epoch))
        model.train()
        losses, step = [], epoch * steps_an_epoch
        for index in torch.randperm(len(data.train)).split(recipe.batch):
            series, key_mask, labels = data.train.take(index)
            series = augment(series, key_mask, warp=recipe.warp, scale=recipe.scale, jitter=recipe.jitter)
            for group in optimizer.param_groups:
                group["lr"] = recipe.lr * learning_rate(step, steps, recipe.warm_up)
            loss = F.cross_entropy(model(series, key_mask), labels, label_smoothing=recipe.label_smoothing)
            if not loss.isfinite():
                raise ValueError(f"{run}: the loss is {loss.item()} at step {step}; try a smaller lr than {recipe.lr}")
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
            optimizer.step()
            losses.append(loss.item())
            step += 1
        line = {"epoch": epoch + 1, "loss": sum(losses) / len(losses)}
        if epoch + 1 in tested:
            line["test_accuracy"] = accuracy(model, data.test)
        log.append(line | {"seconds": time.perf_counter() - start})
        _save(run, model, optimizer, log)
        say(line)

    accuracies = [line["test_accuracy"] for line in log if "test_accuracy" in line]
    summary = config | {
        "test_accuracy": accuracies[-1],
        "best_test_epoch": max(accuracies),
        "seconds": sum(line["seconds"] for line in log),
        "parameters": sum(p.numel() for p in model.parameters()),
        "commit": commit(),
        "hardware": {"name": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "torch": torch.__version__,
    }
    weights = save(model.state_dict(), {"data": json.dumps(data.described())})
    write_file(run / "model.safetensors", lambda temporary: Path(temporary).write_bytes(weights))
    write_json(result, summary)
    return summary


def primal(attention, recipe):
    """The heads of a catalog name, with the recipe's beta in every BatchNorm."""

    def with_beta(part):
        return replace(part, beta=recipe.beta) if isinstance(part, BatchNorm) else part

    def changed(member: Primal):
        every = member.transform if isinstance(member.transform, tuple) else (member.transform,)
        return replace(member, transform=tuple(with_beta(part) for part in every))

    return Heads(*(changed(member) for member in heads(attention, recipe.num_heads)))


def learning_rate(step, steps, warm_up):
    """The share of the peak learning rate at a step: linear warm-up, then half a cosine to zero."""
    warm = max(1, round(warm_up * steps))
    if step < warm:
        return (step + 1) / warm
    return (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm))) / 2


@torch.no_grad()
def accuracy(model, split, batch=256):
    """The share of right answers, in eval mode."""
    model.eval()
    right = 0
    for index in torch.arange(len(split)).split(batch):
        series, key_mask, labels = split.take(index)
        right += (model(series, key_mask).argmax(-1) == labels).sum().item()
    return right / len(split)


def commit():
    """The commit that ran, or None outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _same_configuration(run, config):
    file = run / "config.json"
    if not file.exists():
        run.mkdir(parents=True, exist_ok=True)
        write_json(file, config)
        return
    before = json.loads(file.read_text())
    flat = [{**each["recipe"], "attention": each["attention"], "threads": each["threads"]} for each in (before, config)]
    different = [name for name in flat[1] if flat[0].get(name) != flat[1][name]]
    if different:
        name = different[0]
        begun, now = flat[0].get(name), flat[1][name]
        raise ValueError(f"{run}: expected {name} = {begun}, as it was begun; got {now}. Give it another folder")


def _seed(seed, epoch):
    """A seed for each epoch of each run."""
    return int.from_bytes(hashlib.sha256(f"{seed} {epoch}".encode()).digest()[:8], "little") >> 1


def _save(run, model, optimizer, log):
    """Weights, optimizer and log in one file, whose last 32 bytes are the SHA-256 of the others."""
    tensors = {f"model.{name}": x.detach().contiguous() for name, x in model.state_dict().items()}
    for i, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{i}.{name}": x for name, x in state.items()}
    content = save(tensors, {"log": json.dumps(log)})
    file = run / f"checkpoint-{len(log) % 2}.safetensors"
    write_file(file, lambda temporary: Path(temporary).write_bytes(content + hashlib.sha256(content).digest()))
    lines = "".join(json.dumps(line) + "\n" for line in log)
    write_file(run / "log.jsonl", lambda temporary: Path(temporary).write_text(lines))


def _resume(run, model, optimizer, say):
    """Load the newest checkpoint that is whole -> how many epochs it has seen, and the log of them."""
    found = []
    for file in run.glob("checkpoint-*.safetensors"):
        content = file.read_bytes()
        content, digest = content[:-32], content[-32:]
        if hashlib.sha256(content).digest() != digest:
            say(f"{file}: damaged; going on from the one before")
            continue
        try:
            header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
            found.append((json.loads(header["__metadata__"]["log"]), load(content)))
        except (SafetensorError, KeyError, ValueError) as error:
            raise ValueError(f"{file}: expected a checkpoint of this program; got {error}") from error
    if not found:
        return 0, []
    log, tensors = max(found, key=lambda each: len(each[0]))
    model.load_state_dict({name[6:]: x for name, x in tensors.items() if name.startswith("model.")})
    state = {}
    for name, x in tensors.items():
        if name.startswith("optimizer."):
            _, i, key = name.split(".")
            state.setdefault(int(i), {})[key] = x
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return len(log), log
