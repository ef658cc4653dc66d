"""MNIST's format: images and labels are those that were written, and what is damaged is refused."""

import gzip
import struct

import numpy as np
import pytest

from torch_impl.data.images.loading import load_images
from torch_impl.training.recipes.benchmarks import recipe

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def idx(array):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def written(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        name: rng.integers(0, 256 if "images" in name else 3, (count, 7, 7)[: 3 if "images" in name else 1], np.uint8)
        for name, count in zip(NAMES, (11, 11, 5, 5), strict=True)
    }
    (tmp_path / "mine").mkdir()
    for name, array in arrays.items():
        (tmp_path / "mine" / name).write_bytes(idx(array))
    return arrays


def zipped(folder, name):
    content = (folder / name).read_bytes()
    (folder / name).unlink()
    (folder / f"{name}.gz").write_bytes(gzip.compress(content))


@pytest.mark.parametrize("gzipped", [False, True])
def test_images_and_labels_are_those_of_the_files(tmp_path, written, gzipped):
    for name in NAMES if gzipped else ():
        zipped(tmp_path / "mine", name)
    data = load_images("mine", tmp_path)
    for split, (images, labels) in ((data.train, NAMES[:2]), (data.test, NAMES[2:])):
        np.testing.assert_array_equal(split.inputs[:, 0], written[images])
        np.testing.assert_array_equal(split.labels, written[labels])
    assert data.classes == ("0", "1", "2") and data.sizes == {"channels": 1, "size": 7, "classes": 3}
    assert recipe("mine", tmp_path).load(tmp_path, print).sizes == data.sizes


@pytest.mark.parametrize("gzipped", [False, True])
@pytest.mark.parametrize(
    ("name", "damaged", "message"),
    [
        (NAMES[0], lambda x: x[:-1], "expected 16 [+] 11 x 7 x 7 bytes, by its header; got 554"),
        (NAMES[1], lambda x: x + b"\0", "expected 8 [+] 11 bytes, by its header; got 20"),
        (NAMES[2], lambda x: x[:9], "expected an idx file that begins with 00000803; got 00000803, and 9 bytes in all"),
        (NAMES[2], lambda x: b"\1" + x[1:], "expected an idx file that begins with 00000803; got 01000803"),
        (NAMES[3], lambda x: idx(np.zeros(4, np.uint8)), "expected 5 labels, one an image; got 4"),
        (NAMES[0], lambda x: x[:4] + b"\xff" * 12, "expected 16 [+] 4294967295 x 4294967295 x 4294967295 bytes"),
        (NAMES[0], lambda x: b"", "expected an idx file"),
    ],
)
def test_damaged_files_are_refused(tmp_path, written, name, damaged, message, gzipped):
    file = tmp_path / "mine" / name
    file.write_bytes(damaged(file.read_bytes()))
    if gzipped:
        zipped(tmp_path / "mine", name)
    with pytest.raises(ValueError, match=f"{name}.*{message}"):
        load_images("mine", tmp_path)


def test_missing_and_badly_zipped_files_are_refused(tmp_path, written):
    file = tmp_path / "mine" / NAMES[3]
    zipped(tmp_path / "mine", NAMES[3])
    packed = file.with_suffix(".gz")
    content = packed.read_bytes()
    for damaged in (content[:-9], content[:3], b"no gzip"):
        packed.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"t10k-labels-idx1-ubyte.gz: expected a gzipped idx file; got"):
            load_images("mine", tmp_path)
    packed.unlink()
    with pytest.raises(ValueError, match=r"mine: expected t10k-labels-idx1-ubyte or t10k-labels-idx1-ubyte.gz; got"):
        load_images("mine", tmp_path)
