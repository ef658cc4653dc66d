"""The machine, versions and commit that a number was measured with."""

import os
import platform
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import torch


def default_device() -> str:
    """The device to compute on unless one is named: "cuda", a GPU, if there is one, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def describe_machine(device: str) -> dict[str, Any]:
    """What is recorded beside a number.

    Parameters
    ----------
    device : str
        "cpu" or "cuda".

    Returns
    -------
    dict
        The device, its name, the cores and threads, the versions, and the commit, which ends in "-dirty" if files were
        changed since; None for it outside a checkout.

    Examples
    --------
    >>> list(describe_machine("cpu"))
    ['device', 'name', 'cores', 'threads', 'torch', 'python', 'commit']
    """
    return {
        "device": device,
        "name": torch.cuda.get_device_name() if device == "cuda" else _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "commit": _commit(),
    }


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def together(begun: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """The description of what a run was begun on and went on on; " + " joins what differs.

    Examples
    --------
    >>> together({"device": "cpu", "commit": "9d4a"}, {"device": "cpu", "commit": "f8cd"})
    {'device': 'cpu', 'commit': '9d4a + f8cd'}
    """
    return begun | {
        name: f"{begun[name]} + {x}"
        for name, x in now.items()
        if name in begun and str(x) not in str(begun[name]).split(" + ")
    }


@cache
def _commit() -> str | None:
    """Of the checkout that has this file under version control; an installed copy inside a checkout may be older.

    It is asked for once: what is committed later is not what this process has loaded.
    """
    file = Path(__file__)
    try:
        _git(file.parent, "ls-files", "--error-unmatch", file.name)
        return _git(file.parent, "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()
