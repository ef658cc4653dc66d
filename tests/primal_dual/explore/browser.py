"""A browser without a window that reaches nothing but this machine, and the pages of the explorable in it."""

import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import sync_playwright

from primal_dual.explore.address import from_query

NAMES = ("chromium", "chromium-browser", "google-chrome")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
QUIET += ["--disable-sync", "--no-first-run"]
PLACE = """([name, x, y]) => {
    const root = Bokeh.documents[0].get_model_by_name(name);
    const view = Object.values(Bokeh.index.roots).find((each) => each.model === root);
    const box = view.canvas_view.el.getBoundingClientRect();
    return [box.x + view.frame.x_scale.compute(x), box.y + view.frame.y_scale.compute(y)];
}"""

QUERY = """Bokeh.documents[0].get_model_by_name("exchange").answer.query"""


@contextmanager
def chromium():
    """The browser. It is Debian's, since one that playwright brings would have to be downloaded."""
    path = next((found for found in map(shutil.which, NAMES) if found), None)
    if path is None:
        pytest.fail(f"this test needs a browser, {' or '.join(NAMES)}: apt-get install chromium")
    with sync_playwright() as playwright:
        as_readers_have = ["--disable-back-forward-cache"]
        browser = playwright.chromium.launch(executable_path=path, args=QUIET, ignore_default_args=as_readers_have)
        yield browser
        browser.close()


@contextmanager
def serving(*options):
    """`primal-dual explore` in a process of its own -> its address and the process."""
    command = [sys.executable, "-m", "primal_dual.cli", "explore", "--port", "0", "--no-browser", *map(str, options)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        line = process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+/", line)
        if not found:
            process.kill()
            raise AssertionError(line + process.stderr.read())
        try:
            yield found[0], process
        finally:
            process.kill()


class Tab:
    """A page of the explorable. `problems` are messages of its console, and addresses elsewhere that it asked for."""

    def __init__(self, browser, address, width=1280, touch=False):
        context = browser.new_context(viewport={"width": width, "height": 900}, has_touch=touch)
        self.page, self.problems = context.new_page(), []
        self.page.route(lambda url: urlsplit(url).hostname != "127.0.0.1", self._refuse)
        self.page.on("console", lambda each: each.type in ("error", "warning") and self.problems.append(each.text))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.open(address)

    def _refuse(self, route):
        self.problems.append(route.request.url)
        route.abort()

    def open(self, address):
        self.page.goto(address)
        self.page.wait_for_selector("#readout dd")

    def close(self):
        self.page.context.close()

    @property
    def readout(self):
        """The numbers, as they stand in the page."""
        rows = self.page.locator("#readout div").all()
        return {row.locator("dt").text_content(): row.locator("dd").text_content() for row in rows}

    def wait_for_state(self, default, holds):
        """Until the page shows a state of which holds(state) is so -> the state."""
        for _ in range(100):
            state = from_query(default, self.page.evaluate(QUERY))
            if holds(state):
                return state
            self.page.wait_for_timeout(50)
        raise AssertionError(f"no such state; the last one is {state}")

    def drag(self, figure, start, end):
        """With the mouse, from a point of a figure's axes to another, in some steps."""
        mouse = self.page.mouse
        (x, y), (to_x, to_y) = (self.page.evaluate(PLACE, [figure, *point]) for point in (start, end))
        mouse.move(x, y)
        mouse.down()
        for step in range(1, 9):
            mouse.move(x + (to_x - x) * step / 8, y + (to_y - y) * step / 8)
        mouse.up()

    def point(self, figure, x, y):
        self.page.mouse.move(*self.page.evaluate(PLACE, [figure, x, y]))
