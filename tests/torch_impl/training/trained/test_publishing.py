"""A finished run becomes a model that comes with the package."""

from dataclasses import replace

import pytest

from tests.torch_impl.training.short_runs import TINY
from torch_impl.data.series import load_series
from torch_impl.training.runs.trainer import train
from torch_impl.training.trained import publishing
from torch_impl.training.trained.pretrained_models import WEIGHTS

NAME = "JapaneseVowels/softmax"


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    monkeypatch.setattr(publishing, "WEIGHTS", tmp_path / "weights")
    return tmp_path / "weights"


def test_a_published_model_is_published_again_as_it_is(shelf):
    """Its weights are rounded already, so that all four files are the same, with the accuracy that is measured here."""
    assert publishing.publish(WEIGHTS / NAME) == shelf / NAME
    for file in (WEIGHTS / NAME).iterdir():
        assert (shelf / NAME / file.name).read_bytes() == file.read_bytes()


@pytest.mark.parametrize("changes", [{"folds": 2}, {"noise": 1.0}, {"oversample": 2}, {}], ids=str)
def test_other_runs_are_refused(shelf, tmp_path, changes):
    train(replace(TINY, epochs=1, **changes), "softmax", 0, load_series("BasicMotions"), tmp_path)
    message = (
        "published test split; got one with folds, noise or new" if changes else "expected a data set with a source"
    )
    with pytest.raises(ValueError, match=message):
        publishing.publish(tmp_path / "BasicMotions" / "softmax" / "0")
    assert not shelf.exists()
