"""IMDb's reviews (Maas et al., ACL 2011) as bytes, from two JSON files or from the original folders."""

import gzip
import zlib
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from torch_impl.data.messages import quoted_ends

SENTIMENTS = ("neg", "pos")


class Review(msgspec.Struct):
    """A line of the JSON files."""

    text: Annotated[str, msgspec.Meta(min_length=1)]
    label: Literal[0, 1]


def read_reviews(folder: Path, split: str) -> tuple[list[bytes], list[int]]:
    """The reviews of a split and their labels, 0 for a negative and 1 for a positive one.

    Parameters
    ----------
    folder : path
        Has SPLIT.jsonl.gz, with a line {"text": ..., "label": 0 or 1} for each review, or a folder imdb that has it;
        or else SPLIT/pos/*.txt and SPLIT/neg/*.txt, or a folder aclImdb that has them.
    split : str
        "train" or "test".

    Raises
    ------
    ValueError
        For what is missing, truncated, empty or malformed.
    """
    file = inside(folder, "imdb") / f"{split}.jsonl.gz"
    if file.exists():
        return _read_json_lines(file)
    return _read_text_files(inside(folder, "aclImdb") / split, file)


def inside(folder: Path, name: str) -> Path:
    """The folder of a name inside a folder, or the folder itself if there is none."""
    return folder / name if (folder / name).is_dir() else folder


def _read_json_lines(path: Path) -> tuple[list[bytes], list[int]]:
    texts: list[bytes] = []
    labels: list[int] = []
    try:
        with gzip.open(path) as file:
            for line in file:
                review = msgspec.json.decode(line, type=Review)
                texts.append(review.text.encode())
                labels.append(review.label)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: expected a whole gzip file; got after line {len(labels)}: {error}") from error
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        expected = "expected JSON with a text that is not empty and a label 0 or 1"
        raise ValueError(f"{path}, line {len(texts) + 1}: {expected}; got {quoted_ends(line)}") from error
    if not texts:
        raise ValueError(f"{path}: expected reviews; got none")
    return texts, labels


def _read_text_files(folder: Path, json_file: Path) -> tuple[list[bytes], list[int]]:
    """The reviews in folder/neg and folder/pos, sorted by name, since a folder lists its files in any order."""
    texts, labels = [], []
    for label, sentiment in enumerate(SENTIMENTS):
        files = sorted((folder / sentiment).glob("*.txt"))
        if not files:
            raise ValueError(f"{folder / sentiment}: expected reviews, *.txt, or else {json_file}; got neither")
        for file in files:
            text = file.read_bytes()
            if not text:
                raise ValueError(f"{file}: expected a text; got an empty file")
            texts.append(text)
            labels.append(label)
    return texts, labels
