"""What a run remembers of the machine that it was trained on, and asks of it."""

import os
import subprocess
from functools import cache

import pytest
import torch

from torch_impl.training.runs import machine
from torch_impl.training.runs.memory import expect_to_fit


@pytest.mark.parametrize("tracked", [True, False])
def test_the_commit_is_that_of_the_code_that_runs(tmp_path, monkeypatch, tracked):
    """A copy that is installed inside a checkout is not under its version control, and may be older."""
    author = ["-c", "user.name=A", "-c", "user.email=a@b"]
    file = tmp_path / "machine.py"
    file.touch()
    (tmp_path / "other.py").touch()
    for words in (["init"], ["add", "machine.py" if tracked else "other.py"], [*author, "commit", "-m", "x"]):
        subprocess.run(["git", "-C", tmp_path, *words], check=True, capture_output=True)
    head = subprocess.run(["git", "-C", tmp_path, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    monkeypatch.setattr(machine, "__file__", str(file))
    monkeypatch.setattr(machine, "_commit", cache(machine._commit.__wrapped__))
    assert machine.describe_machine("cpu")["commit"] == (head.stdout.strip() if tracked else None)
    file.write_text("changed = True")
    assert machine.describe_machine("cpu")["commit"] == (head.stdout.strip() if tracked else None)  # as it was loaded
    machine._commit.cache_clear()
    assert machine.describe_machine("cpu")["commit"] == (f"{head.stdout.strip()}-dirty" if tracked else None)


def test_where_the_system_does_not_tell_its_memory_every_model_fits(monkeypatch):
    monkeypatch.delattr(os, "sysconf")  # as on Windows
    expect_to_fit(lambda: torch.nn.Linear(10**5, 10**8), torch.device("cpu"))
