"""What loaders say to their users: `Say`, and errors, names and lines made short enough for one line."""

from collections.abc import Callable, Sequence

Say = Callable[[str], object]  # is called with each message, such as print


def say_nothing(message: object) -> None:
    """Ignore a message: the `Say` of callers who want none.

    Examples
    --------
    >>> say_nothing("decoded 1000 images")
    """


def one_line(message: object) -> str:
    """A text or an error in one line of at most 200 characters; the name of its type if that is empty.

    Examples
    --------
    >>> one_line(ValueError("two\\nlines")), one_line(KeyError())
    ('two lines', 'KeyError')
    """
    return " ".join(str(message).split())[:200] or type(message).__name__


def first_names(names: Sequence[object]) -> str:
    """The first five names, and how many more there are.

    Examples
    --------
    >>> first_names("abcdefg")
    'a, b, c, d, e and 2 more'
    """
    return ", ".join(map(str, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def quoted_ends(line: str | bytes) -> str:
    """The repr of a line; of a long one, only its beginning and its end.

    Examples
    --------
    >>> quoted_ends("1,2:a"), quoted_ends(b"0123456789" * 6)
    ("'1,2:a'", "b'0123456789012345678901234 ... 01234567890123456789'")
    """
    if len(line) <= 50:
        return repr(line)
    if isinstance(line, bytes):
        return repr(line[:25] + b" ... " + line[-20:])
    return repr(f"{line[:25]} ... {line[-20:]}")
