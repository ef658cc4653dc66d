"""The tasks of the Long Range Arena: expressions against an evaluator of their own, bytes, and luma against PIL."""

import ast
import gzip
import hashlib
import json
import random
import statistics

import numpy as np
import pytest
import torch
from PIL import Image

from torch_impl.data.dataset import DataSet, Split
from torch_impl.data.long_range_arena.listops import expressions
from torch_impl.data.long_range_arena.tasks import load_lra, pixels

OPERATORS = {
    "[MIN": min,
    "[MAX": max,
    "[MED": lambda numbers: int(statistics.median(numbers)),
    "[SM": lambda numbers: sum(numbers) % 10,
}
WORDS = [*"0123456789", *OPERATORS, "]"]
DIGEST = "0e211f3c2be10948b06e3edbb472d5e4f9e1ba7b86dc009770beef6579873883"  # of 100 expressions, their values


def parse(tokens):
    """Tokens -> a tree: a digit, or (operator, argument, ...). Python reads it as a literal."""
    literal = {"]": "),"} | {digit: f"{digit}," for digit in "0123456789"} | {name: f"('{name}'," for name in OPERATORS}
    (tree,) = ast.literal_eval("".join(literal[WORDS[token]] for token in tokens))
    return tree


def evaluate(tree):
    return tree if isinstance(tree, int) else OPERATORS[tree[0]]([evaluate(each) for each in tree[1:]])


def published(tree):
    """As the benchmark writes it: ( ( ( [MAX 4 ) 3 ) ] )."""
    if isinstance(tree, int):
        return str(tree)
    text = tree[0]
    for each in (*map(published, tree[1:]), "]"):
        text = f"( {text} {each} )"
    return text


def nodes(tree, depth=1):
    """(operator or digit, arguments, depth) of each node."""
    if isinstance(tree, int):
        yield tree, 0, depth
    else:
        yield tree[0], len(tree) - 1, depth
        for each in tree[1:]:
            yield from nodes(each, depth + 1)


def grow(dice, depth=1):
    """A random expression, as its definition says."""
    if depth == 10 or dice.random() > 0.25:
        return dice.randrange(10)
    arguments = [grow(dice, depth + 1) for _ in range(dice.randint(2, 10))]
    return dice.choice(list(OPERATORS)), *arguments


def test_expressions_have_their_values_and_the_published_limits():
    rows, values = expressions(250)
    trees = list(map(parse, rows))
    assert list(map(evaluate, trees)) == values
    assert all(500 < len(row) < 2000 for row in rows) and len(set(rows)) == 250
    words, counts, depths = zip(*(node for tree in trees for node in nodes(tree)), strict=True)
    assert set(words) == {*range(10), *OPERATORS} and set(counts) == {0, *range(2, 11)} and max(depths) == 10


def test_expressions_have_the_distribution_of_the_definition():
    """Means over trees differ from those of a plain recursion by chance only: at most four standard errors."""
    dice, grown = random.Random(1), []
    while len(grown) < 400:
        tree = grow(dice)
        if 500 < sum(1 if count == 0 else 2 for _, count, _ in nodes(tree)) < 2000:
            grown.append(tree)

    def measured(tree):
        words, counts, depths = zip(*nodes(tree), strict=True)
        operators = [word for word in words if word in OPERATORS]
        shares = [operators.count(name) / len(operators) for name in OPERATORS]
        digits = statistics.mean(word for word in words if word not in OPERATORS)
        ends = [isinstance(child, int) for child in (tree[1], tree[-1])]
        sizes = [len(words), len(operators) / len(words), len(tree) - 1, sum(counts) / len(operators)]
        return [*sizes, *shares, *ends, digits, np.mean(depths), depths.count(10) / len(words), evaluate(tree)]

    ours, theirs = (np.array(list(map(measured, trees))) for trees in (map(parse, expressions(400)[0]), grown))
    error = np.sqrt((ours.var(0) + theirs.var(0)) / 400)
    assert (np.abs(ours.mean(0) - theirs.mean(0)) < 4 * error).all()


def test_expressions_are_the_same_everywhere():
    said = []
    rows, values = expressions(100, say=said.append)
    assert hashlib.sha256(b"\n".join(rows) + bytes(values)).hexdigest() == DIGEST
    assert expressions(30) == (rows[:30], values[:30]) != expressions(30, seed=1)
    assert said[-1] == "ListOps: 100 of 100 expressions"


def test_short_expressions():
    rows, values = expressions(2000, 32)
    assert len(set(rows)) == 2000 and {len(row) for row in rows} == set(range(9, 32))
    assert [evaluate(parse(row)) for row in rows] == values


