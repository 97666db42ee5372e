"""Test images in the form a network wants.

They are resized as Pillow does it, cropped as torchvision does it, and changed in no other way.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy
import pytest
import torch
from PIL import Image
from torch import Tensor

from pmi_cl.datasets.input_form import RATIO, SCALE, InputForm, cut_windows, draw_windows, random_crops, resized
from pmi_cl.datasets.seq_digits import SeqDigits
from pmi_cl.seeding import seeded

MEAN, STD = (0.4815, 0.4578, 0.4082), (0.2686, 0.2613, 0.2758)


def smooth_pixels(count: int, height: int, width: int) -> Tensor:
    """Return pictures with edges and gradients, uint8 (count, 3, height, width)."""
    noise = torch.randint(0, 256, (count, 3, height // 4 + 1, width // 4 + 1), generator=seeded(0, "pixels")).float()
    larger = torch.nn.functional.interpolate(noise, (height, width), mode="bilinear")
    return torch.where(larger > 128, larger, larger / 2).to(torch.uint8)


def by_pillow(image: Tensor, size: tuple[int, int], box: tuple[int, int, int, int] | None = None) -> Tensor:
    """Resize one uint8 (3, h, w) picture to (height, width), bicubic."""
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    picture = picture.crop(box) if box else picture
    return torch.from_numpy(numpy.asarray(picture.resize(size[::-1], Image.Resampling.BICUBIC)).copy()).permute(2, 0, 1)


def furthest(one: Tensor, other: Tensor) -> int:
    return int((one.int() - other.int()).abs().max())


@pytest.mark.parametrize("shape", [(16, 16), (32, 32), (64, 64), (224, 224), (300, 260), (97, 301)])
@pytest.mark.parametrize("as_on_a_gpu", [False, True])
def test_squash_is_pillows_bicubic(shape: tuple[int, int], as_on_a_gpu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    images = smooth_pixels(2, *shape)
    if as_on_a_gpu:
        monkeypatch.setattr("pmi_cl.datasets.input_form._on_cpu", lambda images: False)
    result = resized(images, 224, "squash")
    assert result.dtype == torch.uint8
    for one, image in zip(result, images, strict=True):
        expected = by_pillow(image, (224, 224))
        assert furthest(one, expected) <= (1 if as_on_a_gpu else 2)  # torch's weights for bytes have 16 bits
        assert (one.float() - expected.float()).abs().mean() < 0.3


@pytest.mark.parametrize("shape", [(32, 32), (300, 260), (97, 301), (225, 224)])
def test_crop_is_the_middle_of_the_shorter_side_resized(shape: tuple[int, int]) -> None:
    images, shorter = smooth_pixels(2, *shape), min(shape)
    height, width = (int(224 * side / shorter) for side in shape)
    top, left = round((height - 224) / 2.0), round((width - 224) / 2.0)
    for one, image in zip(resized(images, 224, "crop"), images, strict=True):
        expected = by_pillow(image, (height, width))[:, top : top + 224, left : left + 224]
        assert furthest(one, expected) <= 2


def test_images_of_the_right_size_are_not_touched() -> None:
    images = smooth_pixels(2, 24, 24)
    assert torch.equal(resized(images, 24, "squash"), images)
    assert torch.equal(resized(images, 24, "crop"), images)


@pytest.mark.parametrize("shape", [(32, 32), (260, 300)])
def test_a_window_is_cut_and_resized_as_pillow_does(shape: tuple[int, int]) -> None:
    images = smooth_pixels(6, *shape)
    windows = draw_windows(6, *shape, seeded(1))
    result = cut_windows(images.float(), windows, 224).round().clamp(0, 255)
    for one, image, (top, left, height, width) in zip(result, images, windows.tolist(), strict=True):
        assert furthest(one, by_pillow(image, (224, 224), (left, top, left + width, top + height))) <= 1


@pytest.mark.parametrize("shape", [(64, 64), (80, 60), (40, 160), (160, 40)])
def test_windows_lie_inside_and_keep_most_of_the_image(shape: tuple[int, int]) -> None:
    top, left, height, width = draw_windows(3000, *shape, seeded(2)).unbind(1)
    assert bool(((top >= 0) & (left >= 0) & (top + height <= shape[0]) & (left + width <= shape[1])).all())
    assert bool(((width + 1) / (height - 1) >= RATIO[0]).all())
    assert bool(((width - 1) / (height + 1) <= RATIO[1]).all())
    if shape == (64, 64):
        parts = height * width / 64**2
        assert SCALE[0] - 0.02 < parts.min() < 0.91
        assert 0.99 < parts.max() <= 1
        assert top.unique().tolist() == left.unique().tolist()


def test_an_image_too_long_for_the_ratios_gives_its_middle() -> None:
    assert draw_windows(2, 40, 160, seeded(0)).tolist() == [[0, 53, 40, 53]] * 2
    assert draw_windows(2, 160, 40, seeded(0)).tolist() == [[53, 0, 53, 40]] * 2


def test_windows_are_distributed_as_torchvisions() -> None:
    from pmi_cl.machine.torchvision_shim import ensure_torchvision

    ensure_torchvision()
    transforms = pytest.importorskip("torchvision.transforms")
    torch.manual_seed(0)
    theirs = [transforms.RandomResizedCrop.get_params(torch.empty(3, 64, 48), SCALE, RATIO) for _ in range(3000)]
    ours = draw_windows(3000, 64, 48, seeded(3)).float()
    torch.testing.assert_close(ours.mean(0), torch.tensor(theirs).float().mean(0), atol=0.25, rtol=0)
    torch.testing.assert_close(ours.std(0), torch.tensor(theirs).float().std(0), atol=0.25, rtol=0)


def digits(**values: Any) -> SeqDigits:
    return SeqDigits(SimpleNamespace(seed=3, **values), "cpu")


def test_a_data_set_presents_itself_in_the_form() -> None:
    dataset = digits()
    dataset.present_as(InputForm(56, MEAN, STD))
    assert (dataset.SIZE, dataset.MEAN, dataset.STD) == ((56, 56), MEAN, STD)
    assert (SeqDigits.SIZE, SeqDigits.MEAN) == ((16, 16), (0.3047,) * 3)
    images, labels = next(dataset.plain_batches(1, "test", batch_size=5))
    raw = dataset.test.images[dataset.test_indices(1)[:5]]
    assert images.shape == (5, 3, 56, 56)
    assert images.is_contiguous(memory_format=torch.channels_last)
    expected = torch.stack([by_pillow(image, (56, 56)) for image in raw]) / 255
    expected = (expected - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    torch.testing.assert_close(images, expected, atol=0.016, rtol=0)  # a grey level
    torch.testing.assert_close(
        dataset.denormalise(images),
        torch.stack([by_pillow(image, (56, 56)) for image in raw]) / 255,
        atol=0.004,
        rtol=0,
    )
    assert labels.tolist() == dataset.test.labels[dataset.test_indices(1)[:5]].tolist()


def test_training_images_are_those_of_the_evaluation_where_nothing_is_varied() -> None:
    dataset = digits()
    dataset.present_as(InputForm(56, MEAN, STD))
    inputs, _, raw = next(dataset.train_batches(0, 0, batch_size=8))
    assert raw.shape == (8, 3, 16, 16)
    assert torch.equal(inputs, dataset.normalise(raw))
    synthetic = torch.randn(4, 3, 56, 56)
    assert torch.equal(dataset.augment(synthetic, seeded(0)), synthetic)


def test_random_crops_depend_on_seed_task_epoch_and_step() -> None:
    dataset = digits()
    dataset.present_as(InputForm(56, MEAN, STD, augment="crop"))
    first = [batch[0] for _, batch in zip(range(2), dataset.train_batches(0, 1, batch_size=8), strict=False)]
    again = digits()
    again.present_as(InputForm(56, MEAN, STD, augment="crop"))
    assert torch.equal(first[1], next(again.train_batches(0, 1, batch_size=8, start=1))[0])
    assert not torch.equal(first[0], next(dataset.train_batches(0, 2, batch_size=8))[0])
    raw = dataset.train.images[:6]
    assert dataset.augment(raw, seeded(5)).shape == (6, 3, 56, 56)
    assert torch.equal(dataset.augment(raw, seeded(5)), dataset.augment(raw, seeded(5)))
    assert not torch.equal(dataset.augment(raw, seeded(5)), dataset.augment(raw, seeded(6)))


def test_crops_of_synthetic_images_are_not_rounded() -> None:
    form = InputForm(24, MEAN, STD, augment="crop")
    synthetic = torch.randn(4, 3, 24, 24)
    assert torch.equal(
        random_crops(synthetic, form, seeded(0)), cut_windows(synthetic, draw_windows(4, 24, 24, seeded(0)), 24)
    )


def test_one_task_of_a_presented_data_set_is_presented_too() -> None:
    dataset = digits()
    dataset.present_as(InputForm(32, MEAN, STD))
    assert next(dataset.as_one_task(dataset.N_TASKS).plain_batches(0, batch_size=2))[0].shape == (2, 3, 32, 32)


@pytest.mark.parametrize("wrong", [{"resize": "pad"}, {"augment": "flip"}])
def test_a_form_that_does_not_exist(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be squash or crop"):
        InputForm(224, MEAN, STD, **wrong)


def test_names_in_prompts() -> None:
    assert digits().prompt_names[:3] == ["zero", "one", "two"]
    assert digits().class_names[:3] == ["0", "1", "2"]
