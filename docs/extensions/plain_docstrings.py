"""Docstrings are plain text for readers of the code: here they become reStructuredText, with links to public names."""

import re

from sphinx.application import Sphinx

import primal_dual
import torch_impl

PUBLIC = {name: f"{package.__name__}.{name}" for package in (torch_impl, primal_dual) for name in package.__all__}


def reference(code: re.Match) -> str:
    """`name` as a link, where it is public; as code, where it is not."""
    text = code[1]
    return f":py:obj:`{text} <{PUBLIC[text]}>`" if text in PUBLIC else f"``{text}``"


def restructured(line: str) -> str:
    """A line of a docstring, with what reStructuredText would take for markup escaped."""
    pieces = re.split(r"(`[^`]+`)", line)
    pieces[::2] = [re.sub(r"(?<=\w)_(?!\w)|[|*\\]", r"\\\g<0>", text) for text in pieces[::2]]
    return "".join(re.sub(r"`([^`]+)`", reference, piece) for piece in pieces)


def rewrite(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Examples stay as they are; an indented equation becomes a block of text."""
    rewritten: list[str] = []
    in_example, in_section, in_equation = False, False, False
    for number, line in enumerate(lines):
        underlined = number + 1 < len(lines) and re.fullmatch(r"-{3,}", lines[number + 1])
        in_section |= bool(underlined)
        in_example = line == "Examples" if underlined else in_example
        if in_example or (in_section and re.fullmatch(r"-{3,}", line)):
            rewritten.append(line)
            continue
        indented = not in_section and line.startswith("    ")
        if indented and not in_equation:
            rewritten += ["", ".. code-block:: text", ""]
        in_equation = indented or (in_equation and not line)
        rewritten.append(line if in_equation else restructured(line))
    lines[:] = rewritten


def name_arrays(
    app: Sphinx, what: str, name: str, obj: object, options: object, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """What is Any for the type checker is called Array in the code, and here."""
    return tuple(text and text.replace("[Any, '", "[Array, '") for text in (signature, returns))


def setup(app: Sphinx) -> dict:
    app.connect("autodoc-process-docstring", rewrite, priority=100)  # before numpydoc
    app.connect("autodoc-process-signature", name_arrays)
    return {"parallel_read_safe": True}
