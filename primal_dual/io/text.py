"""Text from files, names and errors, made safe to print."""

import codecs
import re
import sys
import unicodedata
from typing import Any


def printable(text: object) -> str:
    """Text with its control characters spelled out, so that none of them reaches a terminal or breaks a line.

    Examples
    --------
    >>> printable("a name with \\x1b[31m colour")
    'a name with \\\\x1b[31m colour'
    """
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", lambda found: ascii(found[0])[1:-1], str(text))


def print_in_any_locale() -> None:
    """Let characters that the encoding of the terminal lacks be spelled out, as +- and ..., rather than be an error."""
    codecs.register_error("spelled out", _spell_out)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="spelled out")  # type: ignore[union-attr]


def _spell_out(error: Any) -> tuple[str, int]:
    return spelled_out(error.object[error.start : error.end]), error.end


def spelled_out(text: str) -> str:
    """Text in ASCII; a question mark for what has no such spelling.

    Examples
    --------
    >>> spelled_out("98 \u00b1 1\u2026")
    '98 +- 1...'
    """
    text = text.replace("\u00b1", "+-").replace("\u2192", "->").replace("\u2190", "<-").replace("\u2500", "-")
    return unicodedata.normalize("NFKD", text).encode("ascii", "replace").decode()
