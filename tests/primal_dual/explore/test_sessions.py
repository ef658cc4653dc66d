"""What a browser sends and is answered, without one; and the server in this process."""

import asyncio
from types import SimpleNamespace

import numpy as np
import pytest
import typer
from bokeh.document import Document
from bokeh.events import DoubleTap, MouseMove, Pan, PanEnd, PanStart
from tornado.httpclient import AsyncHTTPClient

from primal_dual.cli import commands
from primal_dual.explore import server
from primal_dual.explore.address import from_query
from primal_dual.explore.head_sources import Vowel
from primal_dual.explore.session import Session
from primal_dual.explore.svr import SVRState, readout
from primal_dual.explore.views import all_views

VIEWS = all_views({"the spoken vowel": Vowel()})


@pytest.fixture
def session():
    return Session(Document(), VIEWS[0])


def send(session, event, x, y):
    figure = session.drawing.figures["function"]
    figure._trigger_event(event(figure, x=x, y=y))


def test_what_is_asked_for_is_answered_once_with_all_that_the_page_shows(session):
    for query in ("C=5", "epsilon=0.2", "C=20"):
        session.exchange.asked = [session.exchange.asked[0] + 1, query]
    assert len(session.document.session_callbacks) == 1 and session.exchange.answer == {}
    session.draw()
    answer = session.exchange.answer
    assert answer["query"] == "C=20&epsilon=0.2" and answer["error"] == ""
    assert answer["readout"] == readout(SVRState(C=20.0, epsilon=0.2))
    assert answer["controls"]["C"] == "20" and answer["idle"] == ["position", "beta"]


def test_a_slider_ends_where_its_choices_end(session):
    session.exchange.asked = [1, "keys=-1+0+1&targets=1+0+1&support=causal&position=40"]
    session.draw()
    assert session.exchange.answer["ends"] == {"position": 2}
    assert VIEWS[2].ends(VIEWS[2].state(tokens=20)) == {"query": 19}
    frames, coefficients = Vowel().head("softmax", "", 0).values.shape
    assert VIEWS[3].ends(VIEWS[3].state()) == {"query": frames - 1, "output": coefficients}
    large = SimpleNamespace(attentions=("",), layers=("",), heads=1)
    large.head = lambda *place: SimpleNamespace(values=np.zeros((600, 200)), queries=np.zeros((600, 2)))
    view = all_views({"large": large})[3]
    ends = view.ends(view.state())
    assert ends == {name: view.controls[name].high for name in ("query", "output")}


def test_the_pointer_moves_the_query_and_a_point_that_it_holds(session):
    state = session.state
    send(session, MouseMove, 1.234, 0.0)
    assert session.state.query == 1.23
    send(session, PanStart, state.keys[2], state.targets[2])
    send(session, Pan, 0.5, 0.7)
    send(session, MouseMove, -1.0, 0.0)
    assert (session.state.keys[2], session.state.targets[2], session.state.query) == (0.5, 0.7, 0.5)
    send(session, PanEnd, 0.5, 0.7)
    send(session, Pan, 1.0, 1.0)
    assert session.state.keys[2] == 0.5
    send(session, PanStart, 0.0, 2.4)
    send(session, Pan, 1.0, 1.0)
    assert session.state.keys[2] == 0.5
    send(session, DoubleTap, 0.0, 2.4)
    assert session.state.keys[-1] == 0.0 and len(session.state.keys) == 15


def test_an_error_is_told_and_the_last_picture_stays(session):
    session.draw()
    drawn = session.drawing.tube.data["f"]
    session.ask("C=none")
    session.draw()
    assert session.exchange.answer["error"].startswith("C, times the median of h(k): expected numbers")
    session.ask("targets=1 2")
    session.draw()
    answer = session.exchange.answer
    assert answer["error"].startswith("Targets: expected 14") and "readout" not in answer
    assert session.drawing.tube.data["f"] is drawn
    session.ask("targets=1 2&keys=1 2")
    session.draw()
    assert session.exchange.answer["error"] == "" and len(session.drawing.held.data["x"]) == 2


