"""Train a model by a recipe, and go on where it was interrupted: in one file, from top to bottom.

JapaneseVowels: 98 % of the test split in about half a minute a seed, on one core. On a GPU where there is one; under
torchrun, a batch is shared out to all processes.

A run is a folder FOLDER/DATA/ATTENTION/SEED: config.json, log.jsonl (a line an epoch), two checkpoints by turns, and
at its end model.safetensors and result.json. Each epoch draws its random numbers from a seed of its own, so that what
is resumed is what would have been: bit for bit on a CPU with as many threads.
"""

import hashlib
import json
import math
import time
from contextlib import nullcontext
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from primal_dual.io.files import write_file, write_json
from torch_impl.data.dataset import Split, batches, silent
from torch_impl.training.checkpoint import contiguous, resume, save_checkpoint
from torch_impl.training.distributed import this_process
from torch_impl.training.machine import machine
from torch_impl.training.recipes import to_config

EVALUATIONS = 10  # how often a run is tested; all but the last time only for best_test_epoch
OPTIMIZERS = {"adamw": torch.optim.AdamW, "radam": torch.optim.RAdam}


def train(recipe, attention, seed, data, folder, say=silent):
    """One run, from its last checkpoint if it has one -> its result, a dictionary.

    say: told each line of the log, a dictionary, and of a damaged checkpoint. Raises ValueError for an optimizer of
    another name, for a run folder of another configuration, number of threads or of processes, and for a loss that is
    not finite.
    """
    world = this_process()
    recipe = recipe.resolve_defaults(data)
    run = Path(folder) / data.name / attention / str(seed)
    result = run / "result.json"
    config = {"recipe": to_config(recipe), "data": data.name, "attention": attention, "seed": seed}
    config |= {"threads": torch.get_num_threads(), "processes": world.size}
    _same_configuration(run, config, world)
    if result.exists():
        return json.loads(result.read_text())

    torch.manual_seed(_seed(seed, "weights"))
    model = recipe.model(data.sizes, attention).to(world.device)
    optimizer = _optimizer(recipe, model)
    modules = {"model": model}
    if recipe.ema:
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema), use_buffers=True)
        modules["average"] = average
    done, log = resume(run, modules, optimizer, say)
    tested_model = average.module if recipe.ema else model
    trained = _parallel(model, recipe, world)
    writer = _tensorboard(run, done) if recipe.tensorboard and world.first else None

    n = len(data.train)
    train_split, test_split = (_resident(split, world.device) for split in (data.train, data.test))
    steps_an_epoch = math.ceil(n / recipe.batch)
    steps = recipe.epochs * steps_an_epoch
    tested = {math.ceil(recipe.epochs * (i + 1) / EVALUATIONS) for i in range(EVALUATIONS)}
    for epoch in range(done, recipe.epochs):
        start = time.perf_counter()
        torch.manual_seed(_seed(seed, epoch))
        order = torch.randperm(n).split(recipe.batch)
        torch.manual_seed(_seed(seed, epoch, world.rank))
        shares = [share for index in order for share in _shares(index, recipe.accumulate, world)]
        parts = batches(train_split, [index for index, _ in shares], world.device, recipe.workers)
        model.train()
        total = torch.zeros((), dtype=torch.float64, device=world.device)
        for i, ((_, weight), batch) in enumerate(zip(shares, parts, strict=True)):
            step, last = epoch * steps_an_epoch + i // recipe.accumulate, (i + 1) % recipe.accumulate == 0
            if not len(batch):
                raise ValueError(
                    f"{run}: expected a whole image in the batch of step {step}; got none: all are corrupt"
                )
            inputs, targets = recipe.augment(batch, data)
            with nullcontext() if last or world.size == 1 else trained.no_sync():
                with torch.autocast(world.device.type, torch.bfloat16, enabled=recipe.bf16):
                    logits = trained(inputs, batch.key_mask)
                    loss = F.cross_entropy(logits, targets, label_smoothing=recipe.label_smoothing)
                if not loss.isfinite():
                    lr = recipe.lr
                    raise ValueError(f"{run}: the loss is {loss.item()} at step {step}; try a smaller lr than {lr}")
                (loss * weight * world.size).backward()  # gradients are averaged over the processes
            total += loss.detach() * weight
            if last:
                torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
                for group in optimizer.param_groups:
                    group["lr"] = recipe.lr * learning_rate(step, steps, recipe.warm_up)
                optimizer.step()
                optimizer.zero_grad()
                if recipe.ema:
                    average.update_parameters(model)
        line = {"epoch": epoch + 1, "loss": world.sum(total).item() / steps_an_epoch}
        if epoch + 1 in tested:
            line["test_accuracy"] = accuracy(recipe, tested_model, test_split, data, world)
        log.append(line | {"seconds": time.perf_counter() - start})
        if world.first:
            save_checkpoint(run, modules, optimizer, log)
            if writer:
                for name, value in log[-1].items():
                    writer.add_scalar(name, value, epoch + 1)
            say(log[-1])

    if writer:
        writer.close()
    accuracies = [line["test_accuracy"] for line in log if "test_accuracy" in line]
    summary = config | {
        "test_accuracy": accuracies[-1],
        "best_test_epoch": max(accuracies),
        "seconds": sum(line["seconds"] for line in log),
        "parameters": sum(p.numel() for p in model.parameters()),
        "machine": machine(world.device.type),
    }
    if world.first:
        weights = save(contiguous(tested_model.state_dict()), {"data": json.dumps(data.described())})
        write_file(run / "model.safetensors", lambda temporary: Path(temporary).write_bytes(weights))
        write_json(result, summary)
    world.wait()
    return summary


