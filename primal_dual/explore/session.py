"""A view in one browser: what is set there changes the state, and the state is drawn."""

from typing import Any

from bokeh.core import properties
from bokeh.events import DoubleTap, MouseMove, Pan, PanEnd, PanStart
from bokeh.model import DataModel

from primal_dual.explore.address import from_query, to_query
from primal_dual.explore.drawing import Drawing
from primal_dual.explore.view import View

PAUSE = 5  # milliseconds in which further changes arrive before a state is drawn


class Exchange(DataModel):
    """What the page and the server tell each other: what was set, and what is to be shown."""

    asked: Any = properties.Any()  # [count, query string of what was set]; the count makes each one new
    answer: Any = properties.Any()


class Session:
    """The state in one browser. A state that has no solution leaves the picture as it was, and says why."""

    def __init__(self, document: Any, view: View) -> None:
        self.document, self.view = document, view
        self.state, self.refusal = view.state(), ""
        self.exchange = Exchange(name="exchange", asked=[0, ""], answer={})
        self.drawing: Drawing = view.drawing()
        self.waiting = False
        self.held: int | None = None
        self.points: Any = self.drawing.points
        for figure in self.drawing.pointed:
            figure.on_event(MouseMove, self._point)
            if self.points:
                figure.on_event(PanStart, self._grab)
                figure.on_event(Pan, self._drag)
                figure.on_event(PanEnd, self._release)
                figure.on_event(DoubleTap, self._tap_twice)
        self.exchange.on_change("asked", lambda name, old, new: self.ask(new[1]))

    def ask(self, query: str) -> None:
        """Change the state as a query string says."""
        try:
            self.set(from_query(self.state, query))
        except ValueError as error:
            self.refusal = str(error)
            self._soon()

    def set(self, state: Any) -> None:
        """Change the state, to what its address can say, and draw it soon."""
        self.refusal = ""
        self._change(state)

    def _change(self, state: Any) -> None:
        self.state = from_query(self.view.state(), to_query(state))
        self._soon()

    def _soon(self) -> None:
        if not self.waiting:
            self.waiting = True
            self.document.add_timeout_callback(self.draw, PAUSE)

    def draw(self) -> None:
        """Draw the state, and tell the page its numbers."""
        self.waiting = False
        answer: dict[str, Any] = {
            "count": self.exchange.asked[0],
            "error": self.refusal,
            "query": to_query(self.state),
            "controls": {
                name: control.write(getattr(self.state, name)) for name, control in self.view.controls.items()
            },
            "options": {},
            "ends": {},
            "idle": self.view.idle(self.state),
        }
        try:
            answer["options"] = self.view.options(self.state)
            answer["ends"] = self.view.ends(self.state)
            self.drawing.draw(self.state)
            answer |= {"readout": self.view.readout(self.state), "python": self.view.as_python(self.state)}
        except ValueError as error:
            answer["error"] = self.refusal or str(error)
        self.exchange.answer = answer

    def _point(self, event: Any) -> None:
        if self.held is None:
            self._change(self.drawing.point(self.state, event.x, event.y))

    def _grab(self, event: Any) -> None:
        self.held = self.points.grab(self.state, event.x, event.y)

    def _drag(self, event: Any) -> None:
        if self.held is not None:
            dragged = self.points.drag(self.state, self.held, event.x, event.y)
            self.set(self.drawing.point(dragged, event.x, event.y))

    def _release(self, event: Any) -> None:
        self.held = None

    def _tap_twice(self, event: Any) -> None:
        self.set(self.points.tap_twice(self.state, event.x, event.y))
