"""The server of the explorable: on this machine alone, and for its own pages alone."""

import signal
import webbrowser
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Thread
from typing import Any

from bokeh.application import Application
from bokeh.application.handlers.function import FunctionHandler
from bokeh.models import CustomJS
from bokeh.server.server import Server
from bokeh.server.util import bind_sockets
from jinja2 import Environment, FileSystemLoader

from primal_dual.explore.session import Session
from primal_dual.explore.view import View

HOST, LAST_PORT = "127.0.0.1", 65_535
PAGES = Environment(
    loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
)


def start(views: Sequence[View], port: int) -> Server:
    """A server of views that listens at a port, any free one for 0. ValueError for a port that is none or is taken.

    It answers on 127.0.0.1 alone, and websockets are refused to pages of other origins.
    """
    if not 0 <= port <= LAST_PORT:
        raise ValueError(f"--port: expected 0 to {LAST_PORT}; got {port}")
    applications: Any = {view.path: Application(FunctionHandler(_opener(view, views))) for view in views}
    try:
        sockets, port = bind_sockets(HOST, port)  # which chooses a port for 0: the origins have it in their names
        for socket in sockets:
            socket.close()
        origins = [f"{name}:{port}" for name in (HOST, "localhost")]
        server = Server(applications, port=port, address=HOST, allow_websocket_origin=origins)
    except OSError as error:
        raise ValueError(f"--port: expected a free port; {port} is none: {error.strerror}") from error
    server.start()
    return server


def _opener(view: View, views: Sequence[View]) -> Callable[[Any], None]:
    def open_in(document: Any) -> None:
        session = Session(document, view)
        for name, figure in session.drawing.figures.items():
            figure.name = name
            document.add_root(figure)
        document.add_root(session.exchange)
        document.title = f"{view.title} · primal-dual"
        document.template = PAGES.get_template("page.html")
        document.template_variables.update(view=view, views=views, drawing=session.drawing)
        document.js_on_event("document_ready", CustomJS(args={"exchange": session.exchange}, code="explore(exchange)"))
        document.js_on_event("connection_lost", CustomJS(code="serverHasEnded()"))

    return open_in


def serve(server: Server, browser: bool) -> None:
    """Serve until it is interrupted, and show the first view in a browser, if there is one."""
    address = f"http://{HOST}:{server.port}/"
    print(f"The explorable is at {address} and ends with Ctrl-C.", flush=True)
    if browser:
        Thread(target=webbrowser.open, args=(address,), daemon=True).start()  # some return only when they are closed
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which shells turn off for what they start behind
    try:
        server.io_loop.start()
    except KeyboardInterrupt:
        server.stop()
