"""Glyphs of matplotlib's fonts, made to look like the digits of scikit-learn: 8x8 counts of ink, 0
to 16.

The real digits were scanned, cut out, scaled to bitmaps of 32x32 and counted in blocks of 4x4 (see
``datasets/seq_digits.py``). Here a glyph is rendered once and kept as two maps of distances: to its
outline and to its middle line. A sample bends a map, gives it a stroke width by a threshold, is cut
out and counted in the same way. No real digit is looked at.
"""

from __future__ import annotations

import string
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

# Of a letter, both its forms are one concept: at 8x8 pixels most look alike.
CONCEPTS = string.digits + string.ascii_lowercase
CANVAS = 48  # pixels of a rendered glyph
GLYPH = 36  # its longer side; the rest is room for bending
FORMS = {"|": "1"}  # how most people write a one, which no font has
BITMAP, BLOCK = 32, 4  # pixels of the bitmap and of the blocks that are counted
# Placeholders, brackets, mathematical symbols.
NOT_TEXT = (
    "LastResort",
    "STIXSiz",
    "cmex10",
    "cmsy10",
    "cmmi10",
    "STIXNonUni",
)


@dataclass(frozen=True)
class Glyphs:
    """Rendered glyphs.

    Attributes:
        outline: (n, 48, 48) float32, pixels to the outline: negative inside.
        pen: (n, 48, 48) float32, pixels to the middle line of the strokes.
        concepts: (n,) int64, indices into ``CONCEPTS``.
    """

    outline: Tensor
    pen: Tensor
    concepts: Tensor


def font_files() -> list[Path]:
    """Return the TrueType text fonts that come with matplotlib.

    DejaVu, STIX and Computer Modern.
    """
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return [path for path in sorted(folder.glob("*.ttf")) if not path.name.startswith(NOT_TEXT)]


def render(fonts: list[Path]) -> Glyphs:
    """Render every form of every concept in every font.

    Forms that differ only by their code point are rendered once per font.
    """
    from PIL import ImageFont

    pictures, concepts = [], []
    for path in fonts:
        font, seen = ImageFont.truetype(str(path), 96), set()
        for code, concept in _code_points(path):
            picture = _picture(font, chr(code))
            if picture is not None and picture.numpy().tobytes() not in seen:
                seen.add(picture.numpy().tobytes())
                pictures.append(picture)
                concepts.append(concept)
    ink = torch.stack(pictures)
    outline = distance(ink) - distance(~ink)
    return Glyphs(outline, distance(thinned(ink)), torch.tensor(concepts))


def _code_points(path: Path) -> list[tuple[int, int]]:
    """Return (code point, concept) of all that stands for one digit or Latin letter.

    Forms are plain, mathematical, raised, lowered and wide.
    """
    from matplotlib.ft2font import FT2Font

    found = []
    for code in sorted(FT2Font(str(path)).get_charmap()):
        plain = FORMS.get(chr(code), unicodedata.normalize("NFKC", chr(code)).lower())
        hollow = "DOUBLE-STRUCK" in unicodedata.name(chr(code), "") or "<circle>" in unicodedata.decomposition(
            chr(code)
        )
        # Which has an order of its own.
        mapped = chr(code) in CONCEPTS + string.ascii_uppercase or not path.name.startswith("cm")
        if len(plain) == 1 and plain in CONCEPTS and mapped and not hollow:
            found.append((code, CONCEPTS.index(plain)))
    return found


