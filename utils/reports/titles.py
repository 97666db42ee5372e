"""Break the titles of pictures into lines where a reader would, and put them above a figure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

POINTS = 11  # size of a title
LETTERS_PER_INCH = 10  # of a title of that size
_LINE = 0.21  # height of its lines, in inches
_PART, _CLAUSE = re.compile(r"(?<=\d:) |(?<=;) "), re.compile(r"(?<=,) ")
_WORD = re.compile(r"(?<!\btask)(?<!\bseed) (?!%)")  # "task 3" and "84.99 %" stay together


def title_lines(title: str, letters: int) -> list[str]:
    """Return a title in lines of at most ``letters`` letters.

    A line ends behind a number and its colon ("seed 3:"), or behind a semicolon. A part that is
    longer than a line ends it behind a comma, then between words, and what follows such a part
    begins a line. A word that is too long is cut behind a mark.
    """
    lines: list[str] = []
    whole = True
    for part in _PART.split(title):
        if lines and whole and len(lines[-1]) + 1 + len(part) <= letters:
            lines[-1] += f" {part}"
        else:
            filled = _filled(part, (_CLAUSE, _WORD), letters)
            lines, whole = lines + filled, len(filled) == 1
    return lines


def _filled(text: str, breaks: Sequence[re.Pattern[str]], letters: int) -> list[str]:
    """Return lines that are filled piece by piece, each piece as ``breaks[0]`` splits the text."""
    if not breaks:
        return _cut(text, letters)
    lines: list[str] = []
    for piece in breaks[0].split(text):
        if lines and len(lines[-1]) + 1 + len(piece) <= letters:
            lines[-1] += f" {piece}"
        else:
            lines += _filled(piece, breaks[1:], letters)
    return lines


def _cut(word: str, letters: int) -> list[str]:
    """Return a word in parts that fit, cut behind a mark in the second half of a line, if any."""
    parts = []
    while len(word) > letters:
        mark = max(word.rfind(mark, letters // 2, letters) for mark in "_-/.")
        end = mark + 1 if mark > 0 else letters
        parts.append(word[:end])
        word = word[end:]
    return [*parts, word]


def put_title(figure: Figure, title: str) -> None:
    """Write a title above a figure, which becomes higher where the title has several lines."""
    lines = title_lines(title, int(figure.get_figwidth() * LETTERS_PER_INCH))
    figure.set_figheight(figure.get_figheight() + _LINE * (len(lines) - 1))
    figure.suptitle("\n".join(lines), fontsize=POINTS, parse_math=False)
