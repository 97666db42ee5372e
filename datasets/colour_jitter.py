"""Vary brightness and contrast of pixels as Pillow does, for all images of a batch at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pmi_cl.datasets.augmentation import crop_and_flip, draw_crops, flip_first

if TYPE_CHECKING:
    from torch import Generator, Tensor

# The weights of red, green and blue in a grey level, in 65536ths (ITU-R BT.601, as in Pillow).
LUMA = (19595, 38470, 7471)


@dataclass(frozen=True)
class Jitter:
    """Say how far brightness and contrast vary.

    Attributes:
        brightness: the factor of the brightness is uniform in 1 - brightness to 1 + brightness.
        contrast: the same for the contrast. 0: the contrast stays as it is.
    """

    brightness: float
    contrast: float = 0.0


# --augment NAME, from the released code. Each protocol mirrors, pads with black, and crops.
JITTER = {"abd": Jitter(63 / 255, 0.8), "dcmi": Jitter(63 / 255)}


def jittered_crops(images: Tensor, padding: int, flip: bool, jitter: Jitter, generator: Generator) -> Tensor:
    """Vary the colours of uint8 images (b, c, h, w), mirror half, pad with black, and crop.

    Args:
        padding: pixels on each side.
        flip: whether images are mirrored.
        jitter: how far the colours vary.
        generator: a CPU generator.

    Returns:
        uint8 (b, c, h, w).
    """
    crops = flip_first(draw_crops(len(images), padding, flip, generator), padding)
    return crop_and_flip(jittered(images, draw_jitter(len(images), jitter, generator)), crops, padding)


def draw_jitter(count: int, jitter: Jitter, generator: Generator) -> Tensor:
    """Draw the jitter of images: float32 (count, 3) on the CPU.

    A row holds the factor of the brightness, that of the contrast, and 1 if the contrast changes
    first, else 0. Both orders are equally likely, as in torchvision's ColorJitter.
    """
    import torch

    low = torch.tensor([1 - jitter.brightness, 1 - jitter.contrast]).clamp(min=0)
    high = torch.tensor([1 + jitter.brightness, 1 + jitter.contrast])
    factors = low + (high - low) * torch.rand(count, 2, generator=generator)
    order = torch.randint(0, 2, (count, 1), generator=generator)
    return torch.cat([factors, order.float()], dim=1)


def jittered(images: Tensor, drawn: Tensor) -> Tensor:
    """Change brightness and contrast of uint8 images (b, c, h, w); return uint8.

    Args:
        drawn: the jitter of :func:`draw_jitter`.
    """
    import torch

    brightness, contrast, contrast_first = drawn.to(images.device, non_blocking=True).unbind(1)
    first = contrast_first.bool()[:, None, None, None]
    darker = brightened(images, brightness)
    return torch.where(first, brightened(contrasted(images, contrast), brightness), contrasted(darker, contrast))


def brightened(images: Tensor, factors: Tensor) -> Tensor:
    """Multiply uint8 images (b, c, h, w) by ``factors`` (b,): uint8, fractions are dropped."""
    return _levels(images.float() * factors[:, None, None, None])


def contrasted(images: Tensor, factors: Tensor) -> Tensor:
    """Move pixels away from the mean grey level of their image, uint8 (b, c, h, w).

    A pixel x becomes mean + factor (x - mean). The mean is rounded, and fractions of the result are
    dropped.
    """
    import torch

    grey = grey_levels(images)
    # Sums of integers are exact, whatever their order; (2 sum + n) // 2n rounds half up.
    count = grey[0].numel()
    mean = torch.div(2 * grey.flatten(1).sum(1) + count, 2 * count, rounding_mode="floor").float()[:, None, None, None]
    return _levels(mean + factors[:, None, None, None] * (images.float() - mean))


def grey_levels(images: Tensor) -> Tensor:
    """Return the grey levels of uint8 images: int64 (b, h, w).

    Three channels are red, green and blue. The mean is taken of any other number of channels.
    """
    import torch

    levels = images.long()
    if images.shape[1] != len(LUMA):
        return torch.div(levels.sum(1), images.shape[1], rounding_mode="floor")
    red, green, blue = (weight * channel for weight, channel in zip(LUMA, levels.unbind(1), strict=True))
    return (red + green + blue + 32768) >> 16


def _levels(values: Tensor) -> Tensor:
    import torch

    return values.clamp(0, 255).to(torch.uint8)
