"""Read the arrays of a MATLAB file of version 5, the form of SVHN."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pmi_cl.errors import UserError

if TYPE_CHECKING:
    import numpy

# Codes of MathWorks' MAT-File Format, table 1-1: the type of the values of an element.
NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
MATRIX, COMPRESSED = 14, 15
HEADER = 128  # bytes
VERSION_5 = b"\x00\x01IM"  # little-endian


def read_mat(path: Path) -> dict[str, numpy.ndarray]:
    """Return the numeric arrays of a MATLAB file of version 5 by their names.

    They have the type in which the file stores them, which may be smaller than MATLAB's.

    Raises:
        UserError: the file has another form.
    """
    content = path.read_bytes()
    try:
        if content[124:HEADER] != VERSION_5:
            raise ValueError("it is not of version 5")
        return dict(_matrix(body) for code, body in _elements(content[HEADER:]) if code == MATRIX)
    except (ValueError, KeyError, zlib.error) as error:
        fault = str(error).strip("'") or type(error).__name__
        raise UserError(f"{path} cannot be read ({fault}): delete it, and the next run fetches it") from error


def _elements(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (code, values) of the elements in a row; what is compressed is unpacked."""
    place = 0
    while place < len(content):
        code, length = _number(content, place), _number(content, place + 4)
        if code >> 16:  # a short element: its length, its code and up to four bytes share eight
            code, start, end, step = code & 0xFFFF, place + 4, place + 4 + (code >> 16), place + 8
        else:
            start = place + 8
            end = start + length
            step = end if code == COMPRESSED else end + -length % 8  # values fill up to eight bytes
        if end > len(content):
            raise ValueError("it ends too early")
        if code == COMPRESSED:
            yield from _elements(zlib.decompress(content[start:end]))
        else:
            yield code, content[start:end]
        place = step


def _number(content: bytes, place: int) -> int:
    return int.from_bytes(content[place : place + 4], "little")


def _matrix(content: bytes) -> tuple[str, numpy.ndarray]:
    """Return the name and the values of an array, whose elements are flags, sides, name, values."""
    import numpy

    elements = list(_elements(content))
    if len(elements) < 4 or elements[3][0] not in NUMBERS:
        raise ValueError("it holds more than arrays of numbers")
    (_, sides), (_, name), (code, values) = elements[1:4]
    shape = numpy.frombuffer(sides, "<i4").tolist()
    return name.decode("latin-1"), numpy.frombuffer(values, f"<{NUMBERS[code]}").reshape(shape, order="F")
