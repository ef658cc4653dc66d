"""Damaged and forged files: refused in a line, or read as what they are."""

import json
import shutil
import tarfile
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from primal_dual.io.files import load_array
from tests.attacks.attempts import attack, choice, damaged, refused
from tests.torch_impl.data import test_series_fuzz
from tests.torch_impl.training.short_runs import TINY
from torch_impl.data.array_files import read_npz
from torch_impl.data.images.loading import load_images
from torch_impl.data.messages import say_nothing
from torch_impl.data.series import load_new_series
from torch_impl.training.runs.trainer import train
from torch_impl.training.trained.finished_run import evaluate

ODD = [
    None,
    True,
    -1,
    0,
    5,
    97.0,
    1e30,
    float("nan"),
    "",
    "[/b]",
    "\x1b[31m",
    "../x",
    [],
    {},
    [[]],
    {"a": {}},
    "a" * 10_000,
]


@pytest.fixture(scope="module")
def run(tmp_path_factory, motions):
    folder = tmp_path_factory.mktemp("runs")
    train(TINY, "sh", 0, motions, folder)
    return folder / "BasicMotions" / "sh" / "0"


def places(content):
    """All places of a JSON document: (what holds the value, its key)."""
    for key, value in content.items() if isinstance(content, dict) else enumerate(content):
        yield content, key
        if isinstance(value, dict | list):
            yield from places(value)


def forged(text, rng):
    """A JSON document of the right form in which a value, a name, or all is something else."""
    content = json.loads(text)
    holder, key = choice(rng, list(places(content)))
    kind = rng.integers(5)
    if kind == 0:
        holder[key] = choice(rng, ODD)
    elif kind == 1:
        del holder[key]
    elif kind == 2 and isinstance(holder, dict):
        holder["\x1b]0;x"] = choice(rng, ODD)
    elif kind == 3:
        content = choice(rng, ODD)
    else:
        return "[" * int(10 ** rng.uniform(1, 5))
    return json.dumps(content)


def test_runs(run, tmp_path, attempts_of):
    right, cases = evaluate(run, say=say_nothing)

    def attempt(rng):
        folder = tmp_path / "run"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(run, folder)
        file = folder / choice(rng, ["config.json", "result.json", "model.safetensors"])
        if file.suffix == ".json" and rng.random() < 0.6:
            content = forged(file.read_text(), rng).encode()
        else:
            content = damaged(file.read_bytes(), rng)
        what = rng.integers(20)
        same = content == file.read_bytes()
        file.unlink()
        if what == 0:
            file.mkdir()
        elif what == 1:
            file.symlink_to(file)
        elif what > 2:
            file.write_bytes(content)
        found, message = refused(evaluate, folder, None, say_nothing)
        assert message is not None or same or found == (right, cases), (file.name, content[:300])
        assert message is None or str(tmp_path) in message or "BasicMotions" in message, message

    attack("run folders", attempts_of(500), attempt)


def archive(folder):
    """A tar file of twelve small images in two classes, for each split."""
    for split in ("train", "test"):
        with tarfile.open(folder / f"{split}.tar", "w") as tar:
            for i in range(12):
                buffer = BytesIO()
                Image.fromarray(np.random.default_rng(i).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(
                    buffer, "PNG"
                )
                member = tarfile.TarInfo(f"{'ab'[i % 2]}/{i:02}.png")
                member.size = buffer.tell()
                buffer.seek(0)
                tar.addfile(member, buffer)


def test_archives_of_images(tmp_path, attempts_of):
    whole = tmp_path / "whole" / "own"
    whole.mkdir(parents=True)
    archive(whole)
    right = load_images("own", tmp_path / "whole")

    def attempt(rng):
        folder = tmp_path / "damaged"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tmp_path / "whole", folder)
        file = folder / "own" / f"{choice(rng, ['train', 'test'])}.tar"
        file.write_bytes(damaged(file.read_bytes(), rng))
        found, message = refused(load_images, "own", folder)
        if message is None:
            for split, expected in ((found.train, right.train), (found.test, right.test)):
                assert torch.equal(split.inputs, expected.inputs) and list(split.labels) == list(expected.labels)

    attack("image archives", attempts_of(300), attempt)


def test_arrays_in_files(tmp_path, attempts_of):
    x = np.random.default_rng(0).standard_normal((6, 5))

    def attempt(rng):
        file = tmp_path / choice(rng, ["x.npy", "x.npz"])
        (np.save if file.suffix == ".npy" else lambda file, x: np.savez(file, x=x))(file, x)
        content = file.read_bytes()
        file.write_bytes(damaged(content, rng))
        if file.suffix == ".npy":
            found, message = refused(load_array, file)
            assert message is not None or found.nbytes <= 2 * len(content)  # its numbers have no sum of their own
        else:
            found, message = refused(read_npz, file, "x")
            assert message is not None or np.array_equal(found[0], x)

    attack("arrays in files", attempts_of(500), attempt)


def test_time_series(tmp_path, attempts_of):
    """Read by regular expressions, too, which say what such a file says."""

    def attempt(rng):
        kind, content = test_series_fuzz.damaged(int(rng.integers(2**32)))
        said, features = test_series_fuzz.says(content), test_series_fuzz.VALID[kind][0]["features"]
        path = test_series_fuzz.write(tmp_path, "TEST", content)
        found, message = refused(load_new_series, path, test_series_fuzz.plain(features))
        if said is None or said[0][0].shape[1] != features:
            assert message is not None and str(path) in message
        else:
            assert message is None, message
            test_series_fuzz.assert_says(*found, said[0])

    attack("time series", attempts_of(300), attempt)
