"""The names of the trained models that come with the package: finished runs, with weights in half precision."""

from pathlib import Path

PREFIX = "pretrained:"  # of their names, where the folder of a run is expected
WEIGHTS = Path(__file__).parents[2] / "weights"


def pretrained() -> list[str]:
    """The names of the trained models that come with the package, as "DATA/ATTENTION".

    Examples
    --------
    >>> from torch_impl import load_pretrained
    >>> run = load_pretrained(*pretrained()[0].split("/"))
    >>> run.result["data"]
    'Handwriting'
    """
    return sorted("/".join(file.parts[-3:-1]) for file in WEIGHTS.glob("*/*/model.safetensors"))


def folder_of_pretrained(name: str) -> Path:
    """The folder of a trained model, "DATA/ATTENTION".

    Raises
    ------
    ValueError
        For a model that does not come with the package.

    Examples
    --------
    >>> sorted(file.name for file in folder_of_pretrained("JapaneseVowels/softmax").iterdir())
    ['README.md', 'config.json', 'model.safetensors', 'result.json']
    """
    if name not in pretrained():
        raise ValueError(f"pretrained: expected one of {', '.join(pretrained())}; got {name}")
    return WEIGHTS / name
