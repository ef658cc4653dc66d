"""The address of a state: its query string, which restores the state and can be shared."""

from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, urlencode

from primal_dual.explore.controls import controls_of


def to_query(state: Any) -> str:
    """The query string: what differs from the defaults.

    Examples
    --------
    >>> from primal_dual.explore.svr import SVRState
    >>> to_query(SVRState(kernel="gaussian", C=100.0))
    'kernel=gaussian&C=100'
    """
    default = type(state)()
    given = {name: (control, getattr(state, name)) for name, control in controls_of(state).items()}
    return urlencode({name: control.write(x) for name, (control, x) in given.items() if x != getattr(default, name)})


def from_query(state: Any, query: str) -> Any:
    """A state with the changes that a query string asks for. ValueError for a name or a value that it cannot have."""
    known = controls_of(state)
    changes = {}
    for name, text in parse_qsl(query, keep_blank_values=True):
        if name not in known:
            raise ValueError(f"address: expected {', '.join(known)}; got {name!r}")
        changes[name] = known[name].read(text)
    return replace(state, **changes)
