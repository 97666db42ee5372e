"""Read PNG files that have 16 bits for each channel. Pillow keeps the upper eight of colours."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pmi_cl.datasets.files.image_formats import open_image

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

# How Pillow calls 16-bit colours: (for the upper bytes, for the lower ones).
_BYTES = {"RGB;16B": ("RGB;16B", "RGB;16L"), "RGBA;16B": ("RGBA;16B", "RGBA;16L")}
_GREY_ALPHA = "LA;16B"


def has_sixteen_bits(image: ImageFile) -> bool:
    """Return whether an image that was opened, and not read yet, has 16 bits for each channel."""
    return image.mode.startswith("I") or _layout(image) in (*_BYTES, _GREY_ALPHA)


def sixteen_bit_values(path: Path) -> Any:
    """Return the values of an image with 16 bits as int64 (h, w, c).

    A channel of opacity is the last one (c is 2 or 4). A transparent colour (PNG's ``tRNS``) makes
    one: 0 where the image has the colour, else 65535.
    """
    import numpy

    with open_image(path) as image:
        layout, colour = _layout(image), image.info.get("transparency")
        if image.mode.startswith("I"):
            values = numpy.asarray(image).astype(numpy.int64)[..., None]
        elif layout == _GREY_ALPHA:  # four bytes a pixel, which Pillow hands over as such
            upper_lower = _decoded(image, "RGBA").reshape(*image.size[::-1], 2, 2)
            values = upper_lower[..., 0] * 256 + upper_lower[..., 1]
        else:
            values = _decoded(image, _BYTES[layout][0]) * 256
            with open_image(path) as again:
                values = values + _decoded(again, _BYTES[layout][1])
    if colour is None:
        return values
    opaque = (values != numpy.array(colour)).any(-1, keepdims=True)
    return numpy.concatenate([values, opaque * 65535], -1)


def _layout(image: ImageFile) -> str:
    """Return Pillow's name for the order of the bytes in a PNG; empty for another format."""
    if image.format != "PNG" or not image.tile:
        return ""
    return str(image.tile[0][3])


def _decoded(image: ImageFile, layout: str) -> Any:
    """Return the bytes of an image that are found under a layout, as int64 (h, w, c)."""
    import numpy

    image.tile = [(*tile[:3], layout) for tile in image.tile]  # type: ignore[misc]
    return numpy.asarray(image).astype(numpy.int64)
