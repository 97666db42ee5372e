"""The digits that the package brings along."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy
import pytest
from PIL import Image

import pmi_cl.datasets
from pmi_cl.datasets.seq_digits import SeqDigits
from pmi_cl.seeding import seeded


def test_the_digits_are_those_of_scikit_learn() -> None:
    digits = pytest.importorskip("sklearn.datasets").load_digits()
    with numpy.load(Path(pmi_cl.datasets.__path__[0]) / "digits.npz") as file:
        numpy.testing.assert_array_equal(file["images"], digits.images)
        numpy.testing.assert_array_equal(file["labels"], digits.target)


def test_the_digits_as_a_data_set() -> None:
    dataset = SeqDigits(SimpleNamespace(), "cpu")
    assert (len(dataset.train.labels), len(dataset.test.labels)) == (1438, 359)
    assert (dataset.N_TASKS, dataset.N_CLASSES_PER_TASK, dataset.class_names) == (5, 2, [str(k) for k in range(10)])
    assert dataset.train.images.max() == 255
    pixels = dataset.train.images.numpy() / 255
    numpy.testing.assert_allclose(pixels.mean((0, 2, 3)), dataset.MEAN, atol=5e-5)
    numpy.testing.assert_allclose(pixels.std((0, 2, 3)), dataset.STD, atol=5e-5)


def test_a_digit_is_upscaled_and_never_mirrored() -> None:
    dataset = SeqDigits(SimpleNamespace(), "cpu")
    with numpy.load(Path(pmi_cl.datasets.__path__[0]) / "digits.npz") as file:
        small = Image.fromarray(file["images"][0].astype(numpy.float32) * (255 / 16))
    expected = numpy.asarray(small.resize((16, 16), Image.Resampling.BILINEAR))
    numpy.testing.assert_allclose(dataset.train.images[0, 0].numpy(), expected, atol=0.51)
    repeated = dataset.train.images[:1].expand(200, -1, -1, -1)
    shown = dataset.augment(repeated, seeded(0)).unique(dim=0)
    assert len(shown) == 9  # the 3 x 3 offsets of a padding of one pixel
