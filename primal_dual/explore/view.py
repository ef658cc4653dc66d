"""A view: a state, the figures that draw it, and what is said beside them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from primal_dual.explore.controls import Control, controls_of


@dataclass(frozen=True)
class View:
    """A page of the explorable.

    Parameters
    ----------
    path : str
        Its path in the address.
    title, prose : str
        A heading, and a paragraph of HTML: what to try, and what it shows. Its links are addresses of states.
    tutorial : int
        The number of the tutorial that explains it.
    state : type
        A frozen dataclass whose fields are controls; without arguments, what is shown first.
    drawing : function
        Makes the figures of one browser.
    captions : dict
        What is under each figure, by its name.
    readout, as_python : functions
        Of a state: its numbers by their names, and lines of Python that compute them.
    options : function
        Of a state: the words to choose from, by the names of those choices that have no fixed ones.
    ends : function
        Of a state: where those sliders end that it lets end earlier, by their names.
    idle : function
        Of a state: the names of the controls that have no effect in it.
    """

    path: str
    title: str
    prose: str
    tutorial: int
    state: type
    drawing: Callable[[], Any]
    captions: dict[str, str]
    readout: Callable[[Any], dict[str, str]]
    as_python: Callable[[Any], str]
    options: Callable[[Any], dict[str, list[str]]] = lambda state: {}
    ends: Callable[[Any], dict[str, int]] = lambda state: {}
    idle: Callable[[Any], list[str]] = lambda state: []

    @property
    def controls(self) -> dict[str, Control]:
        """Those of its state."""
        return controls_of(self.state)
