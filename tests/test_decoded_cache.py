"""Test the cache of decoded images.

It is written whole or not at all, used again, made anew when a file changes, and read in place.
"""

from __future__ import annotations

import dataclasses
import os
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
import torch
from PIL import Image
from torch import Tensor

from pmi_cl.datasets import placement
from pmi_cl.datasets.files import decoded_cache
from pmi_cl.datasets.files.decoded_cache import DecodedImages
from pmi_cl.datasets.files.decoding import bicubic_square
from pmi_cl.datasets.input_form import InputForm
from pmi_cl.datasets.reading import Reading
from pmi_cl.datasets.seq_cub200 import SeqCub200
from pmi_cl.errors import UserError
from tests.support.image_sets import encoded, noise, write, write_cub


@pytest.fixture
def decodes(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Record the files that are decoded from now on."""
    seen: list[Path] = []

    def counted(path: Path, size: int, resize: str, reading: Reading) -> Any:
        seen.append(path)
        return bicubic_square(path, size, resize, reading)

    monkeypatch.setattr(decoded_cache, "bicubic_square", counted)
    return seen


@pytest.fixture
def images(tmp_path: Path) -> DecodedImages:
    """Return ten image files of several sizes, not decoded yet."""
    root = tmp_path / "set"
    sizes = [(20, 16), (12, 12), (9, 30)]
    paths = [
        write(root / f"c{k % 2}" / f"{k}.png", next(noise((0.5,) * 3, (0.2,) * 3, sizes[k % 3], seed=k)))
        for k in range(10)
    ]
    return DecodedImages(paths, root, 12, "squash", tmp_path / "base" / "cache", "some-set-train")


def quietly(done: int) -> None:
    """Take a report of progress and say nothing."""


def test_the_first_opening_decodes_and_the_next_does_not(images: DecodedImages, decodes: list[Path]) -> None:
    told: list[int] = []
    first = images.open(told.append)
    assert told == list(range(1, 11)) and set(decodes) == set(images.paths)
    assert first.dtype == torch.uint8 and first.shape == (10, 3, 12, 12)
    assert torch.equal(
        first, torch.from_numpy(numpy.stack([bicubic_square(path, 12, "squash") for path in images.paths]))
    )
    decodes.clear()
    assert torch.equal(images.open(told.append), first)
    # Looked at, to see that they are the same.
    assert len(told) == 10 and decodes == [images.paths[k] for k in (0, 4, 9)]
    assert list(images.folder.iterdir()) == [images.path]
    assert images.path.name.startswith("some-set-train-12-squash-")
    assert images.path.stat().st_size == 128 + first.numel()


@pytest.mark.parametrize("resize", ["squash", "crop"])
def test_what_is_decoded_is_pillows_bicubic(images: DecodedImages, resize: str) -> None:
    tall = images.paths[2]
    with Image.open(tall) as image:
        assert image.size == (9, 30)
        if resize == "squash":
            expected = image.resize((12, 12), Image.Resampling.BICUBIC)
        else:
            expected = image.resize((12, 40), Image.Resampling.BICUBIC).crop((0, 14, 12, 26))
    numpy.testing.assert_array_equal(bicubic_square(tall, 12, resize), numpy.asarray(expected).transpose(2, 0, 1))


def test_grey_images_have_three_channels(tmp_path: Path) -> None:
    path = write(tmp_path / "grey.JPEG", encoded(Image.new("L", (64, 64), 77), "JPEG"))
    assert (bicubic_square(path, 64, "squash") == 77).all()


def test_size_and_resize_have_files_of_their_own(images: DecodedImages) -> None:
    forms = [(12, "squash"), (12, "crop"), (16, "squash")]
    kept = [
        DecodedImages(images.paths, images.root, size, resize, images.folder, images.name) for size, resize in forms
    ]
    for one in kept:
        one.open(quietly)
    assert {one.path for one in kept} == set(images.folder.iterdir()) and len(kept) == 3


def test_another_background_makes_a_new_cache(images: DecodedImages, decodes: list[Path]) -> None:
    clear = Image.new("RGBA", (12, 12), (9, 9, 9, 0))
    write(images.paths[3], encoded(clear))
    assert images.open(quietly)[3].unique().tolist() == [255]
    for reading, level in ((Reading((0, 0, 0)), 0), (Reading(), 255)):
        again = dataclasses.replace(images, reading=reading)
        decodes.clear()
        assert again.open(quietly)[3].unique().tolist() == [level] and len(decodes) >= 10
    assert dataclasses.replace(images, reading=Reading(white=4095)).path != images.path


def test_a_changed_file_makes_a_new_cache_and_removes_the_old_one(images: DecodedImages, decodes: list[Path]) -> None:
    images.open(quietly)
    old = images.path
    write(images.paths[3], encoded(Image.new("RGB", (12, 12), (1, 2, 3))))
    decodes.clear()
    assert images.open(quietly)[3, :, 0, 0].tolist() == [1, 2, 3]
    assert len(decodes) >= 10 and list(images.folder.iterdir()) == [images.path] and images.path != old
    os.utime(images.paths[4])  # may have been replaced by one of the same length
    assert not images.path.exists()


@pytest.mark.parametrize("damage", ["truncated", "empty", "other shape", "zeros", "pickle"])
def test_a_file_that_is_not_ours_is_made_anew(images: DecodedImages, damage: str) -> None:
    expected = images.open(quietly).clone()
    content = images.path.read_bytes()
    if damage == "truncated":
        images.path.write_bytes(content[:-1])
    elif damage == "empty":
        images.path.write_bytes(b"")
    elif damage == "other shape":
        numpy.save(images.path, expected[:9].numpy())
    elif damage == "zeros":
        numpy.save(images.path, torch.zeros_like(expected).numpy())
    else:
        numpy.save(images.path, numpy.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert torch.equal(images.open(quietly), expected)
    assert images.path.read_bytes() == content


def test_a_broken_image_is_named_and_leaves_nothing(images: DecodedImages) -> None:
    images.paths[6].write_bytes(images.paths[6].read_bytes()[:100])
    with pytest.raises(UserError) as caught:
        images.open(quietly)
    assert str(images.paths[6]) in str(caught.value) and "\n" not in str(caught.value)
    assert not images.folder.parent.exists()


def test_an_interruption_leaves_nothing(images: DecodedImages) -> None:
    def stop(done: int) -> None:
        assert [path.name for path in images.folder.iterdir()] == [images.path.name + ".part"]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        images.open(stop)
    assert not images.folder.parent.exists()


def test_what_a_killed_process_left_is_written_over(images: DecodedImages) -> None:
    write(images.path.with_name(images.path.name + ".part"), b"half an image")
    expected = [bicubic_square(path, 12, "squash") for path in images.paths]
    assert (images.open(quietly).numpy() == numpy.stack(expected)).all()
    assert list(images.folder.iterdir()) == [images.path]


def test_a_full_disk_is_a_line_and_leaves_nothing(images: DecodedImages, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"No space left on device.*make room"):
        images.open(quietly)
    assert not images.folder.parent.exists()


def test_too_small_a_disk_is_found_before_decoding(
    images: DecodedImages, decodes: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=10 * 12 * 12 * 3 - 1))
    with pytest.raises(
        UserError, match=r"cache has 0 MiB of the 0 for decoded images: make room, or give another --base_path"
    ):
        images.open(quietly)
    assert decodes == [] and not images.folder.parent.exists()


def test_two_at_once_take_turns_and_decode_once(images: DecodedImages, decodes: list[Path]) -> None:
    results: list[Tensor] = []
    runs = [threading.Thread(target=lambda: results.append(images.open(quietly))) for _ in range(3)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert len(results) == 3 and all(torch.equal(one, results[0]) for one in results)
    assert sum(path == images.paths[1] for path in decodes) == 1  # one that is not looked at when the file is opened


# in a data set


def birds(base: Path, **values: Any) -> SeqCub200:
    return SeqCub200(SimpleNamespace(base_path=str(base), image_size=16, **values), "cpu")


def test_an_epoch_decodes_nothing_and_reads_the_map(tmp_path: Path, decodes: list[Path]) -> None:
    write_cub(tmp_path)
    told: list[tuple[str, int, int]] = []
    SeqCub200(SimpleNamespace(base_path=str(tmp_path), image_size=16), "cpu", lambda *state: told.append(state))
    assert told == [("decoding images", done, 180) for done in range(1, 181)]
    decodes.clear()
    dataset = birds(tmp_path)
    assert len(decodes) == 6
    for epoch in range(2):
        for task in range(10):
            assert sum(len(labels) for _, labels, _ in dataset.train_batches(task, epoch, 7)) == 14
            assert sum(len(labels) for _, labels in dataset.plain_batches(task, "test")) == 4
    assert len(decodes) == 6
    assert dataset.train.images.storage_offset() == 0 and dataset.train.images.is_contiguous()  # type: ignore[union-attr]
    maps = Path("/proc/self/maps")
    assert not maps.exists() or f"{tmp_path}/cache/seq-cub200-official-train-16-squash-" in maps.read_text()


@pytest.mark.parametrize("selection", [{"n_classes": 4, "n_tasks": 2}, {"validation": 0.2}, {"train_per_class": 5}])
def test_images_that_do_not_fit_are_gathered_and_are_the_same(
    tmp_path: Path, selection: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cub(tmp_path)
    here = birds(tmp_path, **selection)
    monkeypatch.setattr(placement, "split_budget", lambda device: 0)
    there = birds(tmp_path, **selection)
    assert isinstance(here.train.images, Tensor) and isinstance(there.train.images, placement.GatheredImages)
    assert there.train.images.shape == tuple(here.train.images.shape) and len(there.train.images) == len(
        here.train.images
    )
    assert torch.equal(there.train.images[3:7], here.train.images[3:7])
    for one, other in zip(here.train_batches(1, 0, 4), there.train_batches(1, 0, 4), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    for plain, again in zip(here.plain_batches(1, "test", 3), there.plain_batches(1, "test", 3), strict=True):
        assert torch.equal(plain[0], again[0]) and torch.equal(plain[1], again[1])


def test_a_change_of_the_files_changes_the_fingerprint(tmp_path: Path) -> None:
    root = write_cub(tmp_path)
    before = birds(tmp_path).fingerprint
    assert before.startswith("180 images, ") and birds(tmp_path, seed=4).fingerprint == before
    write(root / "images" / "001.Great_Bird_0" / "bird_0.jpg", encoded(Image.new("RGB", (9, 9))))
    assert birds(tmp_path).fingerprint != before


def test_a_methods_flag_decides_how_images_become_squares(tmp_path: Path) -> None:
    write_cub(tmp_path)
    squashed, cropped = birds(tmp_path), birds(tmp_path, resize="crop")
    assert not torch.equal(squashed.test.images, cropped.test.images)  # type: ignore[arg-type]
    assert len(list((tmp_path / "cache").iterdir())) == 4


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_batches_come_out_on_the_device_wherever_the_images_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cub(tmp_path)
    args = SimpleNamespace(base_path=str(tmp_path), image_size=16)
    here, near = birds(tmp_path), SeqCub200(args, "cuda")
    monkeypatch.setattr(placement, "split_budget", lambda device: 0)
    far = SeqCub200(args, "cuda")
    assert near.train.images.device.type == "cuda" and far.train.images.device.type == "cpu"
    for ours, one, other in zip(
        here.train_batches(1, 0, 4), near.train_batches(1, 0, 4), far.train_batches(1, 0, 4), strict=True
    ):
        assert all(tensor.device.type == "cuda" for tensor in (*one, *other))
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
        assert torch.equal(ours[2], one[2].cpu())
        torch.testing.assert_close(ours[0], one[0].cpu())
    form = InputForm(24, (0.5,) * 3, (0.25,) * 3, augment="crop")
    for dataset in (here, near, far):
        dataset.present_as(form)
    batches = [next(dataset.train_batches(0, 0, 8))[0] for dataset in (here, near, far)]
    assert torch.equal(batches[1], batches[2])
    # TF32 where it is on, and three grey levels.
    torch.testing.assert_close(batches[0], batches[1].cpu(), atol=3 / 255 / 0.25, rtol=0)
