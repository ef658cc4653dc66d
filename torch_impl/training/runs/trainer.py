"""Train a model by a recipe, and resume it where it was interrupted.

The model is trained on a GPU if there is one. Under torchrun, all processes share each batch.

A run is a folder FOLDER/DATA/ATTENTION/SEED: config.json, log.jsonl (a line an epoch), two checkpoints, written by
turns, and at its end model.safetensors and result.json. Each epoch draws its random numbers from a seed of its own, so
that a run that was interrupted ends as if it had not been: bit for bit on a CPU with as many threads.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import nn
from torch.backends import mkldnn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from primal_dual.io.files import write_bytes, write_json
from primal_dual.primal import members_of
from primal_dual.types import Float, Int
from torch_impl.data.dataset import DataSet, Examples, Split, batches
from torch_impl.data.messages import one_line, say_nothing
from torch_impl.own_parts import expect_agreement
from torch_impl.training.recipes.attentions import Attention, attention_files, attention_text, find_attention
from torch_impl.training.recipes.base_recipe import OPTIMIZERS, Recipe, TrainingBatch
from torch_impl.training.recipes.kinds import to_config
from torch_impl.training.runs.checkpoint import Log, contiguous, resume, save_checkpoint
from torch_impl.training.runs.distributed import World, parallel_model, share_batch, this_process
from torch_impl.training.runs.machine import describe_machine, together
from torch_impl.training.runs.memory import expect_to_fit
from torch_impl.training.runs.run_files import Result, read_json, sealed
from torch_impl.training.runs.run_folder import check_configuration, folder_of_run

EVALUATIONS = 10  # how often a run is tested; the last time gives its accuracy, the others only best_test_epoch


def train(
    recipe: Recipe,
    attention: Attention,
    seed: int,
    data: DataSet,
    folder: Path | str,
    say: Callable[[Any], object] = say_nothing,
) -> dict[str, Any]:
    """Train one run to its end, from its last checkpoint if it has one. A finished run is not trained again.

    If the weights of a finished run are lost, they are written again from its last checkpoint.

    Parameters
    ----------
    recipe : Recipe
        How it is trained; the same for every attention.
    attention : str, Primal or Heads
        A name of the catalog, or the primal of all heads, or one a head; or FILE.py:NAME, see `find_attention`.
    seed : int
        Of the initial weights and of all random numbers in training.
    data : DataSet
        Its training split is trained on, its test split is used for nothing but accuracies.
    folder : path
        The folder of runs.
    say : callable
        Is called with each line of the log, a dictionary, and with a message if a checkpoint is damaged, and if a run
        goes on with another machine, version or commit.

    Returns
    -------
    dict
        The result: the configuration, the test accuracy of the last epoch and of the best tested one (fractions), the
        seconds, the number of weights, and the machine.

    Raises
    ------
    ValueError
        For an unknown attention, and one that is another in torch than in NumPy; for a run that was begun with another
        configuration, number of threads or number of processes, or on other data; for a loss or a weight that is not
        finite; and where a GPU's memory is too small.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from torch_impl.training.recipes.benchmarks import recipe
    >>> tiny = recipe("digits", epochs=1, layers=1, width=8)
    >>> with TemporaryDirectory() as folder:
    ...     result = train(tiny, "bn", 0, tiny.load(None, print), folder)
    train: decoded 1201 of 1201 images
    test: decoded 596 of 596 images
    >>> result["data"], result["attention"], 0 <= result["test_accuracy"] <= 1
    ('digits', 'bn', True)
    """
    world = this_process()
    recipe, attention = recipe.resolve_defaults(data), find_attention(attention)
    expect_agreement(members_of(attention), recipe.width // recipe.num_heads)
    run, config = begin(recipe, attention, seed, data, folder, world)
    result = read_json(run / "result.json", Result) if (run / "result.json").exists() else None
    weights_are_lost = not (run / "model.safetensors").exists() and any(run.glob("checkpoint-*"))
    if result and not weights_are_lost:
        return result
    training = _set_up(recipe, attention, data, run, config, world, say)
    if result:
        if len(training.log) == recipe.epochs and world.first:
            write_bytes(run / "model.safetensors", _weights(training))
        world.wait()
        return result
    tested_epochs = {math.ceil(recipe.epochs * (i + 1) / EVALUATIONS) for i in range(EVALUATIONS)}
    try:
        with nullcontext() if recipe.uses_onednn else _without_onednn():
            for epoch in range(len(training.log), recipe.epochs):
                _log_epoch(training, epoch, tested=epoch + 1 in tested_epochs)
    except torch.OutOfMemoryError as error:
        expected = "expected training that fits into the memory of the GPU"
        mend = "try a smaller batch, a larger accumulate or fewer jobs"
        raise ValueError(f"{run}: {expected}; got {one_line(error)}; {mend}") from error
    return _finish(training)


def begin(
    recipe: Recipe, attention: Attention, seed: int, data: DataSet, folder: Path | str, world: World
) -> tuple[Path, dict[str, Any]]:
    """The folder of a run, and its configuration, which is written there.

    Raises
    ------
    ValueError
        For a run that was begun with another one, see `check_configuration`.
    """
    text, files = attention_text(attention), attention_files(attention)
    run = folder_of_run(folder, data.name, text, seed)
    config = {"recipe": to_config(recipe), "data": data.name, "attention": text, "seed": seed}
    config |= {"attention_files": files} if files else {}
    config |= {"threads": torch.get_num_threads(), "processes": world.size, "fingerprint": data.fingerprint()}
    check_configuration(run, config, world)
    return run, config


@dataclass
class _Training:
    """What the steps of a run share."""

    recipe: Recipe
    data: DataSet
    run: Path
    config: dict[str, Any]
    machine: dict[str, Any]  # on which the run was begun, and those on which it went on
    world: World
    say: Callable[[Any], object]
    model: nn.Module
    average: AveragedModel | None  # of the weights, if the recipe has one
    modules: dict[str, nn.Module]  # what a checkpoint holds
    optimizer: torch.optim.Optimizer
    parallel_model: nn.Module  # the model, in a wrapper that averages gradients over the processes
    log: Log
    train_split: Examples  # on the device, if it is in memory
    test_split: Examples
    writer: Any  # of TensorBoard, if the recipe has it

    @property
    def steps_per_epoch(self) -> int:
        """The number of batches of the training split."""
        return math.ceil(len(self.train_split) / self.recipe.batch)

    @property
    def tested_model(self) -> nn.Module:
        """The model with its average weights, if there are such; else the model."""
        return self.model if self.average is None else self.average.module


def learning_rate(step: int, steps: int, warm_up: float) -> float:
    """The learning rate at a step, as a fraction of its peak: linear warm-up, then half a cosine down to zero.

        (t + 1) / w  for t < w,    (1 + cos(pi (t - w) / (steps - w))) / 2  for t >= w,    w = warm_up steps

    Parameters
    ----------
    step, steps : int
        t, from 0, and how many there are.
    warm_up : float
        The fraction of the steps that warm up.

    Examples
    --------
    >>> learning_rate(0, 100, 0.1), learning_rate(10, 100, 0.1), round(learning_rate(55, 100, 0.1), 9)
    (0.1, 1.0, 0.5)
    """
    warm = max(1, round(warm_up * steps))
    if step < warm:
        return (step + 1) / warm
    return (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm))) / 2


@torch.no_grad()
def accuracy(recipe: Recipe, model: nn.Module, split: Examples, data: DataSet, world: World, batch: int = 256) -> float:
    """The fraction of a split that a model classifies correctly, in eval mode.

    Parameters
    ----------
    recipe : Recipe
        How inputs are prepared.
    model : nn.Module
        It stays in eval mode.
    split : Split or ImageStream
        The examples.
    data : DataSet
        Whose mean and standard deviation inputs are standardised by.
    world : World
        The processes, which share the batches.
    batch : int
        The number of examples in a batch.
    """
    model.eval()
    correct_and_count = torch.zeros(2, dtype=torch.int64, device=world.device)
    indices = _beside(split, torch.arange(len(split))).split(batch)[world.rank :: world.size]
    for inputs, key_mask, labels in batches(split, indices, world.device, recipe.workers):
        with torch.autocast(world.device.type, torch.bfloat16, enabled=recipe.bf16):
            logits = model(recipe.prepare(inputs, data.mean, data.deviation), key_mask)
        correct_and_count += torch.stack([(logits.argmax(-1) == labels).sum(), labels.new_tensor(len(labels))])
    correct, count = world.sum(correct_and_count).tolist()
    return correct / count


def _set_up(
    recipe: Recipe,
    attention: Attention,
    data: DataSet,
    run: Path,
    config: dict[str, Any],
    world: World,
    say: Callable[[Any], object],
) -> _Training:
    """Model, optimizer, log and splits as they are after the last epoch that was saved."""
    make = partial(recipe.model, data.sizes, attention)
    expect_to_fit(make, world.device)
    torch.manual_seed(_seed(config["seed"], "weights"))
    model = make().to(world.device)
    optimizer = _optimizer(recipe, model)
    modules: dict[str, nn.Module] = {"model": model}
    average = None
    if recipe.ema:
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema), use_buffers=True)
        modules["average"] = average
    log, machine = resume(run, modules, optimizer, config, say)
    if world.first and not (run / "config.json").exists():  # it was lost, and is that of the checkpoint
        write_json(run / "config.json", config)
    here = describe_machine(world.device.type)
    both = together(machine, here)
    changed = ", ".join(f"{name} {x}" for name, x in both.items() if x != machine[name])
    if changed and len(log) < recipe.epochs:
        say(f"{run}: goes on with another {changed}")
    if recipe.compile:
        model.compile()
    return _Training(
        recipe=recipe,
        data=data,
        run=run,
        config=config,
        machine=both or here,
        world=world,
        say=say,
        model=model,
        average=average,
        modules=modules,
        optimizer=optimizer,
        parallel_model=parallel_model(model, world),
        writer=_tensorboard(run, len(log)) if recipe.tensorboard and world.first else None,
        log=log,
        train_split=_on_device(data.train, world.device),
        test_split=_on_device(data.test, world.device),
    )


@contextmanager
def _without_onednn() -> Iterator[None]:
    """torch's own kernels on a CPU, for a while. (Its context manager for this changes other settings, and warns.)"""
    before, *_ = mkldnn.set_flags(False, None, None, None)
    try:
        yield
    finally:
        mkldnn.set_flags(before, None, None, None)


