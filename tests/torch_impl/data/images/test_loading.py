"""Image sets: every format against the pixels that were written; streams against memory; what is malformed."""

import gzip
import pickle
import struct
import tarfile
import zlib
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from rich.progress import Progress

from torch_impl.data.dataset import folds
from torch_impl.data.images import decoding, gzip_files, loading
from torch_impl.data.images.decoding import ImageDecoder
from torch_impl.data.images.files import list_images
from torch_impl.data.images.loading import ImageStream, load_images
from torch_impl.data.images.pixels import channel_statistics, scaled, standardised

SIZE, COUNTS = 7, {"train": {"cat": 5, "dog": 3}, "test": {"cat": 2, "dog": 2}}


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write_set(root, counts=COUNTS):
    """PNGs of noise as split/class/file -> the pixels (n, 3, SIZE, SIZE) and labels of each split, sorted."""
    written = {}
    for s, (split, classes) in enumerate(counts.items()):
        pixels = []
        for c, (label, count) in enumerate(classes.items()):
            (root / split / label).mkdir(parents=True)
            for i, image in enumerate(noise(count, SIZE, SIZE, 3, seed=10 * s + c)):
                Image.fromarray(image).save(root / split / label / f"{i:02}.png")
                pixels.append(image.transpose(2, 0, 1))
        labels = np.repeat(np.arange(len(classes)), list(classes.values()))
        written[split] = torch.from_numpy(np.array(pixels)), torch.from_numpy(labels)
    return written


def pack(root, split, mode="w", suffix=".tar", arcname="{0}"):
    """Put a split's folder into an archive beside it, in reversed order, and remove the folder."""
    with tarfile.open(root / f"{split}{suffix}", mode) as tar:
        for file in sorted(root.glob(f"{split}/*/*"), reverse=True):
            tar.add(file, f"{arcname.format(split)}/{file.parent.name}/{file.name}".lstrip("/"))
            file.unlink()
    for folder in (*root.glob(f"{split}/*"), root / split):
        folder.rmdir()


def assert_same(split, written):
    pixels, labels = written
    everything = split.take(torch.arange(len(split)))
    torch.testing.assert_close(everything.inputs, pixels, rtol=0, atol=0)
    assert torch.equal(everything.labels, labels) and everything.key_mask is None


@pytest.fixture
def on_disk(monkeypatch):
    monkeypatch.setattr(loading, "MEMORY", 0)


LAYOUTS = {
    "folders": lambda root: None,
    "tar": lambda root: [pack(root, split) for split in COUNTS],
    "tar without the split": lambda root: [pack(root, split, arcname="") for split in COUNTS],
    "tar with dots": lambda root: [pack(root, split, arcname="./{0}") for split in COUNTS],
    "tar.gz": lambda root: [pack(root, split, "w:gz", ".tar.gz") for split in COUNTS],
    "mixed": lambda root: pack(root, "train", "w:gz", ".tar.gz"),
    "val": lambda root: (root / "test").rename(root / "val"),
    "test without labels beside val": lambda root: ((root / "test").rename(root / "val"), (root / "test").mkdir()),
}


