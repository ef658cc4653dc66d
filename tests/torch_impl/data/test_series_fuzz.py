"""Damaged .ts files: an error that names the file, or exactly what the text says; nothing else ever."""

import random
import re

import numpy as np
import pytest

from torch_impl.data.series import load_new_series, load_series

HEADER = """#Small, and valid
@problemName Own
@timeStamps false
@missing {missing}
@univariate {univariate}
@dimensions {features}
@equalLength {equal}
@classLabel {classes}
@data
"""
VALID = {
    "equal": (
        dict(missing="false", univariate="false", features=2, equal="true", classes="true a B"),
        "1,-2.5,3e1:4,5,6:a\n.7,8,9:-1,-2,1E-1:B\n1,1,2:3,5,8:a\n0,1,0:2,0.25,7:B\n",
    ),
    "unequal": (
        dict(missing="false", univariate="false", features=2, equal="false", classes="true 1 2"),
        "1,2,3:4,5,6:1\n3,2:-1.5,0:2\n12:21:1\n9,8,7,6:6,5,4,3.125:2\n",
    ),
    "missing": (
        dict(missing="true", univariate="true", features=1, equal="false", classes="true nan banana"),
        "1,?,3:nan\n?:banana\n-4.5,NaN,6,7:nan\n0.125,2:banana\n",
    ),
    "unlabelled": (
        dict(missing="true", univariate="false", features=3, equal="true", classes="false"),
        "1,2:3,4:5,6\n7,8:?,10:11,-12\n1e2,1e-2:2,2:0,0\n",
    ),
}
NUMBER = re.compile(r"[ \t]*([+-]?)(?:(\d+\.?\d*(?:e[+-]?\d+)?|\.\d+(?:e[+-]?\d+)?)|nan|\?)[ \t]*", re.ASCII)
LINE_ENDS = re.compile("\r\n|\r|\n")


def valid(kind):
    header, cases = VALID[kind]
    return (HEADER.format(**header) + cases).encode()