def _picture(font: FreeTypeFont, character: str) -> Tensor | None:
    """Return one glyph as ink (48, 48) bool, its longer side 36 pixels, or None if it is empty."""
    from PIL import Image, ImageDraw

    left, top, right, bottom = (int(edge) for edge in font.getbbox(character))
    width, height = right - left, bottom - top
    if min(width, height) < 1:
        return None
    large = Image.new("L", (width, height))
    ImageDraw.Draw(large).text((-left, -top), character, fill=255, font=font)
    large = large.crop(large.getbbox())  # raised and lowered forms leave room around them
    scale = GLYPH / max(large.size)
    size = max(1, round(large.width * scale)), max(1, round(large.height * scale))
    canvas = Image.new("L", (CANVAS, CANVAS))
    canvas.paste(large.resize(size, Image.Resampling.BOX), ((CANVAS - size[0]) // 2, (CANVAS - size[1]) // 2))
    ink = torch.frombuffer(bytearray(canvas.tobytes()), dtype=torch.uint8).view(CANVAS, CANVAS) > 127
    return ink if ink.any() else None


def distance(ink: Tensor) -> Tensor:
    """Return the Euclidean distance of each pixel to the nearest ink: (n, h, w) bool to float32, in
    pixels.

    It is exact: first along rows, then along columns.
    """
    squares = [(torch.arange(size)[:, None] - torch.arange(size)[None, :]).float() ** 2 for size in ink.shape[1:]]
    result = []
    for some in ink.split(64):
        far = torch.where(some, 0.0, 1e6)
        rows = (far[:, :, None, :] + squares[1]).amin(dim=3)  # over the ink's column
        result.append((rows[:, None, :, :] + squares[0][:, :, None]).amin(dim=2).sqrt())  # over the ink's row
    return torch.cat(result)


def thinned(ink: Tensor) -> Tensor:
    """Return the middle lines of strokes, one pixel wide: (n, h, w) bool.

    Source: Zhang and Suen, Communications of the ACM 27(3), 1984.
    """
    ink = ink.clone()
    changed = True
    while changed:
        changed = False
        for first in (True, False):
            remove = _removable(ink, first)
            changed |= bool(remove.any())
            ink &= ~remove
    return ink


def _removable(ink: Tensor, first: bool) -> Tensor:
    """Return the pixels that one half-step of the thinning takes away."""
    padded = F.pad(ink, (1, 1, 1, 1))
    height, width = ink.shape[1:]
    offsets = ((0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0), (0, 0))  # clockwise from north
    around = [padded[:, y : y + height, x : x + width] for y, x in offsets]
    count = torch.stack(around).sum(0)
    starts = torch.stack([~a & b for a, b in zip(around, around[1:] + around[:1], strict=True)]).sum(0)
    north, east, south, west = around[::2]
    kept_by_side = (
        ~(north & east & south) & ~(east & south & west) if first else ~(north & east & west) & ~(north & south & west)
    )
    return ink & (count >= 2) & (count <= 6) & (starts == 1) & kept_by_side


def draw(glyphs: Glyphs, rows: Tensor, generator: Generator) -> Tensor:
    """Draw one bent sample of each chosen glyph: rows (n,) to counts (n, 8, 8), 0 to 16, uint8."""
    n = len(rows)
    with_pen = _uniform(n, 0, 1, generator) < 0.5
    maps = torch.where(with_pen[:, None, None], glyphs.pen[rows], glyphs.outline[rows])
    noise = torch.randn(n, 3, 4, 4, generator=generator)
    noise = F.interpolate(noise, size=(CANVAS, CANVAS), mode="bicubic", align_corners=True)
    grid = _affine_grid(n, generator) + _uniform(n, 0, 0.12, generator)[:, None, None, None] * noise[:, :2].permute(
        0, 2, 3, 1
    )
    maps = F.grid_sample(maps[:, None], grid, padding_mode="border", align_corners=False)[:, 0]
    width = torch.where(with_pen, _uniform(n, 1.0, 3.8, generator), _uniform(n, -1.0, 1.2, generator))
    maps = maps - width[:, None, None] + 0.4 * noise[:, 2]
    return counts(cut_out(maps, generator))


def _affine_grid(n: int, generator: Generator) -> Tensor:
    """Return sampling positions (n, 48, 48, 2): random turns (15 degrees), slants, stretches."""
    angle, slant = _uniform(n, -0.26, 0.26, generator), _uniform(n, -0.35, 0.35, generator)
    x_scale, y_scale = _uniform(n, 0.85, 1.2, generator), _uniform(n, 0.95, 1.1, generator)
    first = torch.stack([angle.cos() * x_scale, (slant - angle.sin()) * y_scale], dim=1)
    second = torch.stack([angle.sin() * x_scale, angle.cos() * y_scale], dim=1)
    theta = torch.cat([torch.stack([first, second], dim=1), torch.zeros(n, 2, 1)], dim=2)
    return F.affine_grid(theta, [n, 1, CANVAS, CANVAS], align_corners=False)


def cut_out(maps: Tensor, generator: Generator) -> Tensor:
    """Cut out the ink, where a map is negative, and scale it to bitmaps (n, 32, 32) bool of full
    height.

    Half of the samples keep about their own proportions. The others are drawn towards one width, as
    on forms on which every character has the same box.
    """
    ink = maps < 0
    (top, bottom), (left, right) = _extent(ink.any(dim=2)), _extent(ink.any(dim=1))
    own = (right - left) / (bottom - top) * BITMAP * _uniform(len(maps), 0.8, 1.25, generator)
    common = _uniform(len(maps), 14, 26, generator)
    width = torch.where(_uniform(len(maps), 0, 1, generator) < 0.5, own, common).clamp(6, BITMAP)
    steps = (torch.arange(BITMAP) + 0.5 - BITMAP / 2) / BITMAP  # -1/2 to 1/2 over the bitmap
    y = (top + bottom)[:, None] / 2 + steps * (bottom - top)[:, None]
    x = (left + right)[:, None] / 2 + steps * BITMAP * ((right - left) / width)[:, None]
    grid = torch.stack([x[:, None, :].expand(-1, BITMAP, -1), y[:, :, None].expand(-1, -1, BITMAP)], dim=3)
    grid = grid / (CANVAS / 2) - 1
    return F.grid_sample(maps[:, None], grid, padding_mode="border", align_corners=False)[:, 0] < 0


def _extent(any_ink: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first true position of each row and one past the last, float32.

    It is the whole row where there is none.
    """
    size = any_ink.shape[1]
    numbers = any_ink.to(torch.uint8)
    start = numbers.argmax(dim=1)
    stop = size - numbers.flip(1).argmax(dim=1)
    return start.float(), stop.float()


def counts(bitmaps: Tensor) -> Tensor:
    """Count the ink of each block of 4x4 pixels: (n, 32, 32) bool to (n, 8, 8) uint8, 0 to 16."""
    blocks = bitmaps.unflatten(2, (-1, BLOCK)).unflatten(1, (-1, BLOCK))
    return blocks.sum(dim=(2, 4)).to(torch.uint8)


def _uniform(n: int, low: float, high: float, generator: Generator) -> Tensor:
    return low + (high - low) * torch.rand(n, generator=generator)
