"""Decode image files in threads, in order, and name a file that cannot be decoded."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pmi_cl.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

T = TypeVar("T")
_AHEAD = 256  # files that are decoded ahead of the reader


def map_in_order(paths: Sequence[Path], work: Callable[[Path], T]) -> Iterator[T]:
    """Yield ``work(path)`` for each path in order, computed in threads.

    Threads help because image decoders release Python's lock.

    Raises:
        UserError: ``work`` failed. The message names the file.
    """
    from PIL import UnidentifiedImageError

    def try_work(path: Path) -> T:
        try:
            return work(path)
        except Exception as error:  # a decoder may raise almost any error for a damaged file
            unknown = isinstance(error, UnidentifiedImageError)
            reason = "of no known format" if unknown else " ".join(str(error).split()) or type(error).__name__
            raise UserError(
                f"{path} is not a readable image ({reason}): repair it, or take it out of the folder"
            ) from error

    with ThreadPoolExecutor(max_workers=min(16, os.cpu_count() or 1)) as pool:
        for start in range(0, len(paths), _AHEAD):
            yield from pool.map(try_work, paths[start : start + _AHEAD])


def verify_image(path: Path) -> None:
    """Check an image file without decoding it fully. Raise Pillow's error for a damaged file."""
    from PIL import Image

    with Image.open(path) as image:
        image.verify()


def upright_square(path: Path, size: int) -> Any:
    """Return the central square of an image file as a uint8 array (3, size, size).

    The image is rotated as its EXIF data says, and resized with the bilinear filter.
    """
    from PIL import Image, ImageOps

    with Image.open(path) as image:
        image.draft(None, (2 * size, 2 * size))  # a JPEG: at the smallest scale that is twice as large
        upright = _rgb(ImageOps.exif_transpose(image))
    return _array(ImageOps.fit(upright, (size, size), Image.Resampling.BILINEAR))


def bicubic_square(path: Path, size: int, resize: str) -> Any:
    """Return an image file as a uint8 array (3, size, size), resized with the bicubic filter.

    The published protocols do it this way. They ignore EXIF data.

    Args:
        resize: "squash" or "crop", as in :class:`pmi_cl.datasets.input_form.InputForm`.
    """
    from PIL import Image

    with Image.open(path) as image:
        whole = _rgb(image)
    shorter = min(whole.size)
    width, height = (size, size) if resize == "squash" else (size * side // shorter for side in whole.size)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return _array(whole.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + size, top + size)))


def _rgb(image: Image) -> Image:
    import numpy
    from PIL import Image

    if image.mode.startswith("I"):  # 16-bit grey, which convert() would clip at 255
        image = Image.fromarray((numpy.asarray(image).astype(numpy.int64) >> 8).clip(0, 255).astype(numpy.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow asks for this; the colours are the same
    return image.convert("RGB")


def _array(image: Image) -> Any:
    import numpy

    return numpy.asarray(image).transpose(2, 0, 1)
