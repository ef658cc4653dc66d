"""The tutorials as a web site of plain files, which loads nothing from elsewhere: equations are MathML."""

import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from primal_dual.cli.tutorial_scripts import Progress, Tutorial, check_extra, executed, list_tutorials, notebook, quiet
from primal_dual.io.files import ensure_folder, write_text

NAME = "Primal-dual attention"
STYLE = """
:root { --text: #1b1f24; --dim: #57606a; --line: #d0d7de; --code: #f6f8fa; --link: #0550ae; }
* { box-sizing: border-box; }
body { margin: 0; color: var(--text); background: white; font: 1.05rem/1.6 system-ui, sans-serif; }
header, main, footer { max-width: 62rem; margin: 0 auto; padding: 0.75rem 1rem; }
p:not(:has(.equation)), li { max-width: 46rem; }
header, footer { display: flex; flex-wrap: wrap; gap: 0.25rem 1.5rem; justify-content: space-between; }
header { border-bottom: 1px solid var(--line); }
footer { border-top: 1px solid var(--line); margin-bottom: 2rem; }
a { color: var(--link); }
h1, h2, h3 { line-height: 1.25; overflow-wrap: anywhere; }
h2 { margin-top: 2.5rem; }
.output_png { overflow-x: auto; }
img { max-width: max(100%, 36rem); height: auto; }
pre { overflow-x: auto; margin: 0.75rem 0; padding: 0.75rem 1rem; font-size: 0.8rem; line-height: 1.45; }
.highlight pre { background: var(--code); border: 1px solid var(--line); border-radius: 0.4rem; }
.output pre { border-left: 3px solid var(--line); color: var(--dim); }
math { font-size: 1.05em; }
.equation { display: block; overflow: auto hidden; padding: 0.4rem 0; }
.equation math { min-width: max-content; }
table { display: block; overflow-x: auto; max-width: 100%; border-collapse: collapse; }
th, td { padding: 0.3rem 0.7rem; border: 1px solid var(--line); text-align: left; }
.contents { list-style: none; padding: 0; }
"""
FRAME = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<header>{links}</header>
<main>
{body}
</main>
<footer>{links}</footer>
</body>
</html>
"""


def write_site(
    folder: str | Path, every: Sequence[Tutorial] | None = None, *, execute: bool = True, progress: Progress = quiet
) -> list[Path]:
    """Write index.html and a page a tutorial, NN_name.html, with code, output and figures -> their paths.

    every: the tutorials, all without. execute: run them first. progress(tutorial, done, cells): called after each
    code cell that was executed. ValueError for a folder that cannot be written, and for a missing extra.
    """
    check_extra()
    folder, every = ensure_folder(folder), every or list_tutorials()
    pages = {"index.html": _index(every)}
    for k, tutorial in enumerate(every):
        book = notebook(tutorial)
        book = executed(tutorial, book, progress) if execute else book
        links = [
            _link(every[k - 1], "← ") if k else "",
            f'<a href="index.html">{NAME}</a>',
            _link(every[k + 1], "", " →") if k + 1 < len(every) else "",
        ]
        pages[_page(tutorial)] = _framed(f"{tutorial.number}. {tutorial.title}", "\n".join(links), _body(book))
    for name, text in pages.items():
        write_text(folder / name, text)
    return [folder / name for name in pages]


def _page(tutorial: Tutorial) -> str:
    return f"{tutorial.path.stem}.html"


def _link(tutorial: Tutorial, before: str = "", after: str = "") -> str:
    return f'<a href="{_page(tutorial)}">{before}{tutorial.number}. {escape(tutorial.title)}{after}</a>'


def _framed(title: str, links: str, body: str) -> str:
    from pygments.formatters import HtmlFormatter

    style = STYLE + HtmlFormatter(style="default").get_style_defs(".highlight")
    return FRAME.format(title=escape(title), style=style, links=links, body=body)


def _index(every: Sequence[Tutorial]) -> str:
    """The list of tutorials, each with its first paragraph."""
    entries = []
    for tutorial in every:
        paragraph = notebook(tutorial).cells[0].source.split("\n\n")[1]
        entries.append(f"<li>{_link(tutorial)}{_html(paragraph)}</li>")
    body = f'<h1>{NAME}: tutorials</h1>\n<ul class="contents">\n' + "\n".join(entries) + "\n</ul>"
    return _framed(f"{NAME}: tutorials", f'<a href="index.html">{NAME}</a>', body)


def _body(book: Any) -> str:
    """The cells of a notebook as HTML. A figure's description is the heading above it."""
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(template_name="basic", exclude_input_prompt=True, exclude_output_prompt=True)
    exporter.register_filter("markdown2html", _html)
    heading = ""
    for cell in book.cells:
        if cell.cell_type == "markdown":
            heading = (re.findall(r"^#+ (.+)$", cell.source, re.MULTILINE) or [heading])[-1]
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                output.metadata.setdefault("image/png", {})["alt"] = heading
    body, _ = exporter.from_notebook_node(book)
    return re.sub(r'href="(\d\d_\w+)\.ipynb"', r'href="\1.html"', body)


def _html(markdown: str) -> str:
    """Markdown with equations -> HTML with MathML."""
    from latex2mathml.converter import convert
    from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

    def mathml(latex: str, display: str) -> str:
        return convert(latex, display=display).replace(r"\_", "_")  # which it leaves in \text as it is

    class Renderer(IPythonRenderer):
        def block_math(self, body: str) -> str:
            return f'<span class="equation">{mathml(body, "block")}</span>'  # it scrolls if it is wide

        def inline_math(self, body: str) -> str:
            return mathml(body, "inline")

    return MarkdownWithMath(renderer=Renderer(escape=False, exclude_anchor_links=True)).render(markdown)
