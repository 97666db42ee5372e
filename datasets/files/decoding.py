"""Decodes image files in threads and in order, and names the one that cannot be decoded."""

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
_AT_ONCE = 256  # what is decoded ahead of the reader


def in_order(paths: Sequence[Path], work: Callable[[Path], T]) -> Iterator[T]:
    """What ``work`` gives for each path, computed in threads: image decoders let others run meanwhile.

    Raises:
        UserError: ``work`` failed, which names the file.
    """
    from PIL import UnidentifiedImageError

    def guarded(path: Path) -> T:
        try:
            return work(path)
        except Exception as error:  # a damaged file can raise almost anything in a decoder
            unknown = isinstance(error, UnidentifiedImageError)
            reason = "of no known format" if unknown else " ".join(str(error).split()) or type(error).__name__
            raise UserError(
                f"{path} is not a readable image ({reason}): repair it, or take it out of the folder"
            ) from error

    with ThreadPoolExecutor(max_workers=min(16, os.cpu_count() or 1)) as pool:
        for start in range(0, len(paths), _AT_ONCE):
            yield from pool.map(guarded, paths[start : start + _AT_ONCE])


def verify(path: Path) -> None:
    """Looks at an image file without decoding it whole; raises whatever Pillow does for one that is damaged."""
    from PIL import Image

    with Image.open(path) as image:
        image.verify()


def upright_square(path: Path, size: int) -> Any:
    """The central square of an image file as a uint8 array (3, size, size), bilinear, turned upright as its EXIF data tells."""
    from PIL import Image, ImageOps

    with Image.open(path) as image:
        image.draft(None, (2 * size, 2 * size))  # a JPEG is decoded at the smallest scale that is still twice as large
        upright = _rgb(ImageOps.exif_transpose(image))
    return _array(ImageOps.fit(upright, (size, size), Image.Resampling.BILINEAR))


def bicubic_square(path: Path, size: int, resize: str) -> Any:
    """An image file as a uint8 array (3, size, size), bicubic, as the published protocols do it: EXIF data plays no part.

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

    if image.mode.startswith("I"):  # 16 bits of grey, which convert() would cut off at 255
        image = Image.fromarray((numpy.asarray(image).astype(numpy.int64) >> 8).clip(0, 255).astype(numpy.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # the way that Pillow asks for, with the same colours
    return image.convert("RGB")


def _array(image: Image) -> Any:
    import numpy

    return numpy.asarray(image).transpose(2, 0, 1)
