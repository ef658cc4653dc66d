"""The pages in a real browser: what they show is what the package computes, to the digit."""

import math
from dataclasses import replace
from urllib.parse import urlsplit

import numpy as np
import pytest

from primal_dual import attention_weights, certify, solve_dual
from primal_dual.explore import heads, normalisation, scales, svr
from primal_dual.explore.address import from_query, to_query
from primal_dual.explore.controls import Numbers, Slider
from primal_dual.explore.head_sources import Vowel
from primal_dual.explore.views import SCALES, all_views
from tests.primal_dual.explore.browser import Tab, chromium, serving
from tests.primal_dual.explore.test_views import printed

VIEWS = all_views({"the spoken vowel": Vowel()})
QUICK_KEYS = """async (slider, times) => { // as a key that is held down: some arrive before the last one is answered
    for (let i = 0; i < times; i++) {
        slider.stepDown();
        slider.dispatchEvent(new Event("input", {bubbles: true}));
        await new Promise((resolve) => setTimeout(resolve, 20));
    }
}"""
views = pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.title)


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def address():
    with serving() as (found, _):
        yield found.rstrip("/")


@pytest.fixture
def open_tab(browser, address):
    tabs = []

    def open_in(path="/", **options):
        tabs.append(Tab(browser, address + path, **options))
        return tabs[-1]

    yield open_in
    for tab in tabs:
        assert tab.problems == []
        tab.close()


def one_step(slider, value):
    """What a key makes of a slider's value."""
    step = -slider.step if value > slider.low else slider.step
    if slider.logarithmic:
        return pytest.approx(10 ** (math.log10(value) + step), rel=0.07)  # it stands at the nearest step
    return pytest.approx(value + step, rel=1e-9)


@views
def test_every_control_can_be_set_and_the_page_shows_what_its_python_prints(open_tab, view):
    tab, state = open_tab(view.path), view.state()
    assert tab.readout == view.readout(state)
    for name, control in view.controls.items():
        words = getattr(control, "options", ()) or view.options(state).get(name, ())
        if isinstance(control, Numbers) or len(words) == 1 or name in view.idle(state):
            continue
        element = tab.page.get_by_label(control.label, exact=True)
        if isinstance(control, Slider):
            element.press("ArrowLeft" if getattr(state, name) > control.low else "ArrowRight")
        else:
            element.select_option(index=1)
        before = getattr(state, name)
        state = tab.wait_for_state(view.state(), lambda found, name=name, before=before: getattr(found, name) != before)
        if isinstance(control, Slider):
            assert getattr(state, name) == one_step(control, before)
        assert tab.readout == view.readout(state)
    assert printed(tab.page.locator("#python").text_content()) == tab.readout


@views
def test_nothing_is_wider_than_the_page_and_everything_has_a_name(open_tab, view):
    tab = open_tab(view.path)
    for width in (400, 800, 1280):
        tab.page.set_viewport_size({"width": width, "height": 900})
        tab.page.wait_for_function("(width) => document.documentElement.scrollWidth === width", arg=width)
    nameless = "Array.from(document.querySelectorAll('input, select'), each => each.labels.length)"
    assert set(tab.page.evaluate(nameless)) == {1}
    for caption in view.captions:
        picture = tab.page.locator(f"figure.{caption}").get_by_role("img")
        assert len(picture.get_attribute("aria-label")) > 20 and picture.bounding_box()["width"] > 200
    reached = set()
    for _ in range(80):
        tab.page.keyboard.press("Tab")
        reached.add(tab.page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))
    assert {name for name in view.controls if name not in view.idle(view.state())} <= reached
    assert {"as Python", "Copy the address", "python", *(each.title for each in VIEWS)} <= reached