def test_listops_is_a_data_set():
    data = load_lra("ListOps", length=64, cases=30)
    assert data.name == "ListOps-64-30cases" and data.classes == tuple("0123456789")
    assert data.sizes == dict(vocabulary=16, length=64, classes=10) and data.mean == data.deviation == []
    for split in (data.train, data.test):
        assert split.inputs.shape == (30, 64) and split.inputs.dtype == torch.uint8
        assert (split.inputs > 0).equal(split.key_mask) and split.inputs.max() == 15
        for inputs, mask, label in zip(*split, strict=True):
            assert mask[: mask.sum()].all() and evaluate(parse(inputs[mask] - 1)) == label
    again = load_lra("ListOps", length=64, cases=30)
    assert all(a.equal(b) for split in (1, 2) for a, b in zip(data[split], again[split], strict=True))
    assert not set(map(tuple, data.train.inputs.tolist())) & set(map(tuple, data.test.inputs.tolist()))
    more = load_lra("ListOps", length=64, cases=2000)  # the same test split, whatever the number for training
    assert len(more.test) == 2000 and more.train.inputs[:30].equal(data.train.inputs)
    assert set(map(tuple, data.test.inputs.tolist())) < set(map(tuple, more.test.inputs.tolist()))


def write_listops(folder, train=None, test=None):
    folder.mkdir(exist_ok=True)
    trees = list(map(parse, expressions(6)[0]))
    lines = [f"{published(tree)}\t{evaluate(tree)}" for tree in trees]
    for split, given in (("train", train or lines[:4]), ("test", test or lines[4:])):
        text = "\r\n".join(["Source\tTarget", *given]) + "\r\n"
        (folder / f"basic_{split}.tsv").write_bytes(text.encode())
    return trees


@pytest.mark.parametrize("where", ["", "listops"])
def test_listops_from_the_published_files(where, tmp_path):
    trees = write_listops(tmp_path / where)
    assert published(("[MAX", 4, 3)) == "( ( ( [MAX 4 ) 3 ) ] )"
    data = load_lra("ListOps", tmp_path)
    assert data.name == "ListOps" and len(data.train) == 4 and data.train.inputs.shape == (4, 2000)
    read = [parse(row[row > 0] - 1) for split in (data.train, data.test) for row in split.inputs]
    assert read == trees and data.test.labels.tolist() == list(map(evaluate, trees[4:]))
    few = load_lra("ListOps", tmp_path, cases=3)
    assert few.name == "ListOps-3cases" and (len(few.train), len(few.test)) == (3, 2)
    assert len(load_lra("ListOps", tmp_path, length=100, cases=10).train) == 10  # generated


LONG = "( " * 2000 + "[SM" + " 1 )" * 1999 + " ] )\t9"


