"""Describe the images that a network takes, and bring images into this form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Generator, Tensor

SCALE = (0.9, 1.0)  # part of the image that a random crop keeps (MoE-Adapters4CL, ZSCL)
RATIO = (3 / 4, 4 / 3)  # width over height of a random crop (torchvision)
ATTEMPTS = 10  # draws of a crop before the whole image is taken (torchvision)
CUBIC = -0.5  # parameter of the bicubic kernel in Pillow and in torch's antialiased resize


@dataclass(frozen=True)
class InputForm:
    """Describe the images that a network takes.

    Attributes:
        size: side of the square, in pixels.
        mean: mean of each channel, in [0, 1].
        std: standard deviation of each channel, in [0, 1].
        resize: "squash" resizes each side by itself (PROOF's protocol). "crop" makes the shorter
            side ``size`` and keeps the middle (CLIP's own).
        augment: "none"; "crop" for a random part of at least nine tenths of the image, resized; or
            "own" for the augmentation of the data set.
    """

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: str = "squash"
    augment: str = "none"

    def __post_init__(self) -> None:
        if self.resize not in ("squash", "crop") or self.augment not in ("none", "crop", "own"):
            both = f"resize {self.resize!r} must be squash or crop, augment {self.augment!r} none, crop or own"
            raise ValueError(both)


def resized(images: Tensor, size: int, resize: str) -> Tensor:
    """Resize uint8 images (b, c, h, w) to (b, c, size, size), bicubic with antialias.

    The result is Pillow's within two grey levels.

    Args:
        resize: "squash" or "crop", see :class:`InputForm`.
    """
    height, width = images.shape[-2:]
    shorter = min(height, width)
    target = (size, size) if resize == "squash" else (size * height // shorter, size * width // shorter)
    scaled = images if target == (height, width) else _bicubic(images, target)
    top, left = round((target[0] - size) / 2), round((target[1] - size) / 2)
    return scaled[..., top : top + size, left : left + size]


def _bicubic(images: Tensor, target: tuple[int, int]) -> Tensor:
    import torch
    from torch.nn.functional import interpolate

    if _on_cpu(images):  # torch has code for bytes that is twenty times as fast
        return interpolate(images.contiguous(memory_format=torch.channels_last), target, mode="bicubic", antialias=True)
    return _levels(interpolate(images.float(), target, mode="bicubic", antialias=True))


def _on_cpu(images: Tensor) -> bool:
    return images.device.type == "cpu"


def _levels(images: Tensor) -> Tensor:
    """Round to grey levels. Bicubic weights overshoot at edges, hence the clamp."""
    import torch

    return images.round().clamp(0, 255).to(torch.uint8)


def draw_windows(count: int, height: int, width: int, generator: Generator) -> Tensor:
    """Draw random windows: int64 (count, 4) on the CPU, each row top, left, height and width.

    The distribution is that of torchvision's RandomResizedCrop with :data:`SCALE` and
    :data:`RATIO`. If none of :data:`ATTEMPTS` windows fits into the image, the window is the
    largest one in the middle that keeps to :data:`RATIO`.
    """
    import torch

    low, high = torch.tensor(RATIO).log()
    area = height * width * torch.empty(count, ATTEMPTS).uniform_(*SCALE, generator=generator)
    ratio = (low + (high - low) * torch.rand(count, ATTEMPTS, generator=generator)).exp()
    widths, heights = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
    fits = (widths >= 1) & (heights >= 1) & (widths <= width) & (heights <= height)
    first = torch.arange(count), fits.int().argmax(1)
    whole = torch.tensor([min(height, round(width / RATIO[0])), min(width, round(height * RATIO[1]))])
    sides = torch.where(fits.any(1)[:, None], torch.stack([heights[first], widths[first]], 1).long(), whole)
    room = torch.tensor([height, width]) - sides
    places = (torch.rand(count, 2, generator=generator) * (room + 1)).long().minimum(room)
    places = torch.where(fits.any(1)[:, None], places, room // 2)
    return torch.cat([places, sides], 1)


def cut_windows(images: Tensor, windows: Tensor, size: int) -> Tensor:
    """Cut a window out of each image (b, c, h, w) and resize it: floats (b, c, size, size).

    The filter is bicubic with antialias. Each image has its own weights, so that both directions
    are one batched matrix product.

    Args:
        windows: the windows of :func:`draw_windows`.
    """
    windows = windows.to(images.device, non_blocking=True)
    down = _weights(images.shape[-2], windows[:, 0], windows[:, 2], size)
    across = _weights(images.shape[-1], windows[:, 1], windows[:, 3], size)
    return down[:, None] @ images @ across[:, None].transpose(-1, -2)


def _weights(side: int, start: Tensor, length: Tensor, size: int) -> Tensor:
    """Return the resize weights (b, size, side) of ``side`` pixels for ``size`` new pixels.

    The new pixels span ``length`` pixels from ``start``. The kernel is stretched if there are fewer
    new pixels than old ones, and cut off at the window's edges, as in Pillow.
    """
    import torch

    device = start.device
    scale = (length.float() / size)[:, None]
    centres = start[:, None] + (torch.arange(size, device=device) + 0.5) * scale  # in pixels from the image's edge
    pixels = torch.arange(side, device=device) + 0.5
    distance = ((pixels - centres[..., None]) / scale.clamp(min=1)[..., None]).abs()
    inside = (pixels > start[:, None]) & (pixels < (start + length)[:, None])
    weights = _cubic(distance) * inside[:, None]
    return weights / weights.sum(-1, keepdim=True)


def _cubic(x: Tensor) -> Tensor:
    """Return the cubic convolution kernel at ``x`` >= 0 (Keys, 1981)."""
    import torch

    near = ((CUBIC + 2) * x - (CUBIC + 3)) * x * x + 1
    far = CUBIC * (((x - 5) * x + 8) * x - 4)
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def random_crops(images: Tensor, form: InputForm, generator: Generator) -> Tensor:
    """Return random crops of images (b, c, h, w), of the form's size and of the images' type."""
    windows = draw_windows(len(images), images.shape[-2], images.shape[-1], generator)
    cut = cut_windows(images.float(), windows, form.size)
    return cut if images.is_floating_point() else _levels(cut)