def _log_epoch(training: _Training, epoch: int, tested: bool) -> None:
    """Train an epoch, test the model if this is its turn, and save and report both."""
    start = time.perf_counter()
    line = {"epoch": epoch + 1, "loss": _train_epoch(training, epoch)}
    if tested:
        model, split = training.tested_model, training.test_split
        line["test_accuracy"] = accuracy(training.recipe, model, split, training.data, training.world)
    line["seconds"] = time.perf_counter() - start
    training.log.append(line)
    if training.world.first:
        state = training.modules, training.optimizer, training.log
        save_checkpoint(training.run, *state, training.config, training.machine)
        if training.writer:
            for name, value in line.items():
                training.writer.add_scalar(name, value, epoch + 1)
        training.say(line)


def _train_epoch(training: _Training, epoch: int) -> float:
    """One pass over the training split. Returns the mean of the loss over its steps."""
    recipe, world = training.recipe, training.world
    torch.manual_seed(_seed(training.config["seed"], epoch))
    order = _beside(training.train_split, torch.randperm(len(training.train_split))).split(recipe.batch)
    torch.manual_seed(_seed(training.config["seed"], epoch, world.rank))
    parts = [part for batch in order for part in share_batch(batch, recipe.accumulate, world)]
    loaded = batches(training.train_split, [part.examples for part in parts], world.device, recipe.workers)
    training.model.train()
    total = torch.zeros((), dtype=torch.float64, device=world.device)
    augmented = recipe.augmented(_expect_examples(training, loaded, epoch), training.data)
    for i, (part, batch) in enumerate(zip(parts, augmented, strict=True)):
        step = epoch * training.steps_per_epoch + i // recipe.accumulate
        is_last_part = (i + 1) % recipe.accumulate == 0
        total += _add_gradient(training, batch, part.weight, step, is_last_part)
        if is_last_part:
            _update_weights(training, step)
    return world.sum(total).item() / training.steps_per_epoch


