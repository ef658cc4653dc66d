"""Runs that are killed at any time, again and again, end as one that is not."""

import os
import shutil
import signal
import time

from tests.attacks.attempts import attack
from tests.torch_impl.training.short_runs import TINY
from torch_impl.data.messages import say_nothing
from torch_impl.training.runs.trainer import train


def test_kills(tmp_path, motions, attempts_of):
    train(TINY, "bn+sh", 0, motions, tmp_path / "whole", say_nothing)
    whole = tmp_path / "whole" / "BasicMotions" / "bn+sh" / "0"

    def attempt(rng):
        shutil.rmtree(tmp_path / "killed", ignore_errors=True)
        run = tmp_path / "killed" / "BasicMotions" / "bn+sh" / "0"
        for _ in range(5):
            child = os.fork()
            if not child:
                train(TINY, "bn+sh", 0, motions, tmp_path / "killed", say_nothing)
                os._exit(0)
            time.sleep(rng.uniform(0, 0.15))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        train(TINY, "bn+sh", 0, motions, tmp_path / "killed", say_nothing)
        assert (run / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()

    attack("kills", attempts_of(100), attempt)
