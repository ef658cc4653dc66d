"""After the build: each link of each page leads somewhere, and no page loads anything from elsewhere."""

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sphinx.application import Sphinx
from sphinx.util import logging

LOG = logging.getLogger(__name__)


def problems(folder: Path) -> Iterator[str]:
    """What is wrong with the links of the pages in a folder, one line each."""
    texts = {page: page.read_text(encoding="utf-8") for page in sorted(folder.rglob("*.html"))}
    anchors = {page: set(re.findall(r'\s(?:id|name)="([^"]+)"', text)) for page, text in texts.items()}
    for page, text in texts.items():
        for tag, name, link in re.findall(r"<(\w+)\b[^>]*?\s(href|src)=\"([^\"]*)\"", text):
            url = urlsplit(link)
            if url.scheme or url.netloc:
                if url.scheme != "data" and (name == "src" or tag != "a"):
                    yield f"{page.relative_to(folder)}: loads {link} from elsewhere"
                continue
            target = page.parent / unquote(url.path) if url.path else page
            target = target.resolve() / "index.html" if target.is_dir() else target.resolve()
            if not target.exists():
                yield f"{page.relative_to(folder)}: {link} leads nowhere"
            elif url.fragment and unquote(url.fragment) not in anchors.get(target, {unquote(url.fragment)}):
                yield f"{page.relative_to(folder)}: {link} has no such anchor"


def check(app: Sphinx, error: Exception | None) -> None:
    if not error and app.builder.format == "html":
        for problem in problems(Path(app.outdir)):
            LOG.warning(problem)


def setup(app: Sphinx) -> dict:
    app.connect("build-finished", check, priority=900)  # after all files are copied
    return {"parallel_read_safe": True}
