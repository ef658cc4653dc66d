"""Each view without a browser: its address restores it, its numbers are the package's, its Python computes them."""

import contextlib
import inspect
import io
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from primal_dual import attention, certify, solve_dual
from primal_dual.cli import commands
from primal_dual.cli.tutorial_scripts import list_tutorials
from primal_dual.explore import normalisation, scales, svr
from primal_dual.explore.address import from_query, to_query
from primal_dual.explore.controls import Choice, Slider, controls_of
from primal_dual.explore.head_sources import Vowel
from primal_dual.explore.svr_drawing import SVRDrawing
from primal_dual.explore.views import all_views

VIEWS = all_views({"the spoken vowel": Vowel()})
BY_PATH = {view.path: view for view in VIEWS}
views = pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.title)


def values(name, control):
    """What a control can be set to."""
    if isinstance(control, Slider):
        steps = st.integers(0, 20).map(lambda step: control.low + (control.high - control.low) * step / 20)
        return steps.map(lambda value: control.read(f"{int(value) if isinstance(control.step, int) else value:.4g}"))
    if isinstance(control, Choice):
        return st.sampled_from(control.options) if control.options else st.just(None)
    count = 7  # so that lists which belong together fit
    return st.lists(st.integers(-20, 20).map(lambda x: x / 10), min_size=count, max_size=count).map(tuple)


def states(view):
    drawn = {name: values(name, control) for name, control in controls_of(view.state).items()}
    return st.fixed_dictionaries({}, optional=drawn).map(lambda changes: changed(view, changes))


def changed(view, changes):
    lists = [name for name, value in changes.items() if isinstance(value, tuple)]
    if 0 < len(lists) < 2:
        changes = {name: value for name, value in changes.items() if name not in lists}
    return replace(view.state(), **{name: value for name, value in changes.items() if value is not None})


