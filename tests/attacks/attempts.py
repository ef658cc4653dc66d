"""Attempts to have the program end without a sentence, or be wrong without a word; each by a seed of its own."""

import signal
from collections import defaultdict
from contextlib import contextmanager

import numpy as np

SURVIVED = defaultdict(list)  # whether each attempt was, by the area that was attacked
SECONDS = 60  # that one attempt may take


def attack(area, attempts, attempt):
    """Make attempts: calls of attempt(rng), which raise an AssertionError for what is wrong. All are made, and told."""
    broken = []
    for seed in range(attempts):
        try:
            with time_limit():
                attempt(np.random.default_rng(seed))
            SURVIVED[area].append(True)
        except Exception as error:
            SURVIVED[area].append(False)
            broken.append(f"{area}, seed {seed}: {type(error).__name__}: {error}")
    assert not broken, "\n\n".join(broken)


@contextmanager
def time_limit():
    def ring(number, frame):
        raise TimeoutError(f"expected an end within {SECONDS} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def refused(call, *arguments, lines=False):
    """(what a call returns, None), or (None, its refusal): a ValueError or TypeError whose message is one line."""
    try:
        return call(*arguments), None
    except (ValueError, TypeError, OSError) as error:
        message = str(error)
        if lines:
            message = " ".join(message.split())
        assert message and "\n" not in message and len(message) < 1000, repr(error)
        assert message.isprintable(), repr(message)
        return None, message


def choice(rng, options):
    return options[rng.integers(len(options))]


def damaged(content, rng):
    """Bytes with one to three damages."""
    for _ in range(rng.integers(1, 4)):
        place = int(rng.integers(len(content) + 1))
        length, more = int(rng.integers(1, 40)), rng.bytes(int(rng.integers(1, 9)))
        flipped = bytes([content[place] ^ 1 << int(rng.integers(8))]) if place < len(content) else b""
        content = choice(
            rng,
            [
                content[:place] + flipped + content[place + 1 :],
                content[:place] + flipped + content[place + 1 :],
                content[:place],
                content[:place] + content[place + length :],
                content[:place] + more + content[place:],
                content[:place] + more + content[place + len(more) :],
                content[:place] + bytes(min(length, len(content) - place)) + content[place + length :],
            ],
        )
    return content
