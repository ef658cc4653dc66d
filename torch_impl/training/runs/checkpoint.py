"""Checkpoints: weights, optimizer and log of a run after an epoch, from which it resumes to the same bits.

Two files are written by turns, so that one is whole whenever the program is killed. Each is a safetensors file, with
the log, the configuration and the machine in its metadata, followed by the SHA-256 of its content, which tells whether
it is whole.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from primal_dual.io.files import write_bytes, write_text
from torch_impl.data.messages import Say
from torch_impl.training.runs.run_folder import expect_same

DIGEST = 32  # bytes of a SHA-256

Log = list[dict[str, Any]]  # one line an epoch


def save_checkpoint(
    run: Path,
    modules: Mapping[str, torch.nn.Module],
    optimizer: torch.optim.Optimizer,
    log: Log,
    config: dict[str, Any],
    machine: dict[str, Any],
) -> None:
    """Write the checkpoint of the epoch that the log ends with, and the log as log.jsonl.

    Parameters
    ----------
    run : path
        The folder of the run.
    modules : mapping of modules
        "model", and "average" if its weights are averaged.
    optimizer : torch.optim.Optimizer
        Whose state is saved.
    log : list of dict
        One line an epoch.
    config, machine : dict
        The configuration of the run, and what it was trained on.
    """
    tensors = {f"{key}.{name}": x for key, module in modules.items() for name, x in module.state_dict().items()}
    for i, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{i}.{name}": x for name, x in state.items()}
    facts = {"log": log, "config": config, "machine": machine}
    content = save(contiguous(tensors), {name: json.dumps(fact) for name, fact in facts.items()})
    content += hashlib.sha256(content).digest()
    write_bytes(run / f"checkpoint-{len(log) % 2}.safetensors", content)
    write_text(run / "log.jsonl", "".join(json.dumps(line) + "\n" for line in log))


def resume(
    run: Path,
    modules: Mapping[str, torch.nn.Module],
    optimizer: torch.optim.Optimizer,
    config: dict[str, Any],
    say: Say,
) -> tuple[Log, dict[str, Any]]:
    """Load the newest checkpoint that is whole into the modules and the optimizer.

    Parameters
    ----------
    run, modules, optimizer, config
        As in `save_checkpoint`.
    say : callable
        Is called with a message if a checkpoint is damaged.

    Returns
    -------
    log : list of dict
        Of the epochs that are done; empty without a checkpoint.
    machine : dict
        What they were trained on; empty if that was not saved.

    Raises
    ------
    ValueError
        For a whole file that is no checkpoint of this program, for what is no file, and for another configuration.
    """
    log, facts, tensors = _newest(run, say)
    if not log:
        return [], {}
    if "config" in facts:  # older checkpoints have none
        expect_same(run / "config.json", facts["config"], config)
    for key, module in modules.items():
        module.load_state_dict(_below(f"{key}.", tensors))
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, x in _below("optimizer.", tensors).items():
        i, key = name.split(".")
        state.setdefault(int(i), {})[key] = x
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return log, facts.get("machine", {})


def contiguous(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors, detached and contiguous, as safetensors needs them."""
    return {name: x.detach().contiguous() for name, x in tensors.items()}


def metadata(content: bytes) -> dict[str, str]:
    """The metadata of a safetensors file in memory, which `safe_open` reads from files alone.

    The file begins with the length of its header, in 8 bytes, and the header, in JSON. SafetensorError for another.
    """
    length = int.from_bytes(content[:8], "little")
    try:
        return json.loads(content[8 : 8 + length])["__metadata__"]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise SafetensorError("a file without metadata") from error


def _newest(run: Path, say: Say) -> tuple[Log, dict[str, Any], dict[str, torch.Tensor]]:
    """The log, all metadata and the tensors of the newest checkpoint that is whole; empty without one."""
    newest: tuple[Log, dict[str, Any], dict[str, torch.Tensor]] = [], {}, {}
    damaged = []
    for file in run.glob("checkpoint-*.safetensors"):
        if not file.is_file():  # the next epoch could not be written in its place
            raise ValueError(f"{file}: expected a checkpoint; got no file: move it away")
        content = file.read_bytes()
        content, digest = content[:-DIGEST], content[-DIGEST:]
        if hashlib.sha256(content).digest() != digest:
            damaged.append(file)
            continue
        try:
            facts = {name: json.loads(fact) for name, fact in metadata(content).items()}
            log, tensors = facts["log"], load(content)
        except (SafetensorError, KeyError, ValueError) as error:
            raise ValueError(f"{file}: expected a checkpoint of this program; got {error}") from error
        if len(log) > len(newest[0]):
            newest = log, facts, tensors
    for file in damaged:
        say(f"{file}: damaged; going on from epoch {len(newest[0])}")
    return newest


def _below(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors whose name begins with a prefix, by the rest of their name."""
    return {name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)}