def says(content):
    """What a .ts file says, read by regular expressions: cases (n_i, features) and labels; None if it is malformed."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    lines = [line.strip().lower() for line in LINE_ENDS.split(text)]
    lines = lines[:-1] if text.endswith(("\r", "\n")) else lines
    if "@data" not in lines:
        return None
    start = lines.index("@data")
    tags = [line.split() for line in lines[:start] if line]
    first = next((i for i, tag in enumerate(tags) if tag[0][0] == "@"), 0)
    if any(tag[0][0] not in "@#" for tag in tags[first:]):
        return None
    if ["@problemname"] in tags[first:]:
        return None
    told = {"@timestamps": "false", "@targetlabel": "false", "@univariate": "true", "@equallength": "true"}
    for name, *words in tags[first:]:
        if name in (*told, "@missing") and len(words) != 1:
            return None
        if name in told and words[0] in ("true", "false"):
            told[name] = words[0]
    stated = [words for name, *words in tags if name == "@classlabel"]
    if told["@timestamps"] == "true" or told["@targetlabel"] == "true":
        return None
    if not stated or any(words[:1] != ["false"] and (words[:1] != ["true"] or words == ["true"]) for words in stated):
        return None
    labelled, *classes = stated[-1]
    as_written = [words.strip() for words in LINE_ENDS.split(text)]
    names = [words.split()[1:] for words in as_written if words.lower().startswith("@classlabel")]
    if any(len({*map(str.lower, words)}) < len({*words}) for words in names):
        return None
    cases, labels = [], []
    for line in lines[start + 1 :]:
        *features, label = line.split(":") if labelled == "true" else (*line.split(":"), "?")
        if labelled == "true" and label.strip() not in classes:
            return None
        matches = [[NUMBER.fullmatch(number) for number in feature.split(",")] for feature in features]
        if not matches or not all(map(all, matches)) or len(set(map(len, matches))) > 1:
            return None
        numbers = [[float(each[1] + each[2]) if each[2] else np.nan for each in feature] for feature in matches]
        cases.append(np.array(numbers).T)
        labels.append(label.strip())
    same_length = len({len(case) for case in cases}) == 1 or told["@equallength"] == "false"
    same_features = len({case.shape[1] for case in cases}) == 1
    as_many_as_told = told["@univariate"] == "false" or len(cases) == 1 or (cases and cases[0].shape[1] == 1)
    in_range = all((np.isnan(case) | (np.abs(case) <= 1e20)).all() for case in cases)
    return (cases, labels) if cases and same_length and same_features and as_many_as_told and in_range else None


def flip(content, dice):
    place = dice.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << dice.randrange(8)]) + content[place + 1 :]


def delete(content, dice):
    place = dice.randrange(len(content))
    return content[:place] + content[place + dice.randint(1, 4) :]


def insert(content, dice):
    place = dice.randrange(len(content) + 1)
    token = dice.choice(
        [b"\r", b"\n", b" ", b"\t", b",", b":", b"?", b"-", b"_", b"e", b"1", b"9", b"inf", b"nan", b"a"]
    )
    token = dice.choice(
        [token, token, bytes([dice.randrange(256)]), "\u0661\u00a0\ufeff".encode()[dice.randrange(6) :]]
    )
    return content[:place] + token + content[place:]


def truncate(content, dice):
    return content[: dice.randint(1, len(content))]


def lose_a_line(content, dice):
    lines = content.splitlines(keepends=True)
    lines.pop(dice.randrange(len(lines)))
    return b"".join(lines)


def double_a_line(content, dice):
    lines = content.splitlines(keepends=True)
    line = dice.choice(lines)
    lines.insert(dice.randint(0, len(lines)), line)
    return b"".join(lines)


def cut_a_line(content, dice):
    lines = content.splitlines(keepends=True)
    place = dice.randrange(len(lines))
    lines[place] = lines[place][: dice.randrange(len(lines[place]))] + b"\n"
    return b"".join(lines)


def change_the_header(content, dice):
    words = [b"true", b"false", b"@", b"Label", b"Length", b"time", b"class", b"@data\n", b" a", b" 1", b"@uni", b"#"]
    return content.replace(dice.choice(words), dice.choice([b"true", b"false", b"", b"@targetLabel true\n", b" b"]), 1)


DAMAGES = (flip, delete, insert, truncate, lose_a_line, double_a_line, cut_a_line, change_the_header)


def damaged(seed):
    """A kind of file, and its content with one to three damages."""
    dice = random.Random(seed)
    kind = dice.choice(list(VALID))
    content = valid(kind)
    for damage in dice.choices(DAMAGES, k=dice.randint(1, 3)):
        content = damage(content, dice) or b"\n"
    return kind, content


def read(call, *arguments):
    """What is read, or the message of a ValueError, which is one line."""
    try:
        return call(*arguments), None
    except ValueError as error:
        assert type(error) is ValueError and "\n" not in str(error) and "\r" not in str(error), repr(error)
        return None, str(error)


def plain(features, length=100):
    """What load_new_series must know, such that it changes no number."""
    return dict(sizes=dict(features=features, length=length), mean=[0.0] * features, deviation=[1.0] * features)


def assert_says(inputs, key_mask, cases, mean=0.0, deviation=1.0):
    for i, case in enumerate(cases):
        valid = slice(None) if key_mask is None else key_mask[i]
        expected = np.nan_to_num((case - mean) / deviation).astype(np.float32)
        np.testing.assert_array_equal(inputs[i][valid].numpy(), expected)
    assert len(inputs) == len(cases)


def write(folder, split, content):
    path = folder / "Own" / f"Own_{split}.ts"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("kind", VALID)
def test_valid_files_are_read(kind, tmp_path):
    cases, _ = says(valid(kind))
    assert_says(*load_new_series(write(tmp_path, "TEST", valid(kind)), plain(cases[0].shape[1])), cases)


@pytest.mark.parametrize("part", range(10))
def test_damaged_files_are_refused_or_read_as_they_are(part, tmp_path):
    kept = 0
    for seed in range(100 * part, 100 * part + 100):
        kind, content = damaged(seed)
        said = says(content)
        features = VALID[kind][0]["features"]
        path = write(tmp_path, "TEST", content)
        found, message = read(load_new_series, path, plain(features))
        if said is None or said[0][0].shape[1] != features:
            assert message is not None and str(path) in message, (seed, content, found, message)
        else:
            assert message is None, (seed, content, message)
            assert_says(*found, said[0])
            kept += 1
    assert 10 <= kept <= 90


@pytest.mark.parametrize("part", range(10))
def test_damaged_training_splits_give_the_labels_and_statistics_of_their_text(part, tmp_path):
    kept = 0
    for seed in range(100 * part, 100 * part + 100):
        kind, content = damaged(seed)
        said = says(content)
        test = content if said else valid(kind)  # of the same features and labels
        write(tmp_path, "TEST", test)
        path = write(tmp_path, "TRAIN", content)
        found, message = read(load_series, "Own", tmp_path)
        if said is None:
            assert message is not None and str(path) in message, (seed, content, found, message)
            continue
        cases, labels = said
        tokens = np.concatenate(cases)
        if np.isnan(tokens).all(0).any() or len(set(labels)) < 2:
            assert message is not None and "Own" in message, (seed, content, found)
            continue
        assert message is None, (seed, content, message)
        mean, deviation = np.nanmean(tokens, 0), np.nanstd(tokens, 0)
        assert_says(*found.train[:2], cases, mean, np.where(deviation > 0, deviation, 1))
        assert [found.classes[label] for label in found.train.labels] == labels
        kept += 1
    assert 10 <= kept <= 90
