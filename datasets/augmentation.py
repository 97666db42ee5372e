"""Batched normalisation, random crop and random flip: pure functions without a loop over images."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Generator, Tensor


def normalise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Pixels (b, c, h, w) uint8 to (x / 255 - mean) / std, float32, channels_last; ``mean`` and ``std`` are (c,), in [0, 1]."""
    import torch

    scale = (1 / (255 * std))[:, None, None]
    shift = (-mean / std)[:, None, None]
    # One multiply-add in the stored layout, then one change of layout: twice as fast as working channels_last throughout.
    return torch.addcmul(shift, images.float(), scale).contiguous(memory_format=torch.channels_last)


def denormalise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """The inverse of :func:`normalise`: (b, c, h, w) floats in [0, 1]; what lies outside, as synthetic pixels may, is clamped."""
    return (images.float() * std[:, None, None] + mean[:, None, None]).clamp(0, 1)


def draw_crops(count: int, padding: int, flip: bool, generator: Generator) -> Tensor:
    """Random crops for ``count`` images: int64 (count, 3) on the CPU, each row the top, the left (0..2 padding) and mirrored (0 or 1).

    The mirror bits are drawn even where ``flip`` is off, so that the offsets do not depend on it.
    """
    import torch

    offsets = torch.randint(0, 2 * padding + 1, (count, 2), generator=generator)
    mirrored = torch.randint(0, 2, (count, 1), generator=generator)
    return torch.cat([offsets, mirrored if flip else torch.zeros_like(mirrored)], dim=1)


def crop_and_flip(images: Tensor, crops: Tensor, padding: int) -> Tensor:
    """Pad (b, c, h, w) with zeros, cut the window that each row of ``crops`` names, mirror it left to right where told.

    Zeros are the mean colour, because the images are normalised before they are padded, as R-DFCIL does (CL-Lite's data
    modules). Returns the same shape, channels_last.
    """
    import torch

    count, channels, height, width = images.shape
    device = images.device
    top, left, mirrored = crops.to(device, non_blocking=True).unbind(1)
    padded = torch.nn.functional.pad(images, (padding, padding, padding, padding))
    rows = top[:, None] + torch.arange(height, device=device)
    columns = torch.arange(width, device=device)
    columns = left[:, None] + torch.where(mirrored[:, None].bool(), width - 1 - columns, columns)
    # Each pixel's channels lie side by side, so crop and flip together are one gather of pixels by their number.
    image_start = torch.arange(count, device=device)[:, None, None] * (height + 2 * padding)
    pixels = (image_start + rows[:, :, None]) * (width + 2 * padding) + columns[:, None, :]
    cut = padded.permute(0, 2, 3, 1).reshape(-1, channels).index_select(0, pixels.reshape(-1))
    return cut.reshape(count, height, width, channels).permute(0, 3, 1, 2)


def mean_and_std(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of (n, c, h, w) uint8 pixels, in [0, 1], over all images.

    A channel that never changes gets the deviation of one grey level, so that it can be normalised.
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