@pytest.mark.parametrize(
    "line, message",
    [
        ("( ( ( [MAX 4 ) 3 ) ] )", r"basic_train\.tsv, line 3: expected a whole expression, a tab and a digit; got b'"),
        ("( ( ( [MAX 4 ) 3 ) ] )\t10", "line 3: "),
        ("( ( ( [MAX 4 ) 3 ) ] )\t]", "line 3: "),
        ("( ( ( [MAX 4 ) 3 )\t4", "line 3: "),
        ("3 ) ] )\t4", "line 3: "),
        ("( ( ( [MAX 4 ) 3 ) ] ) ( [MIN 3 ] )\t4", "line 3: "),
        ("( ( ( [MAX 4 ) 13 ) ] )\t4", "line 3: "),
        ("( ( ( [AVG 4 ) 3 ) ] )\t4", "line 3: "),
        ("( ( ( [MAX 4 ) 3 ) } )\t4", "line 3: "),
        ("\t4", "line 3: "),
        ("", "line 3: "),
        ("Source\tTarget", "line 3: "),
        (LONG, r"line 3: expected fewer than 2000 tokens, as published; got 2001"),
    ],
)
def test_bad_expressions(line, message, tmp_path):
    write_listops(tmp_path, train=["( ( ( [MAX 4 ) 3 ) ] )\t4", line, "( ( ( [MAX 4 ) 3 ) ] )\t4"])
    with pytest.raises(ValueError, match=message) as error:
        load_lra("ListOps", tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("split", ["train", "test"])
def test_missing_and_empty_files_of_expressions(split, tmp_path):
    write_listops(tmp_path)
    path = tmp_path / f"basic_{split}.tsv"
    path.write_text("Source\tTarget\n")
    with pytest.raises(ValueError, match=rf"basic_{split}\.tsv: expected expressions; got none"):
        load_lra("ListOps", tmp_path)
    path.unlink()
    with pytest.raises(ValueError, match=rf"basic_{split}\.tsv: no such file"):
        load_lra("ListOps", tmp_path)


TEXTS = {"train": [("Caf\u00e9\0\n", 1), ("no", 0), ("yes!", 1)], "test": [("\u263a" * 5, 1), ("bad", 0)]}


def write_text(folder, texts=TEXTS):
    folder.mkdir(exist_ok=True)
    for split, cases in texts.items():
        lines = [json.dumps({"id": i, "label": label, "text": text}) for i, (text, label) in enumerate(cases)]
        (folder / f"{split}.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))


def write_text_files(folder, texts=TEXTS):
    for split, cases in texts.items():
        for sentiment in ("neg", "pos", "unsup"):
            (folder / split / sentiment).mkdir(parents=True)
        for i, (text, label) in enumerate(cases):
            (folder / split / ("neg", "pos")[label] / f"{i}_7.txt").write_bytes(text.encode())
        (folder / split / "unsup" / "0_0.txt").write_text("not used")


@pytest.mark.parametrize(
    "write, where", [(write_text, ""), (write_text, "imdb"), (write_text_files, ""), (write_text_files, "aclImdb")]
)
def test_text_is_bytes(write, where, tmp_path):
    write(tmp_path / where)
    said = []
    data = load_lra("Text", tmp_path, length=7, say=said.append)
    assert data.name == "Text-7" and data.classes == ("neg", "pos") and said[0] == "Text: 3 reviews for train"
    assert data.sizes == dict(vocabulary=257, length=7, classes=2) and data.mean == data.deviation == []
    for split, name in ((data.train, "train"), (data.test, "test")):
        assert split.inputs.dtype == torch.int16 and split.inputs.shape == (len(TEXTS[name]), 7)
        read = [
            (bytes((row[mask] - 1).tolist()), int(label), mask[: mask.sum()].all() and (row[~mask] == 0).all())
            for row, mask, label in zip(*split, strict=True)
        ]
        assert sorted(read) == sorted((text.encode()[:7], label, True) for text, label in TEXTS[name])
    assert load_lra("Text", tmp_path).train.inputs.shape == (3, 4000) and load_lra("Text", tmp_path).name == "Text"
    assert load_lra("Text", tmp_path, length=2).train.key_mask is None


def test_texts_are_in_the_order_of_their_names(tmp_path):
    """Not in that of the file system, which would draw other cases on another machine."""
    texts = [(f"{i:02}", i % 2) for i in range(100)]
    write_text_files(tmp_path, dict(train=texts[::-1], test=texts))
    data = load_lra("Text", tmp_path)
    read = [int(bytes((row[:2] - 1).tolist())) for row in data.test.inputs]
    assert read == sorted(range(100), key=lambda i: (i % 2, f"{i}_7.txt"))


def test_fewer_texts_are_drawn_from_all(tmp_path):
    """The files are sorted by label, so that the first ones would be of one class."""
    write_text(tmp_path, {split: [(f"{i:03}", int(i >= 100)) for i in range(200)] for split in ("train", "test")})
    data, again = (load_lra("Text", tmp_path, length=3, cases=50) for _ in range(2))
    assert data.name == "Text-3-50cases" and data.train.inputs.equal(again.train.inputs)
    assert len(data.train) == len(data.test) == 50 and 10 < data.train.labels.sum() < 40
    numbers = [int(bytes((row - 1).tolist())) for row in data.train.inputs]
    assert len(set(numbers)) == 50 and data.train.labels.tolist() == [int(i >= 100) for i in numbers]


@pytest.mark.parametrize(
    "line",
    [
        b'{"text": "a", "label": 2}',
        b'{"text": "a", "label": "1"}',
        b'{"text": "a"}',
        b'{"text": "", "label": 1}',
        b'{"text": 3, "label": 1}',
        b'{"text": "\xff", "label": 1}',
        b'{"text": "\\ud800", "label": 1}',
        b'{"text',
        b"[]",
        b"",
    ],
)
def test_bad_reviews(line, tmp_path):
    write_text(tmp_path)
    lines = [b'{"text": "a", "label": 1}', line, b'{"text": "b", "label": 0}']
    (tmp_path / "test.jsonl.gz").write_bytes(gzip.compress(b"\n".join(lines)))
    with pytest.raises(ValueError, match=r"test\.jsonl\.gz, line 2: expected JSON with a text") as error:
        load_lra("Text", tmp_path)
    assert "\n" not in str(error.value)


def test_damaged_and_missing_files_of_reviews(tmp_path):
    write_text(tmp_path)
    path = tmp_path / "train.jsonl.gz"
    whole = path.read_bytes()
    middle = len(whole) // 2
    for content in (whole[:middle], whole[:-3], whole[:middle] + b"\0\0\0\0" + whole[middle + 4 :], b"not gzip"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"train\.jsonl\.gz(: expected a whole gzip file|, line \d)"):
            load_lra("Text", tmp_path)
    path.write_bytes(gzip.compress(b""))
    with pytest.raises(ValueError, match=r"train\.jsonl\.gz: expected reviews; got none"):
        load_lra("Text", tmp_path)
    path.unlink()
    with pytest.raises(ValueError, match=r"neg: expected reviews, \*\.txt, or else .*train\.jsonl\.gz; got neither"):
        load_lra("Text", tmp_path)
    write_text_files(tmp_path / "aclImdb", {"train": [("", 0), ("a", 1)]})
    with pytest.raises(ValueError, match=r"0_7\.txt: expected a text; got an empty file"):
        load_lra("Text", tmp_path)


def test_luma_is_that_of_pil_for_every_colour():
    colours = torch.arange(256, dtype=torch.uint8)
    images = torch.stack(torch.meshgrid(colours, colours, colours, indexing="ij")).reshape(3, 4096, 4096)
    split = Split(images[None], None, torch.tensor([0]))
    data = pixels(DataSet("all", split, split, ("a", "b"), dict(channels=3, size=4096, classes=2), [0.5], [0.1]))
    expected = np.asarray(Image.fromarray(images.permute(1, 2, 0).numpy()).convert("L"))
    assert data.train.inputs.dtype == torch.uint8
    np.testing.assert_array_equal(data.train.inputs[0].numpy(), expected.reshape(-1))
    assert data.sizes == dict(vocabulary=256, length=4096**2, classes=2) and data.mean == data.deviation == []


@pytest.mark.parametrize("images", [torch.zeros(2, 3, 4, 5), torch.zeros(2, 1, 4, 5, dtype=torch.uint8)])
def test_pixels_need_colours_in_bytes(images):
    split = Split(images, None, torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r"images: expected uint8 \(n, 3, H, W\); got torch\.(float32|uint8) \(2, "):
        pixels(DataSet("grey", split, split, ("a", "b"), {}, [], []))


def test_cifar10_as_grey_pixels(tmp_path):
    rng, folder = np.random.default_rng(0), tmp_path / "cifar10"
    folder.mkdir()
    records = {f"data_batch_{i}": rng.integers(256, size=(4, 3073), dtype=np.uint8) for i in range(1, 6)}
    records["test_batch"] = rng.integers(256, size=(3, 3073), dtype=np.uint8)
    for i, (name, record) in enumerate(records.items()):
        record[:, 0] = (np.arange(len(record)) + 4 * i) % 10
        (folder / f"{name}.bin").write_bytes(record.tobytes())
    (folder / "batches.meta.txt").write_text("\n".join(f"class{i}" for i in range(10)) + "\n")
    data = load_lra("PixelCIFAR10", tmp_path)
    assert data.name == "PixelCIFAR10" and data.sizes == dict(vocabulary=256, length=1024, classes=10)
    for split, record in (
        (data.train, np.concatenate([records[f"data_batch_{i}"] for i in range(1, 6)])),
        (data.test, records["test_batch"]),
    ):
        colours = record[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        grey = [np.asarray(Image.fromarray(image).convert("L")).reshape(-1) for image in colours]
        np.testing.assert_array_equal(split.inputs.numpy(), grey)
        assert split.key_mask is None and split.labels.tolist() == record[:, 0].tolist()
    assert len(load_lra("PixelCIFAR10", tmp_path, cases=7).train) == 7


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("Retrieval", {}, "name: expected one of ListOps, Text, PixelCIFAR10; got 'Retrieval'"),
        ("Text", dict(length=0), "length: expected 1 or more; got 0"),
        ("ListOps", dict(cases=0), "cases: expected 1 or more; got 0"),
        ("ListOps", dict(length=31), "length: expected 32 to 8000 for ListOps; got 31"),
        ("ListOps", dict(length=8001), "length: expected 32 to 8000 for ListOps; got 8001"),
        ("Text", {}, "Text: expected --data, the folder of its files; got none"),
        ("PixelCIFAR10", {}, "PixelCIFAR10: expected --data, the folder of its files; got none"),
        ("PixelCIFAR10", dict(folder=".", length=512), "length: expected 1024, the pixels of an image; got 512"),
        ("Text", dict(folder="no such folder"), "no such folder: expected a folder of Text; got none"),
    ],
)
def test_bad_arguments(name, options, message):
    with pytest.raises(ValueError, match=message):
        load_lra(name, **options)
