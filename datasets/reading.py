"""Say how the values in an image file become 8-bit colours."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pmi_cl.errors import UserError, unknown_name

FULL_RANGE = 65535  # the highest value that 16 bits hold


@dataclass(frozen=True)
class Reading:
    """Say how the values in an image file become 8-bit colours.

    Attributes:
        background: the colour that transparent images are laid on: red, green and blue, 0 to 255.
        white: the value that becomes 255 in a file with 16 bits for each channel.
    """

    background: tuple[int, int, int] = (255, 255, 255)
    white: int = FULL_RANGE

    @property
    def text(self) -> str:
        """The same in words, for records and the keys of caches."""
        return f"on {hex_of(self.background)}, 16 bits up to {self.white}"


def hex_of(colour: tuple[int, int, int]) -> str:
    """Return a colour as #rrggbb."""
    return "#" + "".join(f"{level:02x}" for level in colour)


def colour_named(name: str | None) -> tuple[int, int, int]:
    """Return red, green and blue, 0 to 255, of a colour's name or of #rrggbb. None is white.

    Raises:
        UserError: there is no such colour.
    """
    from PIL import ImageColor

    word = "white" if name is None else name.strip().lower()
    if word not in ImageColor.colormap and not re.fullmatch("#[0-9a-f]{6}", word):
        near = str(unknown_name("colour", word, ImageColor.colormap))
        advice = near if "did you mean" in near else "give the name of a colour, such as black, or #rrggbb"
        raise UserError(f"--background {name}: {advice}")
    red, green, blue = ImageColor.getrgb(word)[:3]
    return red, green, blue