def test_a_head_that_is_not_there_is_told():
    session = Session(Document(), VIEWS[-1])
    session.ask("source=your files")
    session.draw()
    assert session.exchange.answer["error"] == "Head of: expected the spoken vowel; got your files"
    session.drawing.map.figure._trigger_event(MouseMove(session.drawing.map.figure, x=1.0, y=7.0))
    session.ask("source=the spoken vowel")
    session.draw()
    assert session.exchange.answer["error"] == "" and session.state.query == 0
    session.drawing.map.figure._trigger_event(MouseMove(session.drawing.map.figure, x=1.0, y=7.4))
    assert session.state.query == 7


def test_points_are_dragged_while_the_second_list_is_yet_to_be_typed(session):
    session.ask("keys=-1 0 1")
    send(session, PanStart, 1.0, session.state.targets[2])
    send(session, Pan, 2.0, 0.0)
    assert session.state.keys == (-1.0, 0.0, 2.0) and session.state.targets[2] == 0.0


def test_a_query_that_moves_alone_is_all_that_is_drawn(session):
    session.draw()
    session.drawing._draw_solution = None  # which cannot be called
    send(session, MouseMove, 2.0, 0.0)
    session.draw()
    assert session.drawing.query.data["x"] == [2.0]


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.title)
def test_a_page_has_its_words_controls_and_figures(view):
    async def fetch():
        served = server.start(VIEWS, 0)
        try:
            return await AsyncHTTPClient().fetch(f"http://127.0.0.1:{served.port}{view.path}")
        finally:
            served.stop()

    page = asyncio.run(fetch()).body.decode()
    assert f"<h1>{view.title}</h1>" in page and view.prose in page and page.count('aria-current="page"') == 1
    assert all(f'<label for="{name}">{control.label}</label>' in page for name, control in view.controls.items())
    assert all(caption in page for caption in view.captions.values()) and page.count("<figure ") == len(view.captions)


def test_an_interrupt_stops_the_server_and_a_browser_is_asked_for(monkeypatch, capsys):
    told = []

    def interrupt():
        raise KeyboardInterrupt

    fake = SimpleNamespace(port=5, stop=lambda: told.append("stop"), io_loop=SimpleNamespace(start=interrupt))
    monkeypatch.setattr(server.webbrowser, "open", lambda address: told.append(address))
    server.serve(fake, True)
    assert sorted(told) == ["http://127.0.0.1:5/", "stop"]
    server.serve(fake, False)
    assert sorted(told) == ["http://127.0.0.1:5/", "stop", "stop"]
    assert capsys.readouterr().out.count("http://127.0.0.1:5/ and ends with Ctrl-C.") == 2


def test_the_command_starts_all_views_with_the_files_first(monkeypatch, tmp_path, capsys):
    for name in ("keys", "values"):
        np.save(tmp_path / f"{name}.npy", np.ones((5, 2)))
    started = []
    monkeypatch.setattr(server, "start", lambda *arguments: started.append(arguments))
    monkeypatch.setattr(server, "serve", lambda *arguments: None)
    given = {name: tmp_path / f"{name}.npy" for name in ("keys", "values")}
    commands.explore(**given, model="pretrained:JapaneseVowels/softmax", port=7, browser=False)
    views, port = started[0]
    assert port == 7 and [view.path for view in views] == ["/", "/normalisation", "/scales", "/head"]
    head = views[-1]
    assert head.options(head.state())["source"] == [
        "your files",
        "your model",
        "the spoken vowel",
        "a trained transformer",
    ]
    assert head.readout(from_query(head.state(), "source=your files"))["Keys, features"] == "5, 2"
    assert head.options(from_query(head.state(), "source=your model"))["attention"] == ["its own"]
    with pytest.raises(typer.Exit):
        commands.explore(input=tmp_path / "keys.npy", browser=False)
    assert "--input and --data: expected --model beside them; got none" in capsys.readouterr().err
    assert len(started) == 1
