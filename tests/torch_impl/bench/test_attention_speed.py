"""The benchmark of attention: what it measures, writes and draws, on a small head."""

import json

import pytest
import torch

from torch_impl.bench import attention_speed


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(attention_speed, "D", 8)
    monkeypatch.setattr(attention_speed, "H", 4)


def test_the_quick_benchmark_writes_and_draws_what_it_measures(tmp_path, capsys):
    files = tmp_path / "bench.json", tmp_path / "bench.png"
    attention_speed.main(["--device", "cpu", "--quick", "--json", str(files[0]), "--plot", str(files[1])])
    result = json.loads(files[0].read_text())
    bn, *memory = result["rows"]
    assert (bn["what"], bn["N"], bn["at_most"]) == ("Attention-BN", 1024, 1.15)
    assert bn["ratio"] == bn["seconds"] / bn["sdpa_seconds"] > 0  # one pair of calls
    assert [row["what"].split(", ")[1] for row in memory] == ["Attention-SH", "Attention-BN", "linear attention"]
    assert all(row["N"] == 1024 and row["at_most"] is None and 0 < row["ratio"] < 3 for row in memory)
    curves = {(point["N"], point["name"]): point for point in result["curves"]}
    assert list(curves) == [(N, name) for N in (256, 512, 1024, 2048) for name in attention_speed.CURVES]
    for (N, _), point in curves.items():
        assert point["least_bytes"] == 4 * N * 4 * 8 * 4 <= point["bytes"] and point["seconds"] > 0
    assert curves[1024, "sh"]["floor"] == 15 / 32 and curves[1024, "linear"]["floor"] == 8 / 1024
    assert curves[2048, "window 128"]["floor"] == 257 / 2048 and curves[256, "window 128"]["floor"] == 1
    assert files[1].read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 1 + 4 + 4 and printed[1].split()[:3] == ["Attention-BN", "1,024", f"{bn['ratio']:.3f}"]


def test_its_figure_has_a_line_and_a_floor_for_each_attention():
    points = [
        dict(name=name, N=N, seconds=2.0 * N, bytes=2**20 * N, floor=0.5, least_bytes=2**20)
        for name in attention_speed.CURVES
        for N in (256, 512)
    ]
    seconds, memory = attention_speed.draw({"curves": points}).axes
    assert [line.get_ydata().tolist() for line in seconds.lines] == [[512, 1024], [256, 512]] * len(
        attention_speed.CURVES
    )
    assert [line.get_ydata().tolist() for line in memory.lines][-2:] == [[256, 512], [1, 1]]
    assert [text.get_text() for text in seconds.get_legend().get_texts()] == list(attention_speed.CURVES)


@pytest.mark.parametrize("call", [attention_speed.step("cpu", "bn", 16), attention_speed.sdpa_step("cpu", 16, True)])
def test_a_step_is_a_forward_and_a_backward(call):
    gradients = call()
    assert [g.shape for g in gradients] == [(1, 8, 16, 64)] * 3 and all((g != 0).any() for g in gradients)


@pytest.mark.parametrize(
    "words, message",
    [
        (["--json", "none/x.json"], "none/x.json"),
        (["--device", "tpu"], "invalid choice"),
        pytest.param(
            ["--device", "cuda"],
            "torch sees no GPU here",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
    ],
)
def test_wrong_options_end_with_status_2_before_anything_is_measured(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(attention_speed, "run", None)
    with pytest.raises(SystemExit) as end:
        attention_speed.main(words)
    assert end.value.code == 2 and message in capsys.readouterr().err


def test_a_plot_needs_matplotlib(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(attention_speed, "find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        attention_speed.main(["--plot", str(tmp_path / "x.png")])
    assert 'pip install ".[plot]" in the checkout' in capsys.readouterr().err