def _beside(split: Examples, index: Int[torch.Tensor, " n"]) -> Int[torch.Tensor, " n"]:
    """An index on the device of a split, which would wait for each batch of another."""
    return index.to(split.labels.device)


def _expect_examples(training: _Training, loaded: Iterable[Split], epoch: int) -> Iterator[Split]:
    """The parts of an epoch's batches. ValueError for one without an example."""
    for i, examples in enumerate(loaded):
        if not len(examples):
            step = epoch * training.steps_per_epoch + i // training.recipe.accumulate
            expected = f"expected a whole image in the batch of step {step}"
            raise ValueError(f"{training.run}: {expected}; got none: all are corrupt")
        yield examples


def _add_gradient(
    training: _Training, batch: TrainingBatch, weight: float, step: int, is_last_part: bool
) -> Float[torch.Tensor, ""]:
    """Add the gradient of the loss on a part of a batch to that of the others. Returns its part of the mean loss."""
    recipe, world = training.recipe, training.world
    wait_for_others = is_last_part or world.size == 1
    with nullcontext() if wait_for_others else training.parallel_model.no_sync():  # type: ignore[operator]
        with torch.autocast(world.device.type, torch.bfloat16, enabled=recipe.bf16):
            logits = training.parallel_model(batch.inputs, batch.key_mask)
            loss = F.cross_entropy(logits, batch.targets, label_smoothing=recipe.label_smoothing)
        if not loss.isfinite():
            got = f"the loss is {loss.item()} at step {step}"
            raise ValueError(f"{training.run}: {got}; try a smaller lr than {recipe.lr}")
        (loss * weight * world.size).backward()  # the wrapper divides the sum of the gradients by the processes
    return loss.detach() * weight


