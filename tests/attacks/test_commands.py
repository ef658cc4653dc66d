"""Commands with arguments that mean nothing, too much or something else: exit status 0, or 2 and a message."""

import numpy as np
import pytest
from typer.testing import CliRunner

from primal_dual.cli import commands
from tests.attacks.attempts import attack, choice

TEXTS = """-1 0 1 0.5 nan inf 1e400 1e30 99999999999999999999 true None abc bn softmax [/b] [red]x ../x . /dev/null
/dev/full /proc/self/mem é€ -- - 1,2 {} *"""
TRAIN = """train BasicMotions --seeds 0 --epochs 1 --layers 1 --width 16 --feedforward 16 --num-heads 4 --jobs 1"""
OPTIONS = """batch layers width feedforward num-heads dropout lr warmup weight-decay clip norm patch warp scale
jitter mask mixup ema beta optimizer amp folds seeds attention accumulate label-smoothing threads device speed"""
WORDS = [*TEXTS.split(), "", " ", "\x1b[31mx", "a\nb", "\u202eabc", "a" * 300]


@pytest.fixture
def files(tmp_path):
    np.save(tmp_path / "keys.npy", np.random.default_rng(0).standard_normal((7, 3)))
    np.save(tmp_path / "nan.npy", np.full((7, 3), np.nan))
    (tmp_path / "text.json").write_text("[[[")
    (tmp_path / "folder").mkdir()
    return [str(tmp_path / name) for name in ("keys.npy", "nan.npy", "text.json", "folder", "missing")]


def test_commands(files, tmp_path, attempts_of, monkeypatch):
    (tmp_path / "here" / "below").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here" / "below")  # words are names of files, too, and may be written

    def argument(rng):
        return choice(rng, files) if rng.random() < 0.3 else choice(rng, WORDS)

    def attempt(rng):
        kind = int(rng.integers(8))
        if kind == 0:
            words = ["certify", argument(rng), "--keys", files[0], "--values", argument(rng)]
        elif kind == 1:
            words = [
                "verify",
                "softmax",
                f"--{choice(rng, ['C', 'epsilon', 'solver', 'dataset', 'json'])}",
                argument(rng),
            ]
        elif kind == 2:
            words = [
                *TRAIN.split(),
                "--folder",
                str(tmp_path / "runs"),
                f"--{choice(rng, OPTIONS.split())}",
                argument(rng),
            ]
        elif kind == 3:
            words = [choice(rng, ["evaluate", "predict", "redundancy"]), argument(rng), argument(rng)]
        elif kind == 4:
            words = ["results", argument(rng), choice(rng, ["--markdown", "--json", "--figure"]), argument(rng)]
        elif kind == 5:
            words = ["train", argument(rng), "--folder", str(tmp_path / "runs"), "--data", argument(rng)]
        elif kind == 6:
            words = [
                "reproduce",
                "--list",
                f"--{choice(rng, ['only', 'data', 'folder', 'minutes', 'merge'])}",
                argument(rng),
            ]
        else:
            words = [argument(rng), argument(rng)]
        columns = str(choice(rng, [20, 40, 80, 300]))
        result = CliRunner(env={"COLUMNS": columns, "NO_COLOR": "1"}).invoke(commands.app, words)
        told = f"{words}: {result.exit_code}\n{result.output[-800:]}"
        assert result.exit_code in (0, 2, 1 if words[0] == "verify" else 0), told  # 1: a table of what did not pass
        assert result.exit_code == 0 or result.output.strip(), told
        assert "Traceback" not in result.output, told
        own = "\u202e" if "Usage:" in result.output else ""  # what was typed, which the library for commands repeats
        assert result.output.translate(dict.fromkeys(map(ord, "\n\r" + own))).isprintable(), told

    attack("commands", attempts_of(800), attempt)