def printed(code):
    """What lines of Python print, as a dictionary."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        exec(compile(code, "as_python", "exec"), {"__name__": "as_python"})
    return dict(line.split(": ", 1) for line in text.getvalue().splitlines())


@views
@given(data=st.data())
def test_an_address_restores_its_state(view, data):
    state = data.draw(states(view))
    assert from_query(view.state(), to_query(state)) == state
    assert to_query(view.state()) == ""


@views
@settings(max_examples=40)
@given(data=st.data())
def test_the_lines_of_python_print_the_numbers_of_the_page(view, data):
    state = data.draw(states(view))
    try:
        shown = view.readout(state)
    except ValueError:
        with pytest.raises(ValueError):
            exec(view.as_python(state), {})
    else:
        assert printed(view.as_python(state)) == shown


@views
def test_what_is_shown_first_has_numbers_captions_and_links_that_are_states(view):
    assert len(view.readout(view.state())) > 3
    drawing = view.drawing()
    assert list(drawing.figures) == list(view.captions)
    drawing.draw(view.state())
    links = [each.split('"')[0] for each in view.prose.split('href="')[1:]]
    assert len(links) >= 3
    for link in links:
        path, _, query = link.partition("?")
        there = BY_PATH[path or view.path]
        state = from_query(there.state(), query)
        assert state != there.state() and there.readout(state)
        assert to_query(state) == query.replace("&amp;", "&")


@pytest.mark.parametrize(
    "query, message",
    [
        ("colour=red", "address: expected kernel, .*; got 'colour'"),
        ("C=0", "C, times the median of h.*: expected a number from 0.1 to 1000; got 0"),
        ("C=nan", "expected numbers of at most 1e[+]06; got 'nan'"),
        ("scale=1.5", "Keys in an average .*: expected a whole number; got 1.5"),
        ("kernel=cubic", "Kernel: expected one of exponential, .*; got 'cubic'"),
        ("keys=1", "Keys: expected 2 to 60 numbers; got 1"),
        ("keys=1+two", "Keys: expected numbers .*; got 'two'"),
    ],
)
def test_a_wrong_address_says_what_was_expected(query, message):
    with pytest.raises(ValueError, match=message):
        from_query(svr.SVRState(), query)


def test_lists_that_belong_together_are_equally_long():
    with pytest.raises(ValueError, match="Targets: expected 2, one a key; got 14"):
        svr.readout(svr.SVRState(keys=(0.0, 1.0)))
    with pytest.raises(ValueError, match="Keys, up: expected 2, one a key; got 10"):
        normalisation.readout(normalisation.NormalisationState(keys_x=(0.0, 1.0)))


@pytest.mark.parametrize("query", ["", "digits=1", "support=window&position=6", "scale=3&bias=yes"])
def test_what_is_drawn_is_the_solution(query):
    state = from_query(svr.SVRState(), query)
    found, asked = svr.solve(state), svr.problem(state)
    solution = solve_dual(asked.primal, asked.keys, asked.targets, **asked.svr, **asked.stopped)
    certificate = certify(asked.primal, asked.keys, solution.values, targets=asked.targets, **asked.svr)
    np.testing.assert_array_equal(found.f, solution.predict(svr.GRID[:, None])[:, 0])
    np.testing.assert_array_equal(found.bound, certificate.error_bound(svr.GRID[:, None]))
    weights = svr.weights_of_query(state)
    f = weights @ solution.values[:, 0] + solution.bias[0]
    np.testing.assert_allclose(f, found.predict(state.query), rtol=0, atol=1e-12)
    place = asked.query or 0
    queries = np.full((place + 1, 1), state.query)
    by_attention = attention(asked.primal, queries, asked.keys, solution.values)[place, 0] + solution.bias[0]
    np.testing.assert_allclose(f, by_attention, rtol=0, atol=1e-12)
    exact = svr.solve(replace(state, digits=svr.EXACT))
    assert (abs(found.f - exact.f) <= found.bound + exact.bound).all()
    free = found.kinds == 1
    assert (abs(found.delta[found.kinds == 2]) > (1 - 2e-6) * asked.C).all() and (
        found.delta[found.kinds == 0] ** 2 < 1e-11 * asked.C**2
    ).all()
    assert free.any()


def test_a_dragged_key_takes_its_target_with_it_and_two_clicks_remove_or_add_one():
    points, state = SVRDrawing.points, svr.SVRState()
    number = points.grab(state, state.keys[3] + 0.05, state.targets[3] - 0.05)
    assert number == 3 and points.grab(state, 0.0, 2.0) is None
    dragged = points.drag(state, 3, 0.456, -9.0)
    assert (dragged.keys[3], dragged.targets[3]) == (0.46, -2.5)
    assert (dragged.keys[:3], dragged.targets[4:]) == (state.keys[:3], state.targets[4:])
    fewer = points.tap_twice(state, state.keys[3], state.targets[3])
    assert fewer.keys == state.keys[:3] + state.keys[4:] and len(fewer.targets) == 13
    more = points.tap_twice(state, 0.0, 2.0)
    assert (more.keys, more.targets) == ((*state.keys, 0.0), (*state.targets, 2.0))
    two = replace(state, keys=(0.0, 1.0), targets=(0.0, 1.0))
    assert points.tap_twice(two, 0.0, 0.0) == two
    assert SVRDrawing().point(state, 7.0, 0.0).query == 3.0


@given(data=st.data())
def test_the_common_vote_is_that_of_the_formula_and_gone_at_beta_one(data):
    """(1 - beta) mu . (k - mu) / (sigma^2 + eps) / sqrt(D), and without a division in softmax attention."""
    state = data.draw(states(BY_PATH["/normalisation"]))
    keys = normalisation.keys_of(state)
    mu, variance = keys.mean(axis=0), keys.var(axis=0) + 1e-5
    votes = normalisation.votes(state)
    formula = (keys - mu) @ mu / np.sqrt(2)
    np.testing.assert_allclose(votes["softmax"], formula, rtol=0, atol=1e-10)
    formula = (1 - state.beta) * (keys - mu) @ (mu / variance) / np.sqrt(2)
    np.testing.assert_allclose(votes["Attention-BN"], formula, rtol=1e-9, atol=1e-9)


def test_keys_that_lie_far_apart_have_a_common_vote():
    state = normalisation.NormalisationState(keys_x=(100.0, -100.0, 3.0), keys_y=(0.0, 0.0, 0.0))
    np.testing.assert_allclose(normalisation.votes(state)["softmax"], np.array([99, -101, 2]) / np.sqrt(2), rtol=1e-12)
    assert np.isfinite(normalisation.votes(state)["Attention-BN"]).all()


def test_what_is_said_of_scaled_heads_is_so():
    errors = {
        query: {scale: each.error for scale, each in scales.by_scale(from_query(scales.ScalesState(), query)).items()}
        for query in ("noise=0", "noise=0.8", "waves=6&noise=0.1")
    }
    assert min(errors["noise=0"], key=errors["noise=0"].get) == 1
    assert errors["noise=0.8"][4] < errors["noise=0.8"][1]
    assert errors["waves=6&noise=0.1"][8] > 0.7  # as f = 0 has
    for scale, each in scales.by_scale(scales.ScalesState()).items():
        assert each.cost == -(-48 // scale) / 48


def test_a_pool_has_one_weight_and_the_head_sees_means_alone():
    state = scales.ScalesState(tokens=47, scale=5)
    weights = scales.weights_of_query(state)
    for start in range(0, 47, 5):
        assert np.ptp(weights[start : start + 5]) < 1e-15
    np.testing.assert_allclose(weights.sum(), 1, rtol=1e-13)


@pytest.mark.parametrize("tutorial", list_tutorials()[1:], ids=lambda tutorial: tutorial.name)
def test_each_tutorial_links_to_a_view_at_the_port_of_the_command(tutorial):  # tutorial 0 needs no package
    port = inspect.signature(commands.explore).parameters["port"].default
    (link,) = re.findall(r"\]\((http://127[^)]+)\)", tutorial.path.read_text())
    address, _, query = link.removeprefix(f"http://127.0.0.1:{port}").partition("?")
    view = BY_PATH[address]
    assert to_query(from_query(view.state(), query)) == query
