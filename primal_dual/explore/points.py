"""Points that are dragged in a figure. Their coordinates are two fields of the state."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from primal_dual.explore.controls import MOST_NUMBERS

NEAR = 0.06  # as a part of the axes
FEWEST = 2


def inside(x: float, reach: float) -> float:
    """A coordinate on an axis from -reach to reach, rounded, as the address says it."""
    return round(float(np.clip(x, -reach, reach)), 2)


@dataclass(frozen=True)
class Points:
    """The names of the two fields, and how far from zero each axis reaches.

    Examples
    --------
    >>> from primal_dual.explore.svr import SVRState
    >>> points, state = Points(("keys", "targets"), (3.0, 2.5)), SVRState(keys=(0.0, 1.0), targets=(0.5, -0.5))
    >>> points.drag(state, points.grab(state, 1.1, -0.4), 2.0, 0.123).targets
    (0.5, 0.12)
    """

    names: tuple[str, str]
    reach: tuple[float, float]

    def grab(self, state: Any, x: float, y: float) -> int | None:
        """The number of the point that is there; None if none is near."""
        both = (getattr(state, name) for name in self.names)
        points = np.array(list(zip(*both, strict=False)))  # one of them may have been typed, and the other not yet
        distance = np.linalg.norm((points - (x, y)) / (2 * np.array(self.reach)), axis=1)
        return int(distance.argmin()) if distance.min() <= NEAR else None

    def drag(self, state: Any, number: int, x: float, y: float) -> Any:
        """The state with that point there."""
        return self._changed(state, number, number + 1, (x, y))

    def tap_twice(self, state: Any, x: float, y: float) -> Any:
        """The state without the point that is there, or with one there if there was none."""
        number, count = self.grab(state, x, y), len(getattr(state, self.names[0]))
        if number is None:
            return self._changed(state, count, count, (x, y)) if count < MOST_NUMBERS else state
        return self._changed(state, number, number + 1, None) if count > FEWEST else state

    def _changed(self, state: Any, start: int, stop: int, point: tuple[float, float] | None) -> Any:
        """The state with one point, or none, in the place of those from start to stop."""
        changes = {}
        for axis, (name, reach) in enumerate(zip(self.names, self.reach, strict=True)):
            old, new = getattr(state, name), () if point is None else (inside(point[axis], reach),)
            changes[name] = (*old[:start], *new, *old[stop:])
        return replace(state, **changes)
