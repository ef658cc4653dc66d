"""What builds the site: links that lead nowhere are found, docstrings keep their signs, plots are folded."""

import json
import sys
from pathlib import Path

import pytest
from docutils.core import publish_doctree

DOCS = Path(__file__).parents[2] / "docs"
sys.path.insert(0, str(DOCS / "extensions"))

import checked_links  # noqa: E402
import generated_pages  # noqa: E402
import plain_docstrings  # noqa: E402

GOOD = '<a id="top" href="other.html#part">x</a><a href="folder/">y</a><a href="https://a.org/b">z</a><img src="a.png">'


@pytest.fixture
def site(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "index.html").write_text('<a href="../index.html#top">up</a>')
    (tmp_path / "other.html").write_text('<p id="part"></p>')
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "index.html").write_text(GOOD)
    return tmp_path


def test_good_links_are_no_problem(site):
    assert list(checked_links.problems(site)) == []


@pytest.mark.parametrize(
    "bad, message",
    [
        ('<a href="missing.html">', "leads nowhere"),
        ('<a class="b" href="other.html#no">', "has no such anchor"),
        ('<a href="#no">', "has no such anchor"),
        ('<img src="missing.png">', "leads nowhere"),
        ('<script src="https://cdn.org/x.js">', "from elsewhere"),
        ('<link rel="stylesheet" href="//cdn.org/x.css">', "from elsewhere"),
        ('<img src="https://a.org/b.png">', "from elsewhere"),
    ],
)
def test_bad_links_are_found(site, bad, message):
    (site / "index.html").write_text(GOOD + bad)
    (problem,) = checked_links.problems(site)
    assert problem.startswith("index.html: ") and message in problem


@pytest.mark.parametrize(
    "text", ["|W|^2 and sum_j *two* x_", "alpha~_j, a_b_, |x - y| <= 2*3, back\\slash", "k_j: x.y"]
)
def test_signs_of_a_docstring_stay_as_they_are(text):
    assert publish_doctree(plain_docstrings.restructured(text)).astext() == text


def test_names_in_a_docstring_become_links_if_they_are_public():
    line = plain_docstrings.restructured("See `attention` and `kernel_rows`.")
    assert line == "See :py:obj:`attention <primal_dual.attention>` and ``kernel_rows``."


def test_an_equation_is_a_block_of_text_and_an_example_stays():
    equation = ["One line.", "", "    f(x) = sum_j v_j |x|", "", "More |x|.", ""]
    lines = [*equation, "Examples", "--------", ">>> abs(1) | 2", "3"]
    plain_docstrings.rewrite(None, "function", "f", None, None, lines)
    text = "\n".join(lines)
    assert (
        ".. code-block:: text\n\n    f(x) = sum_j v_j |x|\n" in text
        and r"More \|x\|." in text
        and ">>> abs(1) | 2" in text
    )


def test_figures_have_a_description_and_cells_that_only_draw_are_folded(tmp_path):
    sources = ['if not find_spec("primal_dual"): ...', "plt.plot(x)\nplt.show()", "assert x\nplt.show()", "x = 1"]
    cells = [{"cell_type": "code", "source": source.splitlines(keepends=True), "metadata": {}} for source in sources]
    cells.insert(1, {"cell_type": "markdown", "source": ["# Title\n", "\n", "## The tube"], "metadata": {}})
    (tmp_path / "book.ipynb").write_text(json.dumps({"cells": cells}))
    _, plots, asserted, other = json.loads(generated_pages.page(tmp_path / "book.ipynb"))["cells"]
    described = {"mystnb": {"image": {"alt": "The tube"}}}
    assert plots["metadata"] == {**described, "tags": ["hide-input"]}
    assert asserted["metadata"] == described and other["metadata"] == {}


def test_help_of_every_command_is_a_section():
    text = generated_pages.commands()
    for command in ("verify", "certify", "demo", "tutorials", "train", "results", "predict"):
        assert f"## `primal-dual {command}`\n" in text
    assert "--epsilon" in text and "[default: 0.1]" in text
