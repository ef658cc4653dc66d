"""Checkpoints."""

import hashlib
import json
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save

from primal_dual.io.files import write_file


def save_checkpoint(run, modules, optimizer, log):
    """Weights, optimizer and log in one file, whose last 32 bytes are the SHA-256 of the others."""
    tensors = {f"{key}.{name}": x for key, module in modules.items() for name, x in module.state_dict().items()}
    for i, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{i}.{name}": x for name, x in state.items()}
    content = save(contiguous(tensors), {"log": json.dumps(log)})
    file = run / f"checkpoint-{len(log) % 2}.safetensors"
    write_file(file, lambda temporary: Path(temporary).write_bytes(content + hashlib.sha256(content).digest()))
    lines = "".join(json.dumps(line) + "\n" for line in log)
    write_file(run / "log.jsonl", lambda temporary: Path(temporary).write_text(lines))


def contiguous(tensors):
    return {name: x.detach().contiguous() for name, x in tensors.items()}


def resume(run, modules, optimizer, say):
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

    def below(prefix):
        return {name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)}

    for key, module in modules.items():
        module.load_state_dict(below(f"{key}."))
    state = {}
    for name, x in below("optimizer.").items():
        i, key = name.split(".")
        state.setdefault(int(i), {})[key] = x
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return len(log), log