def test_a_key_that_is_dragged_by_mouse_has_the_svr_of_the_package(open_tab):
    tab, state = open_tab("/"), svr.SVRState()
    tab.drag("function", (state.keys[3], state.targets[3]), (-1.0, 1.5))
    moved = tab.wait_for_state(state, lambda found: abs(found.keys[3] + 1.0) < 0.02)
    assert abs(moved.targets[3] - 1.5) < 0.03
    assert moved.keys[:3] == state.keys[:3] and moved.keys[4:] == state.keys[4:]

    asked, found = svr.problem(moved), tab.readout
    solution = solve_dual(asked.primal, asked.keys, asked.targets, **asked.svr, solver="newton")
    certificate = certify(asked.primal, asked.keys, solution.values, targets=asked.targets, **asked.svr)
    weights = attention_weights(asked.primal, np.array([[moved.query]]), asked.keys)
    assert found["Dual value / C"] == f"{solution.value / asked.C:.6f}" == found["Primal value / C"]
    assert found["Gap, relative"] == f"{certificate.relative_gap:.1e}" and certificate.relative_gap < 1e-12
    assert found["Largest weight there"] == f"{weights.max():.4f}"
    assert found["f at the query"] == f"{(weights @ solution.values)[0, 0] + solution.bias[0]:.4f}"

    tab.point("function", 2.0, 1.0)
    pointed = tab.wait_for_state(state, lambda found: abs(found.query - 2.0) < 0.02)
    assert pointed.keys == moved.keys
    weights = attention_weights(asked.primal, np.array([[pointed.query]]), asked.keys)
    assert tab.readout["Largest weight there"] == f"{weights.max():.4f}"

    tab.page.wait_for_function("(query) => location.search === query", arg="?" + to_query(pointed))
    tab.open(tab.page.url)
    assert tab.wait_for_state(state, lambda found: True) == pointed
    assert tab.readout["Largest weight there"] == f"{weights.max():.4f}"

    with tab.page.expect_navigation():
        tab.page.get_by_role("link", name="Stop the solver early").click()
    tab.open(tab.page.url)
    stopped = tab.wait_for_state(state, lambda found: found.digits == 1)
    assert stopped == replace(state, digits=1, keys=pointed.keys, targets=pointed.targets)


def test_what_cannot_be_is_said_and_the_picture_stays(open_tab):
    tab = open_tab("/")
    before = tab.readout
    keys = tab.page.get_by_label("Keys", exact=True)
    keys.fill("1 2 three")
    keys.press("Enter")
    tab.page.wait_for_function("document.getElementById('error').textContent !== ''")
    assert tab.page.get_by_role("alert").text_content().startswith("Keys: expected numbers")
    assert tab.readout == before
    keys.fill("-1 1")
    keys.press("Enter")
    tab.page.wait_for_function("document.getElementById('error').textContent.startsWith('Targets')")
    tab.page.get_by_label("Targets", exact=True).fill("-1 1")
    keys.press("Enter")
    tab.page.wait_for_function("document.getElementById('error').textContent === ''")
    assert tab.readout["Support vectors"].endswith("of 2 points")


def test_a_refused_text_is_told_where_one_looks_until_something_else_is_set(open_tab):
    tab = open_tab("/", width=400)
    keys, error = tab.page.get_by_label("Keys", exact=True), tab.page.get_by_role("alert")
    before = keys.input_value()
    keys.fill("1 2 three")
    keys.press("Enter")
    tab.page.wait_for_function("document.getElementById('error').textContent !== ''")
    assert 0 <= error.bounding_box()["y"] < 850
    tab.point("function", 1.0, 0.0)
    tab.wait_for_state(svr.SVRState(), lambda found: abs(found.query - 1.0) < 0.05)
    assert error.text_content().startswith("Keys: expected numbers")
    keys.blur()
    assert keys.input_value() == before
    tab.page.locator("#epsilon").press("ArrowRight")
    tab.page.wait_for_function("document.getElementById('error').textContent === ''")


def test_quick_keys_are_steps_all_of_them(open_tab):
    tab = open_tab("/scales")
    slider, step = tab.page.locator("#tokens"), SCALES.controls["tokens"].step
    slider.focus()
    before = int(slider.input_value())
    slider.evaluate(QUICK_KEYS, 12)
    state = tab.wait_for_state(SCALES.state(), lambda found: found.tokens == before - 12 * step)
    assert int(slider.input_value()) == state.tokens


def test_back_shows_the_page_again_and_it_lives(browser, address):
    page = browser.new_context().new_page()  # in which pages are kept, as in a Tab they are not
    page.goto(address)
    page.wait_for_selector("#readout dd")
    page.get_by_role("link", name=VIEWS[1].title).click()
    page.wait_for_selector("figure.bn")
    page.go_back()
    page.wait_for_selector("figure.function")
    page.wait_for_selector("#readout dd")
    page.locator("#query").press("ArrowLeft")
    page.wait_for_function("location.search.includes('query=')")
    page.context.close()


