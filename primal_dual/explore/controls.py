"""The controls of a view. Each is a field of its state: a value, and how a form shows it and a text gives it."""

from dataclasses import dataclass, field, fields
from math import isfinite, log10
from typing import Any

MOST_NUMBERS, LARGEST_NUMBER = 60, 1e6  # in a list that someone types


@dataclass(frozen=True)
class Slider:
    """A number between `low` and `high`; `last` is what the form calls `high`, where that has a name of its own.

    A logarithmic slider moves over the exponents of ten, and its step is one of them. Otherwise, a step that is an int
    makes the number a whole one.
    """

    label: str
    low: float
    high: float
    step: float
    logarithmic: bool = False
    last: str = ""

    def read(self, text: str) -> float | int:
        value = _number(self.label, text)
        if not self.low <= value <= self.high:
            raise ValueError(f"{self.label}: expected a number from {self.low:g} to {self.high:g}; got {text}")
        if not isinstance(self.step, int) or self.logarithmic:
            return value
        if value != int(value):
            raise ValueError(f"{self.label}: expected a whole number; got {text}")
        return int(value)

    def write(self, value: float) -> str:
        return f"{value:.6g}"

    def html(self) -> dict[str, Any]:
        """The attributes of its input element."""
        low, high = (log10(self.low), log10(self.high)) if self.logarithmic else (self.low, self.high)
        return {"type": "range", "min": low, "max": high, "step": self.step}


@dataclass(frozen=True)
class Choice:
    """One of some words; of any, where there are none: then a view says which, as its other controls are set."""

    label: str
    options: tuple[str, ...] = ()

    def read(self, text: str) -> str:
        if self.options and text not in self.options:
            raise ValueError(f"{self.label}: expected one of {', '.join(self.options)}; got {text!r}")
        return text

    def write(self, value: str) -> str:
        return value


@dataclass(frozen=True)
class Numbers:
    """A list of numbers, separated by commas or spaces."""

    label: str

    def read(self, text: str) -> tuple[float, ...]:
        words = text.replace(",", " ").split()
        if not 2 <= len(words) <= MOST_NUMBERS:
            raise ValueError(f"{self.label}: expected 2 to {MOST_NUMBERS} numbers; got {len(words)}")
        return tuple(_number(self.label, word) for word in words)

    def write(self, value: tuple[float, ...]) -> str:
        return " ".join(f"{each:g}" for each in value)

    def html(self) -> dict[str, Any]:
        """The attributes of its input element."""
        return {"type": "text", "autocomplete": "off", "spellcheck": "false"}


Control = Slider | Choice | Numbers


def slider(default: float, *of_slider: Any, **options: Any) -> Any:
    """A field of a state: a number, with the slider that sets it."""
    return field(default=default, metadata={"control": Slider(*of_slider, **options)})


def choice(default: str, label: str, options: Any = ()) -> Any:
    """A field of a state: a word, with the list that it is chosen from."""
    return field(default=default, metadata={"control": Choice(label, tuple(options))})


def numbers(default: tuple[float, ...], label: str) -> Any:
    """A field of a state: numbers, with the line of text that gives them."""
    return field(default=default, metadata={"control": Numbers(label)})


def controls_of(state: Any) -> dict[str, Control]:
    """The controls of a state, or of a class of states, by the names of their fields."""
    return {each.name: each.metadata["control"] for each in fields(state)}


def _number(label: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not (isfinite(value) and abs(value) <= LARGEST_NUMBER):
        raise ValueError(f"{label}: expected numbers of at most {LARGEST_NUMBER:g}; got {text!r}")
    return value
