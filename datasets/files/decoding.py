"""Decode image files in threads, in order, and name a file that cannot be decoded."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from pmi_cl.datasets.files.file_names import shown_name
from pmi_cl.datasets.files.image_formats import open_image
from pmi_cl.datasets.files.sixteen_bits import has_sixteen_bits, sixteen_bit_values
from pmi_cl.datasets.reading import FULL_RANGE, Reading
from pmi_cl.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

T = TypeVar("T")
_AHEAD = 256  # files that are decoded ahead of the reader
_ORIENTATION = 0x0112  # EXIF's number of the tag that says which side is up
AS_WRITTEN = Reading()


@dataclass(frozen=True)
class BadFile:
    """A file that cannot be read as an image, and why."""

    path: Path
    reason: str

    def refuse(self, skippable: bool = False) -> NoReturn:
        """Raise the UserError that names the file.

        Args:
            skippable: whether the command has a flag that skips such files.
        """
        advice = "repair it, or take it out of the folder" + (", or say --on_bad_image skip" if skippable else "")
        raise UserError(f"{shown_name(self.path)} is not a readable image ({self.reason}): {advice}")


def try_in_order(paths: Sequence[Path], work: Callable[[Path], T]) -> Iterator[T | BadFile]:
    """Yield ``work(path)`` for each path in order, computed in threads.

    Threads help because image decoders release Python's lock. Where ``work`` fails, a
    :class:`BadFile` takes the place of its result.
    """

    def try_work(path: Path) -> T | BadFile:
        try:
            return work(path)
        except OSError as error:  # its text repeats the path
            return BadFile(path, error.strerror or " ".join(str(error).split()) or type(error).__name__)
        except Exception as error:  # a decoder may raise almost any error for a damaged file
            return BadFile(path, " ".join(str(error).split()) or type(error).__name__)

    with ThreadPoolExecutor(max_workers=min(16, os.cpu_count() or 1)) as pool:
        for start in range(0, len(paths), _AHEAD):
            yield from pool.map(try_work, paths[start : start + _AHEAD])


def map_in_order(paths: Sequence[Path], work: Callable[[Path], T], skippable: bool = False) -> Iterator[T]:
    """Yield ``work(path)`` for each path in order, as :func:`try_in_order` does.

    Args:
        paths: image files.
        work: reads one of them.
        skippable: whether the command has a flag that skips such files.

    Raises:
        UserError: ``work`` failed. The message names the file.
    """
    for result in try_in_order(paths, work):
        if isinstance(result, BadFile):
            result.refuse(skippable)
        yield result


def verify_image(path: Path) -> None:
    """Check an image file without decoding it fully. Raise an error for a damaged file."""
    with open_image(path) as image:
        image.verify()


def decode_whole(path: Path) -> None:
    """Decode an image file. Raise an error for a damaged file."""
    with open_image(path) as image:
        image.load()


def square(path: Path, size: int, decoding: str, reading: Reading = AS_WRITTEN) -> Any:
    """Return an image file as a uint8 array (3, size, size).

    Args:
        decoding: "upright" for :func:`upright_square`, "squash" or "crop" for
            :func:`bicubic_square`.
    """
    if decoding == "upright":
        return upright_square(path, size, reading)
    return bicubic_square(path, size, decoding, reading)


def upright_square(path: Path, size: int, reading: Reading = AS_WRITTEN) -> Any:
    """Return the central square of an image file as a uint8 array (3, size, size).

    The image is rotated as its EXIF data says, and resized with the bilinear filter.
    """
    with open_image(path) as image:
        image.draft(None, (2 * size, 2 * size))  # a JPEG: at the smallest scale that is twice as large
        whole = _rgb(image, path, reading)
        whole.getexif()[_ORIENTATION] = image.getexif().get(_ORIENTATION, 1)
    return _upright(whole, size)


def bicubic_square(path: Path, size: int, resize: str, reading: Reading = AS_WRITTEN) -> Any:
    """Return an image file as a uint8 array (3, size, size), resized with the bicubic filter.

    The published protocols do it this way. They ignore EXIF data.

    Args:
        resize: "squash" or "crop", as in :class:`pmi_cl.datasets.input_form.InputForm`.
    """
    with open_image(path) as image:
        whole = _rgb(image, path, reading)
    return _bicubic(whole, size, resize)


def square_of(image: Image, size: int, decoding: str, reading: Reading = AS_WRITTEN) -> Any:
    """Return an image that Pillow has opened as :func:`square` returns a file.

    A JPEG that :func:`upright_square` reads at a smaller scale may differ by a few grey levels.

    Raises:
        ValueError: it has 16 bits for each channel. Its range is known from its file alone.
    """
    if image.mode.startswith("I") or image.mode == "F":
        raise ValueError(f"an image of mode {image.mode} has no range of its own: give its file, or convert it")
    whole = _on_background(image, reading)
    whole.getexif()[_ORIENTATION] = image.getexif().get(_ORIENTATION, 1)
    return _upright(whole, size) if decoding == "upright" else _bicubic(whole, size, decoding)


def _upright(whole: Image, size: int) -> Any:
    from PIL import Image, ImageOps

    return _array(ImageOps.fit(ImageOps.exif_transpose(whole), (size, size), Image.Resampling.BILINEAR))


def _bicubic(whole: Image, size: int, resize: str) -> Any:
    from PIL import Image

    shorter = min(whole.size)
    width, height = (size, size) if resize == "squash" else (size * side // shorter for side in whole.size)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return _array(whole.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + size, top + size)))


def range_and_opacity(path: Path) -> tuple[int, bool]:
    """Look at an image file before it is read.

    Return the highest colour value if it has 16 bits for each channel, else 0; and whether it has a
    channel of opacity, or a transparent colour.
    """
    with open_image(path) as image:
        deep, opacity = has_sixteen_bits(image), _has_opacity(image)
    if not deep:
        return 0, opacity
    values = sixteen_bit_values(path)
    return int(values[..., : _colours(values)].max()), opacity


def _has_opacity(image: Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info


def _rgb(image: ImageFile, path: Path, reading: Reading) -> Image:
    """Return an image that was opened with 8 bits for each channel, on the background."""
    from PIL import Image

    found: Image.Image = image
    if has_sixteen_bits(image):
        found = Image.fromarray(_eight_bits(sixteen_bit_values(path), reading.white))
    return _on_background(found, reading)


def _on_background(image: Image, reading: Reading) -> Image:
    """Return an image of 8 bits for each channel without transparency."""
    from PIL import Image

    if _has_opacity(image):
        layer = image.convert("RGBA")
        if layer.getchannel("A").getextrema()[0] == 255:
            return layer.convert("RGB")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, (*reading.background, 255)), layer)
    return image.convert("RGB")


def _colours(values: Any) -> int:
    """Return the number of channels of (h, w, c) without that of opacity."""
    return 1 if values.shape[-1] < 3 else 3


def _eight_bits(values: Any, white: int) -> Any:
    """Return 16-bit values (h, w, c) as uint8, (h, w) for grey. ``white`` becomes 255.

    The opacity of such files spans the same range, or all 16 bits.
    """
    import numpy

    colours = _colours(values)
    opacity = values[..., colours:]
    opaque = white if opacity.size and opacity.max() <= white else FULL_RANGE
    top = numpy.array([white] * colours + [opaque] * opacity.shape[-1])
    levels = ((values * 255 + top // 2) // top).clip(0, 255).astype(numpy.uint8)
    return levels[..., 0] if levels.shape[-1] == 1 else levels


def _array(image: Image) -> Any:
    import numpy

    return numpy.asarray(image).transpose(2, 0, 1)
