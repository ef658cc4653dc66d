"""The JSON files of a run: what each must hold. A file of another shape is refused by the name of its field."""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

import msgspec
from msgspec import Meta

Count = Annotated[int, Meta(ge=0)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
Seconds = Annotated[float, Meta(ge=0)]
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Name = Annotated[str, Meta(min_length=1)]


class Config(TypedDict):
    """config.json: what a run was begun with."""

    recipe: dict[str, str | int | float | bool]
    data: Name
    attention: Name
    seed: Count
    threads: NotRequired[Count]
    processes: NotRequired[Count]
    fingerprint: NotRequired[str]
    attention_files: NotRequired[dict[str, Sha256]]


class Result(Config):
    """result.json: the configuration, and what came of it."""

    test_accuracy: Fraction
    best_test_epoch: Fraction
    seconds: Seconds
    parameters: NotRequired[Count]
    weights_sha256: NotRequired[Sha256]
    machine: NotRequired[dict[str, Any]]
    sha256: NotRequired[Sha256]  # of all that is above, see `sealed`


class Results(TypedDict):
    """A file of results, as `primal-dual results --json` writes it."""

    runs: list[Result]


class Description(TypedDict):
    """`DataSet.described()`, in the metadata of model.safetensors."""

    classes: Annotated[list[str | int | float | bool], Meta(min_length=2)]
    sizes: dict[str, Count]
    mean: list[float]
    deviation: list[float]


def sealed(result: dict[str, Any]) -> dict[str, Any]:
    """A result with the SHA-256 of its content, so that a number that is changed in a file is noticed.

    Examples
    --------
    >>> sealed({"test_accuracy": 0.5})["sha256"][:8]
    '9187cbc7'
    """
    content = {name: value for name, value in result.items() if name != "sha256"}
    text = json.dumps(content, sort_keys=True)
    return content | {"sha256": hashlib.sha256(text.encode()).hexdigest()}


def read_json(path: Path, kind: Any) -> Any:
    """The content of a JSON file, as a dictionary of a kind, `Config`, `Result` or `Results`.

    Raises
    ------
    ValueError
        For a file that cannot be read, is no JSON, holds something else, or a result that was changed.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     file = Path(folder, "results.json")
    ...     _ = file.write_text('{"runs": 5}')
    ...     try:
    ...         read_json(file, Results)
    ...     except ValueError as error:
    ...         print(str(error).removeprefix(str(file)))
    : Expected `array`, got `int` - at `$.runs`
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: expected a file that can be read; got {error.strerror}") from error
    return parse_json(str(path), content, kind)


def parse_json(name: str, content: str | bytes, kind: Any) -> Any:
    """The same of JSON in memory; `name` is what messages call it."""
    try:
        found = msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{name}: {error}") from error
    except RecursionError as error:
        raise ValueError(f"{name}: expected {kind.__name__}; got JSON that is nested too deep") from error
    for result in found["runs"] if kind is Results else [found] if kind is Result else []:
        if "sha256" in result and result != sealed(result):
            run = f"{result['data']} {result['attention']} {result['seed']}"
            raise ValueError(f"{name}: expected the result of {run} as it was written; got one that was changed")
    return found
