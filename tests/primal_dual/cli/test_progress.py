"""Progress of long commands: a bar in a terminal; where the output is no terminal, a line now and then."""

import time

from primal_dual.cli import console
from primal_dual.cli.console import ProgressBar


def test_lines_where_there_is_no_terminal(monkeypatch, capsys):
    monkeypatch.setattr(console, "SILENCE", 0.05)
    with ProgressBar() as progress:
        assert progress.disable
        progress.add_task("not begun", total=None)
        for _ in progress.track(range(3), description="heads [1]"):
            time.sleep(0.1)
        time.sleep(0.1)
    lines = capsys.readouterr().err.splitlines()
    assert {line.split(":")[0] for line in lines} == {"heads [1]"} and "heads [1]: 1 of 3" in lines
    assert not any("3 of 3" in line for line in lines)
    time.sleep(0.1)
    assert not capsys.readouterr().err


def test_a_bar_in_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(console, "SILENCE", 0.01)
    monkeypatch.setenv("FORCE_COLOR", "1")
    with ProgressBar() as progress:
        assert not progress.disable
        for _ in progress.track(range(2), description="heads"):
            time.sleep(0.1)
    assert "heads: " not in capsys.readouterr().err
