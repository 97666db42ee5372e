"""Open image files of the four formats that are read, and name the format of any other file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

# Pillow knows forty formats more. Some start another program (EPS: Ghostscript), whatever the name
# of the file is.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
_START = 512  # bytes that are looked at to name another format
# (place of the bytes, bytes, what such a file is)
_OTHERS = (
    (0, b"GIF8", "GIF"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "TIFF"),
    (0, b"%!PS", "EPS"),
    (0, b"\xc5\xd0\xd3\xc6", "EPS"),
    (0, b"%PDF", "PDF"),
    (0, b"8BPS", "Photoshop"),
    (0, b"\0\0\1\0", "ICO"),
    (0, b"\xd7\xcd\xc6\x9a", "WMF"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftypheic", "HEIC"),
    (4, b"ftypheix", "HEIC"),
    (4, b"ftypmif1", "HEIC"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\x93NUMPY", "NumPy"),
    (0, b"\x89HDF", "HDF5"),
    (128, b"DICM", "DICOM"),
    (0, b"PK\x03\x04", "ZIP"),
    (0, b"\x1f\x8b", "gzip"),
    (0, b"P1", "PPM"),
    (0, b"P2", "PPM"),
    (0, b"P3", "PPM"),
    (0, b"P4", "PPM"),
    (0, b"P5", "PPM"),
    (0, b"P6", "PPM"),
)
_MARKUP = {b"<svg": "SVG", b"<html": "a web page", b"<!doctype html": "a web page"}


class OtherFormat(Exception):
    """A file is no image of the formats that are read. Its text says what the file is."""


@contextmanager
def open_image(path: Path) -> Iterator[ImageFile]:
    """Open an image file of :data:`FORMATS`, whatever its name ends with.

    Raises:
        OtherFormat: the file has another format.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        image = Image.open(path, formats=FORMATS)
    except UnidentifiedImageError as error:
        raise OtherFormat(_format_of(path)) from error
    with image:
        yield image


def _format_of(path: Path) -> str:
    """Say what a file is that is none of :data:`FORMATS`. Nothing but its first bytes is read."""
    with path.open("rb") as file:
        start = file.read(_START)
    if not start:
        return "it is empty"
    kinds = [kind for place, mark, kind in _OTHERS if start[place : place + len(mark)] == mark]
    kinds += [kind for mark, kind in _MARKUP.items() if mark in start.lower()]
    return f"it is {kinds[0]}, not PNG, JPEG, WebP or BMP" if kinds else "of no known format"
