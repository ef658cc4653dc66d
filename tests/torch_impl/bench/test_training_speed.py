"""The benchmark of training compares equals."""

import json

import torch

from torch_impl.bench import training_speed
from torch_impl.bench.torch_encoder import EPOCH, Baseline
from torch_impl.bench.training_speed import _step, deit_step, epoch_ratio, text_step
from torch_impl.data.series import load_series
from torch_impl.models.vision_transformer import deit_tiny


def test_the_baseline_is_the_same_model():
    """On shared weights, in eval mode, over the whole test split."""
    torch.manual_seed(0)
    data = load_series("JapaneseVowels")
    ours, theirs = EPOCH.model(data.sizes, "softmax").eval(), Baseline(**data.sizes).eval()
    theirs.take_weights(ours)
    series, key_mask, _ = data.test
    with torch.no_grad():
        torch.testing.assert_close(ours(series, key_mask), theirs(series, key_mask), rtol=1e-5, atol=1e-5)


def test_epochs_are_timed_by_turns():
    data = load_series("JapaneseVowels")
    lines = []
    few = data._replace(train=data.train.take(torch.arange(0, 270, 9)))
    ours, theirs = epoch_ratio(few, 18, lines.append)
    assert len(lines) == 7 and ours > 0 and theirs > 0


def test_a_step_on_text_has_scales_1_to_8_and_trains(monkeypatch):
    models = []
    monkeypatch.setattr(training_speed, "_step", lambda model, *rest: models.append(model) or _step(model, *rest))
    step = text_step("sh", "cpu")
    before = [p.clone() for p in models[0].parameters()]
    step()
    changed = [not torch.equal(p, q) for p, q in zip(before, models[0].parameters(), strict=True)]
    assert sum(changed) > len(changed) / 2
    assert [primal.scale for primal in models[0].blocks[0].heads] == [1, 2, 4, 8]


def test_steps_of_deit_and_the_file(tmp_path, monkeypatch):
    small = dict(layers=1, width=12)
    before = deit_tiny("bn", **small)
    model = deit_tiny("bn", **small)
    model.load_state_dict(before.state_dict())
    deit_step(model, "cpu", 2, augmented=True)()
    changed = [not torch.equal(p, q) for p, q in zip(before.parameters(), model.parameters(), strict=True)]
    assert sum(changed) > len(changed) / 2
    row = dict(what="x", ratio=0.5, at_most=None, seconds=1.0, baseline_seconds=2.0)
    monkeypatch.setattr(training_speed, "run", lambda epochs, say: {"rows": [row]})
    training_speed.main(["--json", str(tmp_path / "b.json")])
    assert json.loads((tmp_path / "b.json").read_text())["rows"] == [row]