def learning_rate(step, steps, warm_up):
    """The share of the peak learning rate at a step: linear warm-up, then half a cosine to zero."""
    warm = max(1, round(warm_up * steps))
    if step < warm:
        return (step + 1) / warm
    return (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm))) / 2


@torch.no_grad()
def accuracy(recipe, model, split, data, world, batch=256):
    """The share of right answers on a split, in eval mode; each process counts its share of the batches."""
    model.eval()
    right = torch.zeros(2, dtype=torch.int64, device=world.device)
    parts = torch.arange(len(split)).split(batch)[world.rank :: world.size]
    for inputs, key_mask, labels in batches(split, parts, world.device, recipe.workers):
        with torch.autocast(world.device.type, torch.bfloat16, enabled=recipe.bf16):
            logits = model(recipe.prepare(inputs, data.mean, data.deviation), key_mask)
        right += torch.stack([(logits.argmax(-1) == labels).sum(), labels.new_tensor(len(labels))])
    right, count = world.sum(right).tolist()
    return right / count


def _optimizer(recipe, model):
    if recipe.optimizer not in OPTIMIZERS:
        raise ValueError(f"optimizer: expected {' or '.join(OPTIMIZERS)}; got {recipe.optimizer!r}")
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    options = {"fused": True} if recipe.optimizer == "adamw" else {"decoupled_weight_decay": True}
    return OPTIMIZERS[recipe.optimizer](groups, lr=recipe.lr, **options)


def _parallel(model, recipe, world):
    """The model as it is trained: compiled if the recipe says so, and with gradients averaged over the processes."""
    if recipe.compile:
        model.compile()
    if world.size == 1:
        return model
    if world.device.type == "cuda":
        return DistributedDataParallel(torch.nn.SyncBatchNorm.convert_sync_batchnorm(model), [world.device])
    if any(isinstance(module, torch.nn.modules.batchnorm._BatchNorm) for module in model.modules()):
        raise ValueError("norm: expected layer or pre-layer where processes on a CPU share a batch; got batch")
    return DistributedDataParallel(model)


def _shares(index, accumulate, world):
    """This process's parts of a batch, with the weight of each in the mean over the batch."""
    for part in index[world.rank :: world.size].tensor_split(accumulate):
        yield (part, len(part) / len(index)) if len(part) else (index[:1], 0.0)


def _resident(split, device):
    return split.to(device) if isinstance(split, Split) else split


def _tensorboard(run, done):
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError("--tensorboard needs it: pip install 'primal-dual-attention[train]'") from error
    return SummaryWriter(run, purge_step=done + 1)


def _same_configuration(run, config, world):
    file = run / "config.json"
    # a configuration without an epoch binds nobody
    begun = file.exists() and any((*run.glob("*.safetensors"), *run.glob("result.json")))
    if world.first and not begun:
        run.mkdir(parents=True, exist_ok=True)
        write_json(file, config)
    world.wait()
    try:
        before = json.loads(file.read_text())
        flat = [{**each["recipe"], **each, "recipe": None} for each in (before, config)]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file}: expected the config of a run; got {error}") from error
    different = [name for name in flat[1] if flat[0].get(name) != flat[1][name]]
    if different:
        name = different[0]
        then, now = flat[0].get(name), flat[1][name]
        raise ValueError(f"{run}: expected {name} = {then}, as it was begun; got {now}. Give it another folder")


def _seed(*words):
    """A seed for each epoch of each run."""
    return int.from_bytes(hashlib.sha256(" ".join(map(str, words)).encode()).digest()[:8], "little") >> 1
