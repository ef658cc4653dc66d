"""The classifier without attention beside which the results stand."""

import json

import numpy as np
import pytest

from torch_impl.bench import multirocket


class NearestMean:
    """In the place of aeon's classifier, whose compilation takes a minute."""

    def __init__(self, random_state, n_jobs, shift=0):
        self.shift = shift if random_state else 0

    def fit(self, X, y):
        assert X.shape == (40, 6, 100)  # cases, features, time steps
        self.means = np.stack([X[y == label].mean(axis=0) for label in np.unique(y)])
        return self

    def predict(self, X):
        distances = ((X[:, None] - self.means) ** 2).sum(axis=(2, 3))
        return (distances.argmin(axis=1) + self.shift) % 4


def test_accuracies_are_those_of_the_test_split_by_seed(motions, monkeypatch):
    monkeypatch.setattr(multirocket, "MultiRocketHydraClassifier", NearestMean)
    right = multirocket.evaluate(motions, 1)["accuracies"][0]
    assert right > 0.5  # of four classes
    row = multirocket.evaluate(motions, 2, shift=1)
    assert row["data"] == "BasicMotions" and row["seeds"] == 2 and row["seconds"] > 0
    assert row["accuracies"][0] == right and row["accuracies"][1] <= 1 - right


def test_the_command_writes_what_it_prints(motions, tmp_path, monkeypatch, capsys):
    row = {"data": "BasicMotions", "seeds": 2, "accuracies": [0.5, 1.0], "seconds": 3.2}
    monkeypatch.setattr(multirocket, "evaluate", lambda data, seeds: row | {"data": data.name, "seeds": seeds})
    multirocket.main(["BasicMotions", "--seeds", "2", "--json", str(tmp_path / "m.json")])
    assert capsys.readouterr().out == "BasicMotions: 75.0 ± 35.4 in 3 s\n"
    assert json.loads((tmp_path / "m.json").read_text())["rows"] == [row]
    for words, message in (
        (["none"], "none"),
        (["BasicMotions", "--seeds", "0"], "--seeds: expected one or more; got 0"),
        (["BasicMotions", "--json", str(tmp_path / "no" / "m.json")], "cannot be written"),
    ):
        with pytest.raises(SystemExit) as stopped:
            multirocket.main(words)
        assert stopped.value.code == 2 and message in capsys.readouterr().err
