"""Text from files, names and errors, made safe to print."""

import codecs
import re
import sys
import unicodedata
from typing import Any

SIGNS = str.maketrans(
    {"±": "+-", "→": "->", "←": "<-", "⇒": "=>", "≤": "<=", "≥": ">=", "≠": "!=", "≈": "~", "≃": "~", "∈": "in"}
    | {"∑": "sum", "∏": "prod", "√": "sqrt ", "∞": "inf", "⟨": "<", "⟩": ">", "‖": "||", "·": "*", "−": "-", "─": "-"}
    | {"⋯": "...", "•": "*", "⌈": "[", "⌉": "]", "⊥": "_|_", "⊤": "T", "⊙": "*", "′": "'"}
    | {"\u0302": "^", "\u0303": "~", "\u0304": "_bar"}  # over the letter before it, in mathematics
)


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
    for stream in filter(None, (sys.stdout, sys.stderr)):  # one that is closed is None
        stream.reconfigure(errors="spelled out")  # type: ignore[union-attr]


def _spell_out(error: Any) -> tuple[str, int]:
    return spelled_out(error.object[error.start : error.end]), error.end


def spelled_out(text: str) -> str:
    """Text in ASCII, Greek letters by name and letters without accents; a question mark for what has no spelling.

    Examples
    --------
    >>> spelled_out("98 \u00b1 1\u2026"), spelled_out("\u2211 \u03b1 \u2264 \u03a6")
    ('98 +- 1...', 'sum alpha <= Phi')
    """
    signs = unicodedata.normalize("NFKD", text.translate(SIGNS)).replace("⁄", "/").replace("−", "-")
    letters = (_greek_by_name(sign) for sign in signs if not unicodedata.combining(sign))
    return "".join(letters).encode("ascii", "replace").decode()


def _greek_by_name(sign: str) -> str:
    words = unicodedata.name(sign, "").replace("LAMDA", "LAMBDA").split()
    if words[:1] != ["GREEK"]:
        return sign
    return words[-1].title() if sign.isupper() else words[-1].lower()