def _update_weights(training: _Training, step: int) -> None:
    """One step of the optimizer."""
    recipe, model = training.recipe, training.model
    if recipe.clip:
        nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
    fraction = learning_rate(step, recipe.epochs * training.steps_per_epoch, recipe.warm_up)
    for group in training.optimizer.param_groups:
        group["lr"] = recipe.lr * fraction
    training.optimizer.step()
    training.optimizer.zero_grad()
    if training.average is not None:
        training.average.update_parameters(model)


def _weights(training: _Training) -> bytes:
    """The content of model.safetensors."""
    state = contiguous(training.tested_model.state_dict())
    if not all(x.isfinite().all() for x in state.values()):
        raise ValueError(f"{training.run}: the weights are not finite at the end; try a smaller lr or weight_decay")
    return save(state, {"data": json.dumps(training.data.described())})


def _finish(training: _Training) -> dict[str, Any]:
    """Write the weights and the result of a run that has had all its epochs."""
    if training.writer:
        training.writer.close()
    weights = _weights(training)
    accuracies = [line["test_accuracy"] for line in training.log if "test_accuracy" in line]
    result = training.config | {
        "test_accuracy": accuracies[-1],
        "best_test_epoch": max(accuracies),
        "seconds": sum(line["seconds"] for line in training.log),
        "parameters": sum(p.numel() for p in training.model.parameters()),
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "machine": training.machine,
    }
    result = sealed(result)
    if training.world.first:
        write_bytes(training.run / "model.safetensors", weights)
        write_json(training.run / "result.json", result)
    training.world.wait()
    return result


def _optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of the recipe, with weight decay for matrices alone."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    options: dict[str, Any] = {"fused": True} if recipe.optimizer == "adamw" else {"decoupled_weight_decay": True}
    return OPTIMIZERS[recipe.optimizer](groups, lr=recipe.lr, **options)


def _on_device(split: Examples, device: torch.device) -> Examples:
    return split.to(device) if isinstance(split, Split) else split


def _tensorboard(run: Path, epochs_done: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError('--tensorboard needs it: pip install ".[train]" in the checkout') from error
    return SummaryWriter(run, purge_step=epochs_done + 1)


def _seed(*words: object) -> int:
    """A seed for each epoch of each run, from the words that tell them apart."""
    return int.from_bytes(hashlib.sha256(" ".join(map(str, words)).encode()).digest()[:8], "little") >> 1
