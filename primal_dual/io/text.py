"""Text from files, names and errors, made safe to print."""

import re


def printable(text: object) -> str:
    """Text with its control characters spelled out, so that none of them reaches a terminal or breaks a line.

    Examples
    --------
    >>> printable("a name with \\x1b[31m colour")
    'a name with \\\\x1b[31m colour'
    """
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", lambda found: ascii(found[0])[1:-1], str(text))
