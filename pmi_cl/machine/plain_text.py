"""Read texts that came in as bytes, from words, file names and files, and shorten them for a line.

Where bytes are not those of the locale, Python keeps them as lone surrogates (PEP 383).
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path

LONGEST = 100  # letters of a value in an error line


def printable(text: str | Path) -> str:
    """Return the text, or a path, in characters that can be written as UTF-8.

    Lone surrogates that stand for UTF-8 bytes become the characters that were meant, as under
    ``LC_ALL=C``. Other bytes become escapes: ``caf\\xe9``.
    """
    text = str(text)
    if text.isascii():
        return text
    try:
        raw = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a surrogate that stands for no byte, as "\ud800" in a JSON file
        raw = text.encode("utf-8", "backslashreplace")
    return raw.decode("utf-8", "backslashreplace")


def typed_text(text: str) -> str:
    """Return a typed text in the characters that were meant. Raise ValueError: it is not UTF-8."""
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8")
    except UnicodeError:
        raise ValueError("it is not UTF-8: type it in a terminal whose text is UTF-8") from None


def excerpt(value: object) -> str:
    """Return a value as an error line shows it: on one line, of at most ``LONGEST`` letters."""
    try:
        text = printable(str(value))
    except (ValueError, RecursionError):  # a number of too many digits, or lists that are nested too deep
        return f"(a {type(value).__name__} too long to show)"
    text = " ".join(text.splitlines())
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def few(texts: Iterable[str], most: int = 3) -> str:
    """Return the first texts of a list for a message: "a, b, c, ...".

    Args:
        texts: more than ``most`` end in "...". Those behind are not made.
    """
    first = list(islice(texts, most + 1))
    return ", ".join([*first[:most], *(["..."] if len(first) > most else [])])


def is_number(word: str) -> bool:
    """Return whether a typed word is a number, such as "-1e-3"."""
    try:
        float(word)
    except ValueError:
        return False
    return True
