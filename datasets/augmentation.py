"""Normalise, crop and flip batches of images with pure functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Generator, Tensor


def normalise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Return (x / 255 - mean) / std as float32, channels_last.

    Args:
        images: uint8 (b, c, h, w).
        mean: (c,), in [0, 1].
        std: (c,), in [0, 1].
    """
    import torch

    scale = (1 / (255 * std))[:, None, None]
    shift = (-mean / std)[:, None, None]
    # One multiply-add in the stored layout and then one change of layout is twice as fast as
    # channels_last throughout.
    return torch.addcmul(shift, images.float(), scale).contiguous(memory_format=torch.channels_last)


def denormalise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Return the inverse of :func:`normalise`: floats (b, c, h, w), clamped to [0, 1].

    Synthetic pixels may lie outside before they are clamped.
    """
    return (images.float() * std[:, None, None] + mean[:, None, None]).clamp(0, 1)


def draw_crops(count: int, padding: int, flip: bool, generator: Generator) -> Tensor:
    """Draw random crops: int64 (count, 3) on the CPU.

    A row holds the top and the left (0 to 2 * padding) and whether the crop is mirrored (0 or 1).
    The mirror bits are drawn even without ``flip``, so that the offsets do not depend on it.
    """
    import torch

    offsets = torch.randint(0, 2 * padding + 1, (count, 2), generator=generator)
    mirrored = torch.randint(0, 2, (count, 1), generator=generator)
    return torch.cat([offsets, mirrored if flip else torch.zeros_like(mirrored)], dim=1)


def flip_first(crops: Tensor, padding: int) -> Tensor:
    """Return the crops of images that are mirrored before they are padded and cropped.

    :func:`crop_and_flip` mirrors the window that it has cut. A window ``left`` pixels from the left
    of the mirrored image is as far from the right of the image itself.
    """
    import torch

    top, left, mirrored = crops.unbind(1)
    return torch.stack([top, torch.where(mirrored.bool(), 2 * padding - left, left), mirrored], dim=1)


def crop_and_flip(images: Tensor, crops: Tensor, padding: int) -> Tensor:
    """Pad images (b, c, h, w) with zeros, cut the window of each, and mirror it if asked for.

    R-DFCIL normalises images before it pads them, so that zeros are the mean colour (CL-Lite's data
    modules). In uint8 pixels, zeros are black.

    Args:
        crops: the crops of :func:`draw_crops`.

    Returns:
        The same shape, channels_last.
    """
    import torch

    count, channels, height, width = images.shape
    device = images.device
    top, left, mirrored = crops.to(device, non_blocking=True).unbind(1)
    padded = torch.nn.functional.pad(images, (padding, padding, padding, padding))
    rows = top[:, None] + torch.arange(height, device=device)
    columns = torch.arange(width, device=device)
    columns = left[:, None] + torch.where(mirrored[:, None].bool(), width - 1 - columns, columns)
    # The channels of a pixel are adjacent, so that crop and flip are one gather of pixels by
    # number.
    image_start = torch.arange(count, device=device)[:, None, None] * (height + 2 * padding)
    pixels = (image_start + rows[:, :, None]) * (width + 2 * padding) + columns[:, None, :]
    cut = padded.permute(0, 2, 3, 1).reshape(-1, channels).index_select(0, pixels.reshape(-1))
    return cut.reshape(count, height, width, channels).permute(0, 3, 1, 2)


def mirrored(images: Tensor, generator: Generator) -> Tensor:
    """Mirror each of the images (b, c, h, w) with probability one half."""
    import torch

    chosen = torch.randint(0, 2, (len(images), 1, 1, 1), generator=generator).to(images.device).bool()
    return torch.where(chosen, images.flip(-1), images)


def mean_and_std(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each channel of uint8 images (n, c, h, w), in [0, 1].

    A constant channel gets the deviation of one grey level, so that it can be normalised.
    """
    import torch

    levels = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    for channel in images.unbind(1):
        counts = sum(torch.bincount(part.flatten(), minlength=256) for part in channel.split(4096))
        share = torch.as_tensor(counts).double() / channel.numel()
        mean = float(share @ levels)
        means.append(mean)
        stds.append(max(float(share @ (levels - mean).square()) ** 0.5, 1 / 255))
    return tuple(means), tuple(stds)