def test_when_the_server_has_ended_nothing_can_be_set_and_it_stays_said(browser):
    with serving() as (address, process):
        tab = Tab(browser, address)
        process.kill()
        tab.page.wait_for_function("document.getElementById('error').textContent.startsWith('The server has ended')")
    tab.page.get_by_role("link", name="Start over").focus()
    tab.page.keyboard.press("Tab")
    tab.page.get_by_role("link", name="as Python").click()
    tab.page.wait_for_timeout(300)
    assert tab.page.get_by_role("alert").text_content().startswith("The server has ended")
    assert tab.page.locator("form :enabled").count() == 0
    tab.close()


def test_what_is_copied_and_linked_is_what_is_seen(open_tab):
    tab = open_tab("/")
    tab.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    tab.page.get_by_role("link", name="as Python").click()
    tab.page.locator("#query").press("ArrowLeft")
    state = tab.wait_for_state(svr.SVRState(), lambda found: found != svr.SVRState())
    button = tab.page.locator("[data-copy=address]")
    button.click()
    tab.page.wait_for_function("document.querySelector('[data-copy=address]').textContent === 'Copied'")
    copied = tab.page.evaluate("navigator.clipboard.readText()")
    assert copied.endswith("/?" + to_query(state)) and "#" not in copied
    tab.page.go_back()
    tab.page.wait_for_function("(query) => location.search === query", arg="?" + to_query(state))

    tab.page.evaluate("document.addEventListener('click', (event) => event.preventDefault())")
    link = tab.page.get_by_role("link", name="Another kernel")
    for targets in ("1", "2"):
        field = tab.page.get_by_label("Targets", exact=True)
        field.fill(" ".join([targets] * len(state.keys)))
        link.click()
        found = from_query(svr.SVRState(), urlsplit(link.get_attribute("href")).query)
        assert found.targets == (float(targets),) * len(state.keys) and found.kernel == "gaussian"


def test_numbers_are_announced_when_they_rest_and_figures_are_no_stops(open_tab):
    tab = open_tab("/")
    status = tab.page.get_by_role("status").filter(has_text="f at the query")
    status.wait_for(state="attached")
    tab.page.locator("#query").press("ArrowLeft")
    state = tab.wait_for_state(svr.SVRState(), lambda found: found != svr.SVRState())
    said = "; ".join(f"{name}: {text}" for name, text in svr.readout(state).items())
    tab.page.wait_for_function("(said) => document.getElementById('announcement').textContent === said", arg=said)
    assert tab.page.locator(".bk-events").count() > 3
    assert {each.get_attribute("tabindex") for each in tab.page.locator(".bk-events").all()} == {"-1"}


def test_a_slider_shows_the_position_that_is_taken(open_tab):
    """There are 14 keys, so that the last position is 13."""
    tab = open_tab("/?support=causal&position=40")
    slider = tab.page.get_by_label("Whose SVR: position of the query", exact=True)
    assert "query=13" in tab.page.locator("#python").text_content()
    shown = slider.get_attribute("max"), slider.input_value(), slider.get_attribute("aria-valuetext")
    assert shown == ("13", "13", "13")


def test_the_pointer_acts_in_both_planes_on_the_map_and_on_the_sequence(open_tab):
    tab, state = open_tab("/normalisation"), normalisation.NormalisationState()
    tab.drag("bn", (state.keys_x[9], state.keys_y[9]), (-2.0, -1.0))
    moved = tab.wait_for_state(state, lambda found: found.keys_x[9] == -2.0)
    assert moved.keys_x[:9] == state.keys_x[:9] and abs(moved.keys_y[9] + 1.0) < 0.05
    assert tab.readout == normalisation.readout(moved)
    tab.point("softmax", 3.0, 2.0)
    pointed = tab.wait_for_state(state, lambda found: abs(found.query_x - 3.0) < 0.05)
    assert pointed.keys_x == moved.keys_x and tab.readout == normalisation.readout(pointed)

    tab, state = open_tab("/head"), heads.HeadState()
    tab.point("map", 3.0, 7.3)
    tab.wait_for_state(state, lambda found: found.query == 7)
    query = tab.page.get_by_label("Query (row)", exact=True)
    assert query.input_value() == "7" and query.get_attribute("aria-valuetext") == "7"

    tab, state = open_tab("/scales"), scales.ScalesState()
    tab.point("sequence", 30.0, 0.0)
    pointed = tab.wait_for_state(state, lambda found: found.query == 30)
    assert tab.readout == scales.readout(pointed)


def test_without_a_browser_it_is_said_how_to_get_one(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(pytest.fail.Exception, match="apt-get install chromium"), chromium():
        pass