@pytest.mark.parametrize("memory", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_pixels_and_labels_of_each_layout(tmp_path, monkeypatch, layout, memory):
    written = write_set(tmp_path / "pets")
    (tmp_path / "pets" / "train" / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "pets" / "train" / "cat" / "._00.png").write_text("no image, either")
    (tmp_path / "pets" / "train" / ".checkpoints").mkdir()
    (tmp_path / "pets" / "train" / ".checkpoints" / "00.png").write_text("no image of a class")
    LAYOUTS[layout](tmp_path / "pets")
    monkeypatch.setattr(loading, "MEMORY", 3 * SIZE**2 * 12 - (not memory))  # just enough for 8 + 4 images, or not
    data = load_images("pets", tmp_path)
    assert isinstance(data.train, ImageStream) != memory
    assert_same(data.train, written["train"])
    assert_same(data.test, written["test"])
    assert data.classes == ("cat", "dog") and data.sizes == {"channels": 3, "size": SIZE, "classes": 2}


@pytest.mark.parametrize("layout", ["folders", "tar", "tar without the split", "tar.gz"])
def test_a_class_without_an_image_is_refused(tmp_path, layout):
    write_set(tmp_path / "pets")
    for file in (tmp_path / "pets" / "train" / "dog").glob("*"):
        file.rename(file.with_suffix(".heic"))
    LAYOUTS[layout](tmp_path / "pets")
    with pytest.raises(ValueError, match=r"expected images as CLASS/FILE; got dog/00.heic, and no image of dog"):
        load_images("pets", tmp_path)


def test_images_in_a_folder_below_their_class_are_refused(tmp_path):
    write_set(tmp_path / "pets")
    for file in (tmp_path / "pets" / "train" / "dog").glob("*"):
        file.parent.joinpath("images").mkdir(exist_ok=True)
        file.rename(file.parent / "images" / file.name)
    with pytest.raises(ValueError, match=r"train: expected images as CLASS/FILE; got dog/images, and no image of dog"):
        load_images("pets", tmp_path)


def test_jpeg_files_by_all_their_names(tmp_path):
    root = tmp_path / "pets"
    write_set(root)
    for suffix in ("jpg", "JPEG", "jpe", "jfif"):
        Image.fromarray(noise(SIZE, SIZE, 3)).save(root / "train" / "cat" / f"x.{suffix}", "jpeg")
    assert len(load_images("pets", tmp_path).train) == 8 + 4


def test_new_images_may_lie_in_a_hidden_folder_but_not_below_it(tmp_path):
    root = tmp_path / ".cache"
    write_set(root)
    (root / "train" / "cat").rename(root / "train" / ".cat")
    assert [*map(len, map(list_images, (map(root.joinpath, ("train", "test")))))] == [3, 4]


def test_statistics_are_those_of_the_training_pixels(tmp_path, monkeypatch):
    pixels = write_set(tmp_path / "pets")["train"][0].double().numpy() / 255
    for memory in (loading.MEMORY, 0):  # fewer images than the sample: exact on disk, too
        monkeypatch.setattr(loading, "MEMORY", memory)
        data = load_images("pets", tmp_path)
        np.testing.assert_allclose(data.mean, pixels.mean((0, 2, 3)), rtol=1e-14)
        np.testing.assert_allclose(data.deviation, pixels.std((0, 2, 3)), rtol=1e-12)
    inputs = standardised(data.train.take(torch.arange(8)).inputs, data.mean, data.deviation).double()
    torch.testing.assert_close(inputs.mean((0, 2, 3)), torch.zeros(3).double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(inputs.std((0, 2, 3), correction=0), torch.ones(3).double(), rtol=1e-6, atol=0)


def test_statistics_of_a_large_set_are_those_of_a_fixed_sample(tmp_path, monkeypatch, on_disk):
    pixels = write_set(tmp_path / "pets")["train"][0].double() / 255
    monkeypatch.setattr(loading, "STATISTICS", 3)
    monkeypatch.setattr(decoding, "PIECE", 2)
    first, second = (load_images("pets", tmp_path) for _ in range(2))
    assert first.mean == second.mean and first.deviation == second.deviation
    triples = torch.combinations(torch.arange(8), 3)
    distance = (pixels.mean((2, 3))[triples].mean(1) - torch.tensor(first.mean).double()).abs().amax(1)
    assert (distance < 1e-6).sum() == 1  # it is the mean of three of the eight images


def test_statistics_do_not_overflow():
    """The squares of 2^40 white pixels do not fit into 64 bits once they are multiplied by their number."""
    white = torch.full((1, 1, 1, 1), 255, dtype=torch.uint8)
    half = torch.cat([white, white * 0]).expand(-1, -1, 2**10, 2**10)
    mean, deviation = channel_statistics([half] * 8)
    assert mean == [0.5] and deviation == [0.5]


def test_standardised_takes_bytes_and_floats_and_keeps_constant_channels():
    x = torch.from_numpy(noise(2, 3, 5, 4))
    mean, deviation = [0.2, 0.3, 0.4], [0.5, 0.25, 0.0]
    expected = (x.numpy() / 255 - np.array(mean)[:, None, None]) / np.array([0.5, 0.25, 1.0])[:, None, None]
    np.testing.assert_allclose(standardised(x, mean, deviation), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(standardised(x, mean, deviation), standardised(scaled(x), mean, deviation))


def test_grey_palette_transparent_and_cmyk_images_among_colour(tmp_path):
    root = tmp_path / "pets"
    write_set(root)
    rgba, grey, index = noise(SIZE, SIZE, 4), noise(SIZE, SIZE), noise(SIZE, SIZE) % 16
    palette = noise(16, 3, seed=1)
    indexed = Image.fromarray(index)
    indexed.putpalette(palette.tobytes())
    folder = root / "train" / "ant"
    folder.mkdir()
    Image.fromarray(rgba).save(folder / "0.png")
    Image.fromarray(grey).save(folder / "1.png")
    Image.fromarray(np.dstack([grey, rgba[..., 3]])).save(folder / "2.png")
    indexed.save(folder / "3.png")
    indexed.save(folder / "4.png", transparency=bytes(range(16)))
    Image.fromarray(grey > 127).save(folder / "5.png")
    Image.fromarray(rgba[..., :3].copy()).convert("CMYK").save(folder / "6.tif")
    data = load_images("pets", tmp_path)
    assert data.classes == ("ant", "cat", "dog") and data.sizes["channels"] == 3
    three = np.dstack([grey] * 3)
    expected = [rgba[..., :3], three, three, palette[index], palette[index], (three > 127) * 255, rgba[..., :3]]
    np.testing.assert_array_equal(data.train.inputs[:7], np.array(expected).transpose(0, 3, 1, 2))


@pytest.mark.parametrize("colourful", [False, True])
def test_one_channel_if_no_image_has_colour(tmp_path, colourful):
    root = tmp_path / "marks"
    pixels = {}
    for split in ("train", "test"):
        for label in "ab":
            (root / split / label).mkdir(parents=True)
            pixels[split, label] = noise(SIZE, SIZE, seed=len(pixels))
            Image.fromarray(pixels[split, label]).save(root / split / label / "0.png")
    if colourful:  # one pixel of one test image, by one level
        image = np.dstack([pixels["test", "b"]] * 3)
        image[3, 4, 2] ^= 1
        Image.fromarray(image).save(root / "test" / "b" / "0.png")
    data = load_images("marks", tmp_path)
    channels = 3 if colourful else 1
    assert data.sizes["channels"] == channels == len(data.mean) and data.test.inputs.shape[1] == channels
    np.testing.assert_array_equal(data.train.inputs[:, 0], [pixels["train", "a"], pixels["train", "b"]])


def test_other_sizes_are_resized_by_their_shorter_side_and_cropped_at_the_centre(tmp_path):
    root = tmp_path / "pets"
    write_set(root)
    wide = Image.fromarray(noise(4 * SIZE, 60, 3))
    wide.save(root / "train" / "dog" / "wide.png")
    wide.transpose(Image.Transpose.TRANSPOSE).save(root / "train" / "dog" / "tall.png")
    expected = wide.resize((15, SIZE), Image.Resampling.BICUBIC).crop((4, 0, 4 + SIZE, SIZE))
    tall, wide = load_images("pets", tmp_path).train.inputs[-2:]
    np.testing.assert_array_equal(wide, np.array(expected).transpose(2, 0, 1))
    np.testing.assert_array_equal(tall, np.array(expected).transpose(2, 1, 0))
    data = load_images("pets", tmp_path, size=3)
    assert data.train.inputs.shape == (10, 3, 3, 3) and data.sizes["size"] == 3
    expected = Image.open(root / "train" / "cat" / "00.png").resize((3, 3), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(data.train.inputs[0], np.array(expected).transpose(2, 0, 1))


def png_of_16_bits(size):
    """A PNG in colour with 16 bits a channel, which PIL reads, but does not write."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", size, size, 16, 2, 0, 0, 0)
    rows = zlib.compress(b"".join(b"\0" + bytes(6 * size) for _ in range(size)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "16 bits", "16 bits in colour", "animated", "large"])
@pytest.mark.parametrize("memory", [True, False])
def test_a_corrupt_image_is_named_or_left_out(tmp_path, monkeypatch, damage, memory):
    root = tmp_path / "pets"
    pixels, labels = write_set(root)["train"]
    file = root / "train" / "cat" / "03.png"
    content = file.read_bytes()
    if damage == "16 bits":
        Image.fromarray(noise(SIZE, SIZE).astype(np.uint16) * 257).save(file)
    elif damage == "animated":
        frames = [Image.fromarray(noise(SIZE, SIZE, 3, seed=seed)) for seed in range(2)]
        frames[0].save(file, save_all=True, append_images=frames[1:])
    elif damage == "large":
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3 * SIZE**2)
        Image.fromarray(noise(2 * SIZE, 2 * SIZE, 3)).save(file)
    elif damage == "16 bits in colour":
        file.write_bytes(png_of_16_bits(SIZE))
    else:
        file.write_bytes({"truncated": content[: len(content) // 2], "empty": b"", "text": b"no image"}[damage])
    monkeypatch.setattr(loading, "MEMORY", loading.MEMORY * memory)
    with pytest.raises(ValueError, match=r"cat/03.png: expected an image .*; got .*; --skip-corrupt leaves"):
        load_images("pets", tmp_path)
    said = []
    data = load_images("pets", tmp_path, skip_corrupt=True, say=said.append)
    whole = torch.arange(8) != 3
    assert any("03.png" in line and "left out" in line for line in said)
    assert ("train: left out 1 corrupt images" in said) == memory
    batch = data.train.take(torch.arange(len(data.train)))
    assert torch.equal(batch.inputs, pixels[whole]) and torch.equal(batch.labels, labels[whole])
    np.testing.assert_allclose(data.mean, pixels[whole].double().mean((0, 2, 3)) / 255, rtol=1e-14)
    if not memory:
        assert data.train.take(torch.tensor([3])).inputs.shape == (0, 3, SIZE, SIZE)


def test_the_first_image_may_be_corrupt(tmp_path):
    write_set(tmp_path / "pets")
    (tmp_path / "pets" / "train" / "cat" / "00.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"cat/00.png: expected an image"):
        load_images("pets", tmp_path)
    assert len(load_images("pets", tmp_path, skip_corrupt=True).train) == 7


def test_nothing_whole(tmp_path):
    write_set(tmp_path / "pets")
    for file in tmp_path.glob("pets/test/*/*"):
        file.write_bytes(b"")
    with pytest.raises(ValueError, match="test: expected images; got 4, none of them whole"):
        load_images("pets", tmp_path, skip_corrupt=True)
    for file in tmp_path.glob("pets/train/*/*"):
        file.write_bytes(b"")
    with pytest.raises(ValueError, match="train: expected images; got 8, none of them whole"):
        load_images("pets", tmp_path, skip_corrupt=True)


@pytest.mark.parametrize("layout", ["folders", "tar", "tar.gz"])
def test_streams_serve_a_data_loader_and_its_workers(tmp_path, on_disk, layout):
    pixels, labels = write_set(tmp_path / "pets")["train"]
    LAYOUTS[layout](tmp_path / "pets")
    with Progress() as progress:
        stream = load_images("pets", tmp_path, say=partial(print, progress)).train
    assert_same(pickle.loads(pickle.dumps(stream)), (pixels, labels))  # as a spawned worker gets it
    index = torch.tensor([6, 0, 3, 7, 1])
    loader = torch.utils.data.DataLoader(stream, sampler=index.split(2), batch_size=None)
    batches = list(loader)
    assert torch.equal(torch.cat([batch.inputs for batch in batches]), pixels[index])
    assert torch.equal(torch.cat([batch.labels for batch in batches]), labels[index])


def test_folds_of_a_set_on_disk_stay_there(tmp_path, monkeypatch):
    pixels, labels = write_set(tmp_path / "pets")["train"]
    monkeypatch.setattr(loading, "MEMORY", 0)
    data = load_images("pets", tmp_path)
    monkeypatch.setattr(ImageDecoder, "decode", None)
    parts = list(folds(data, 2))
    monkeypatch.undo()
    for part in parts:
        train, test = (split.take(torch.arange(len(split))) for split in (part.train, part.test))
        assert isinstance(part.train, ImageStream) and len(part.train) + len(part.test) == len(labels)
        assert_same(pickle.loads(pickle.dumps(part.test)), (test.inputs, test.labels))
        found = torch.cat([train.inputs, test.inputs]), torch.cat([train.labels, test.labels])
        for image, label in zip(*found, strict=True):
            (i,) = (pixels == image).flatten(1).all(1).nonzero()
            assert labels[i] == label
    assert not torch.equal(*(part.test.take(torch.arange(2)).inputs for part in parts))


def write_cifar(folder, records=4, classes=("bird", "cat", "automobile")):
    """-> pixels (n, 3, 32, 32) and names of labels of both splits."""
    folder.mkdir(parents=True)
    content = noise(6, records, 3073)
    content[:, :, 0] %= len(classes)
    for i, name in enumerate([*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]):
        content[i].tofile(folder / name)
    (folder / "batches.meta.txt").write_text("\n".join(classes) + "\n\n")
    names = np.array(classes)[content[:, :, 0]]
    pixels = content[:, :, 1:].reshape(6, records, 3, 32, 32)
    return (pixels[:5].reshape(-1, 3, 32, 32), names[:5].flatten()), (pixels[5], names[5])


@pytest.mark.parametrize("inside", [".", "cifar-10-batches-bin"])
def test_cifar(tmp_path, inside):
    train, test = write_cifar(tmp_path / "cifar" / inside)
    data = load_images("cifar", tmp_path)
    assert data.classes == ("automobile", "bird", "cat")
    assert data.sizes == {"channels": 3, "size": 32, "classes": 3}
    for split, (pixels, names) in ((data.train, train), (data.test, test)):
        np.testing.assert_array_equal(split.inputs, pixels)
        assert [data.classes[i] for i in split.labels] == list(names)


def test_digits():
    from sklearn.datasets import load_digits

    data = load_images("digits")
    assert (len(data.train), len(data.test)) == (1201, 596)
    assert data.sizes == {"channels": 1, "size": 8, "classes": 10} and data.classes == tuple("0123456789")
    original = load_digits()
    both = np.concatenate([data.train.inputs[:, 0], data.test.inputs[:, 0]]) / 255 * 16
    assert np.abs(both - both.round()).max() < 0.04  # levels of 8 bits are finer than the 17 of the digits
    rows = np.column_stack([both.round().reshape(-1, 64), np.concatenate([data.train.labels, data.test.labels])])
    expected = np.column_stack([original.data, original.target])
    np.testing.assert_array_equal(rows[np.lexsort(rows.T)], expected[np.lexsort(expected.T)])
    share = data.test.labels.bincount().numpy() / np.bincount(original.target)
    assert np.abs(share - 1 / 3).max() < 0.004


BAD = {
    "no folder": (lambda root: root.rename(root.parent / "elsewhere"), "pets: no such folder"),
    "no training split": (lambda root: (root / "train").rename(root / "training"), "expected train as a folder"),
    "no test split": (lambda root: (root / "test").rename(root / "testing"), "expected test or val as a folder"),
    "an empty split": (lambda root: [f.unlink() for f in root.glob("test/*/*")], "test: expected images as CLASS/FILE"),
    "no images": (lambda root: [f.rename(f.with_suffix(".npy")) for f in root.glob("train/*/*")], "train: expected im"),
    "one class": (lambda root: [f.unlink() for f in root.glob("*/dog/*")], "expected two classes or more; got cat"),
    "a class unseen in training": (
        lambda root: (root / "test" / "dog").rename(root / "test" / "fox"),
        "expected the labels of the training split, cat, dog; got fox in test",
    ),
    "a tar that is none": (
        lambda root: ((root / "train").rename(root / "x"), (root / "train.tar").write_bytes(b"no tar" * 200)),
        "train.tar: expected a tar archive; got",
    ),
    "a gz that is none": (
        lambda root: ((root / "train").rename(root / "x"), (root / "train.tar.gz").write_bytes(b"no gz")),
        "train.tar.gz: expected a .tar.gz archive; got",
    ),
    "a tar cut short": (
        lambda root: (pack(root, "train"), (root / "train.tar").write_bytes((root / "train.tar").read_bytes()[:600])),
        "train.tar: expected a tar archive; got",
    ),
    "a gz cut short": (
        lambda root: (
            pack(root, "train", "w:gz", ".tar.gz"),
            (root / "train.tar.gz").write_bytes((root / "train.tar.gz").read_bytes()[:-9]),
        ),
        "train.tar.gz: expected a .tar.gz archive; got",
    ),
    "another layout": (
        lambda root: pack(root, "train", arcname="pets/{0}"),
        "expected members train/CLASS/FILE; got pets/train/dog/02.png",
    ),
    "no classes": (
        lambda root: (tarfile.open(root / "test.tar", "w").close(), (root / "test").rename(root / "x")),
        "test.tar: expected images as CLASS/FILE; got none",
    ),
    "Python's CIFAR-10": (lambda root: (root / "data_batch_1").touch(), "expected CIFAR-10's binary version"),
    "not square": (
        lambda root: Image.new("RGB", (4, 5)).save(root / "train" / "cat" / "00.png"),
        "00.png: expected a square image, or --size; got 4 x 5",
    ),
}


@pytest.mark.parametrize("memory", [True, False])
@pytest.mark.parametrize("case", BAD)
def test_what_is_missing_or_malformed(tmp_path, monkeypatch, case, memory):
    damage, message = BAD[case]
    write_set(tmp_path / "pets")
    damage(tmp_path / "pets")
    monkeypatch.setattr(loading, "MEMORY", loading.MEMORY * memory)
    with pytest.raises(ValueError, match=message) as error:
        load_images("pets", tmp_path)
    assert "\n" not in str(error.value)


def test_a_large_gz_must_be_unpacked(tmp_path, monkeypatch):
    write_set(tmp_path / "pets")
    pack(tmp_path / "pets", "train", "w:gz", ".tar.gz")
    unpacked = len(gzip.decompress((tmp_path / "pets" / "train.tar.gz").read_bytes()))
    monkeypatch.setattr(gzip_files, "MEMORY", unpacked)
    load_images("pets", tmp_path)
    monkeypatch.setattr(gzip_files, "MEMORY", unpacked - 1)
    with pytest.raises(ValueError, match=r"expected at most .* bytes unpacked; got more. Try gunzip .*train.tar.gz"):
        load_images("pets", tmp_path)


def test_malformed_cifar(tmp_path):
    folder = tmp_path / "cifar"
    write_cifar(folder)
    content = (folder / "data_batch_3.bin").read_bytes()
    (folder / "data_batch_3.bin").write_bytes(content[:-1])
    with pytest.raises(ValueError, match=r"data_batch_3.bin: expected records of 3073 bytes .* got 12291 bytes"):
        load_images("cifar", tmp_path)
    (folder / "data_batch_3.bin").write_bytes(b"\3" + content[1:])
    with pytest.raises(ValueError, match="labels below 3; got 12292 bytes and labels up to 3"):
        load_images("cifar", tmp_path)
    (folder / "data_batch_3.bin").unlink()
    with pytest.raises(ValueError, match=r"data_batch_3.bin: no such file"):
        load_images("cifar", tmp_path)


def test_ones_own_digits(tmp_path):
    write_set(tmp_path / "digits")
    assert load_images("digits", tmp_path).classes == ("cat", "dog")
    assert load_images("digits", tmp_path / "elsewhere").classes == tuple("0123456789")


def test_bad_arguments():
    with pytest.raises(ValueError, match="pets: expected --data"):
        load_images("pets")
    with pytest.raises(ValueError, match="size: expected 1 or more; got 0"):
        load_images("digits", size=0)
