"""Batched normalisation, crop and flip against a slow loop over images."""

from __future__ import annotations

from types import SimpleNamespace

import numpy
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from pmi_cl.datasets.augmentation import crop_and_flip, denormalise, draw_crops, flip_first, mean_and_std, normalise
from pmi_cl.datasets.colour_jitter import JITTER, Jitter, draw_jitter, grey_levels, jittered, jittered_crops
from pmi_cl.datasets.seq_digits import SeqDigits
from pmi_cl.seeding import seeded

MEAN = torch.tensor([0.5, 0.4, 0.3])
STD = torch.tensor([0.2, 0.25, 0.3])


def pixels(count: int = 6, height: int = 9, width: int = 7) -> Tensor:
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=seeded(0, "pixels"))


def slow_crop(image: numpy.ndarray, top: int, left: int, mirrored: int, padding: int) -> numpy.ndarray:
    """Pad, cut and mirror one image (c, h, w), in the order of R-DFCIL's pipeline."""
    _, height, width = image.shape
    padded = numpy.pad(image, ((0, 0), (padding, padding), (padding, padding)))
    cut = padded[:, top : top + height, left : left + width]
    return cut[:, :, ::-1] if mirrored else cut


def test_normalise_is_the_formula_and_channels_last() -> None:
    images = pixels()
    result = normalise(images, MEAN, STD)
    expected = (images.numpy() / 255 - MEAN.numpy()[:, None, None]) / STD.numpy()[:, None, None]
    assert result.dtype == torch.float32
    assert result.is_contiguous(memory_format=torch.channels_last)
    numpy.testing.assert_allclose(result.numpy(), expected, atol=2e-6)


def test_denormalise_brings_every_level_back() -> None:
    images = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(1, 3, 16, 16)
    restored = denormalise(normalise(images, MEAN, STD), MEAN, STD)
    assert torch.equal((restored * 255).round().to(torch.uint8), images)
    torch.testing.assert_close(restored, images / 255, atol=1e-6, rtol=0)


def test_denormalise_clamps_what_no_pixel_can_show() -> None:
    far = torch.full((1, 3, 2, 2), 9.0)
    assert denormalise(far, MEAN, STD).max() == 1
    assert denormalise(-far, MEAN, STD).min() == 0


@pytest.mark.parametrize("padding", [0, 1, 4])
@pytest.mark.parametrize("flip", [False, True])
def test_crops_equal_a_loop_over_images(padding: int, flip: bool) -> None:
    images = normalise(pixels(40), MEAN, STD)
    crops = draw_crops(40, padding, flip, seeded(1))
    result = crop_and_flip(images, crops, padding)
    expected = numpy.stack(
        [slow_crop(image, *crop, padding) for image, crop in zip(images.numpy(), crops.tolist(), strict=True)]
    )
    numpy.testing.assert_array_equal(result.numpy(), expected)
    assert result.is_contiguous(memory_format=torch.channels_last)


def test_the_border_is_the_mean_colour() -> None:
    images = normalise(pixels(1), MEAN, STD)
    corner = crop_and_flip(images, torch.tensor([[0, 0, 0]]), 4)
    assert (corner[:, :, :4] == 0).all()
    assert (corner[:, :, :, :4] == 0).all()
    torch.testing.assert_close(denormalise(corner, MEAN, STD)[0, :, 0, 0], MEAN)


def test_crops_cover_every_offset_evenly_and_mirror_half() -> None:
    crops = draw_crops(9000, 4, True, seeded(2))
    for column in (0, 1):
        counts = torch.bincount(crops[:, column], minlength=9)
        assert len(counts) == 9
        assert counts.min() > 850
        assert counts.max() < 1150
    assert 4300 < int(crops[:, 2].sum()) < 4700


def test_without_flips_the_offsets_are_the_same_ones() -> None:
    flipped, plain = draw_crops(50, 2, True, seeded(3)), draw_crops(50, 2, False, seeded(3))
    assert torch.equal(flipped[:, :2], plain[:, :2])
    assert flipped[:, 2].any()
    assert not plain[:, 2].any()


def test_mean_and_std_against_numpy() -> None:
    images = pixels(50)
    mean, std = mean_and_std(images)
    numpy.testing.assert_allclose(mean, (images.numpy() / 255).mean((0, 2, 3)), rtol=1e-12)
    numpy.testing.assert_allclose(std, (images.numpy() / 255).std((0, 2, 3)), rtol=1e-12)


def test_a_constant_channel_can_be_normalised() -> None:
    images = torch.full((3, 3, 4, 4), 7, dtype=torch.uint8)
    mean, std = mean_and_std(images)
    assert torch.isfinite(normalise(images, torch.tensor(mean), torch.tensor(std))).all()


# the protocols of --augment


def pillow(image: Tensor) -> Image.Image:
    """Return uint8 (3, h, w) as an image of Pillow's, whose operations ABD and DCMI use."""
    return Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())


def of_pillow(image: Image.Image) -> numpy.ndarray:
    return numpy.asarray(image).transpose(2, 0, 1)


def pillow_jitter(image: Image.Image, brightness: float, contrast: float, contrast_first: float) -> Image.Image:
    """Do what torchvision's ColorJitter does with an image of Pillow's."""
    steps = [(ImageEnhance.Brightness, brightness), (ImageEnhance.Contrast, contrast)]
    for kind, factor in reversed(steps) if contrast_first else steps:
        image = kind(image).enhance(factor)
    return image


def test_colours_vary_as_pillow_varies_them_image_by_image() -> None:
    images, drawn = pixels(60), draw_jitter(60, JITTER["abd"], seeded(4))
    result = jittered(images, drawn)
    expected = [pillow_jitter(pillow(image), *row) for image, row in zip(images, drawn.tolist(), strict=True)]
    numpy.testing.assert_array_equal(result.numpy(), numpy.stack([of_pillow(image) for image in expected]))
    assert 20 < int(drawn[:, 2].sum()) < 40
    assert not torch.equal(result, images)


def test_grey_levels_are_pillows_and_those_of_other_channels_the_mean() -> None:
    images = pixels()
    expected = numpy.stack([numpy.asarray(pillow(image).convert("L")) for image in images])
    numpy.testing.assert_array_equal(grey_levels(images).numpy(), expected)
    assert torch.equal(grey_levels(images[:, :1]), images[:, 0].long())


def test_factors_are_uniform_within_their_bounds() -> None:
    drawn = draw_jitter(4000, Jitter(0.25, 0.8), seeded(5))
    for column, (low, high) in enumerate([(0.75, 1.25), (0.2, 1.8)]):
        counts = torch.histc(drawn[:, column], 4, low, high)
        assert counts.sum() == 4000
        assert counts.min() > 880
    assert (draw_jitter(50, JITTER["dcmi"], seeded(5))[:, 1] == 1).all()


def test_images_are_mirrored_before_they_are_padded_with_black_and_cropped() -> None:
    images, padding = pixels(40), 3
    crops = draw_crops(40, padding, True, seeded(6))
    result = crop_and_flip(images, flip_first(crops, padding), padding)
    for image, (top, left, mirrored), found in zip(images, crops.tolist(), result, strict=True):
        shown = ImageOps.mirror(pillow(image)) if mirrored else pillow(image)
        padded = ImageOps.expand(shown, padding, fill=0)
        expected = padded.crop((left, top, left + image.shape[2], top + image.shape[1]))
        numpy.testing.assert_array_equal(found.numpy(), of_pillow(expected))


@pytest.mark.parametrize("name", ["abd", "dcmi"])
def test_a_data_set_normalises_after_colours_and_crops(name: str) -> None:
    dataset = SeqDigits(SimpleNamespace(augment=name), "cpu")
    images = dataset.train.pixels(torch.arange(30))
    varied = dataset.augment(images, seeded(7))
    expected = jittered_crops(images, dataset.PADDING, dataset.FLIP, JITTER[name], seeded(7))
    assert torch.equal(varied, dataset.normalise(expected))
    assert torch.equal(varied, dataset.augment(dataset.normalise(images), seeded(7)))  # as synthetic ones come
    assert not torch.equal(varied, dataset.augment(images, seeded(8)))


def test_without_augmentation_images_are_mirrored_only_where_it_was_typed() -> None:
    for flip in (None, False, True):
        dataset = SeqDigits(SimpleNamespace(augment="none", flip=flip), "cpu")
        images = dataset.train.pixels(torch.arange(30))
        varied, plain = dataset.augment(images, seeded(9)), dataset.normalise(images)
        mirrored = [not torch.equal(one, other) for one, other in zip(varied, plain, strict=True)]
        assert 5 < sum(mirrored) < 25 if flip else not any(mirrored)


def test_the_default_is_r_dfcils() -> None:
    images = SeqDigits(SimpleNamespace(), "cpu").train.pixels(torch.arange(30))
    default, named = (SeqDigits(SimpleNamespace(**args), "cpu") for args in ({}, {"augment": "rdfcil"}))
    expected = crop_and_flip(default.normalise(images), draw_crops(30, 1, False, seeded(3)), 1)
    assert torch.equal(default.augment(images, seeded(3)), expected)
    assert torch.equal(named.augment(images, seeded(3)), expected)
