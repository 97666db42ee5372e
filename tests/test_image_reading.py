"""Test how pixels are made of files: transparency, 16 bits, backgrounds, files that are skipped."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
import torch
from PIL import Image, ImageDraw

from pmi_cl.cli import main
from pmi_cl.datasets.files.decoding import bicubic_square, upright_square
from pmi_cl.datasets.files.image_folder import read_images
from pmi_cl.datasets.files.sixteen_bits import sixteen_bit_values
from pmi_cl.datasets.reading import Reading, colour_named
from pmi_cl.datasets.seq_cub200 import SeqCub200
from pmi_cl.datasets.seq_digits import SeqDigits
from pmi_cl.datasets.seq_folder import SeqFolder
from pmi_cl.datasets.seq_multi import SeqMulti
from pmi_cl.errors import UserError
from tests.support.image_sets import make_folder, write_cub, write_image
from tests.support.png16 import write_png16


def load(root: Path, **values: Any) -> SeqFolder:
    return SeqFolder(SimpleNamespace(data_dir=str(root), image_size=16, **values), "cpu")


def write_shapes(root: Path, mode: str = "RGBA", ending: str = "png", **options: Any) -> Path:
    """Write two classes of black shapes that the channel of opacity alone shows."""
    for label, box in enumerate([(2, 2, 8, 8), (8, 8, 14, 14)]):
        for k in range(4):
            opacity = Image.new("L", (16, 16), 0)
            ImageDraw.Draw(opacity).rectangle(box, fill=255 - k)
            image = Image.new(mode.removesuffix("A"), (16, 16)).convert(mode)
            image.putalpha(opacity)
            (root / f"c{label}").mkdir(parents=True, exist_ok=True)
            image.save(root / f"c{label}" / f"{k}.{ending}", **options)
    return root


# transparency


@pytest.mark.parametrize(
    ("mode", "ending", "options"), [("RGBA", "png", {}), ("LA", "png", {}), ("RGBA", "webp", {"lossless": True})]
)
def test_shapes_that_only_the_opacity_shows(tmp_path: Path, mode: str, ending: str, options: dict[str, Any]) -> None:
    dataset = load(write_shapes(tmp_path, mode, ending, **options))
    image = dataset.train.pixels(torch.tensor([0]))[0]
    assert (image[:, 4:7, 4:7] <= 3).all() and (image[:, 10:, 10:] == 255).all()
    for square in (upright_square, lambda path, size: bicubic_square(path, size, "squash")):
        assert square(tmp_path / "c0" / f"0.{ending}", 16)[:, 0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize(
    ("mode", "colour", "transparency"), [("P", 1, 1), ("P", 1, b"\xff\x00"), ("L", 9, 9), ("RGB", (9, 8, 7), (9, 8, 7))]
)
def test_a_transparent_colour(tmp_path: Path, mode: str, colour: Any, transparency: Any) -> None:
    image = Image.new(mode, (16, 16))
    if mode == "P":
        image.putpalette([0, 0, 0, 0, 0, 0])  # two entries of one colour
    image.paste(colour, (0, 0, 8, 16))
    image.save(tmp_path / "a.png", transparency=transparency)
    found = read_images([tmp_path / "a.png"], 16, lambda done: None)[0]
    assert (found[:, :, :8] == 255).all() and (found[:, :, 8:] == 0).all()


def test_the_background_may_be_chosen(tmp_path: Path) -> None:
    write_shapes(tmp_path)
    for word, corner in (("black", [0, 0, 0]), ("#102030", [16, 32, 48]), (" Red ", [255, 0, 0])):
        if word == "black":
            with pytest.raises(UserError, match=r"all 6 training images are of one colour, #000000 .*--background"):
                load(tmp_path, background=word)
        else:
            assert load(tmp_path, background=word).train.pixels(torch.tensor([0]))[0, :, 0, 0].tolist() == corner


@pytest.mark.parametrize(
    ("word", "advice"), [("blak", "did you mean black"), ("#12345", "#rrggbb"), ("", "#rrggbb"), ("rgb(1,2,3)", "#rr")]
)
def test_what_is_no_colour_is_refused(tmp_path: Path, word: str, advice: str) -> None:
    with pytest.raises(UserError, match=advice):
        colour_named(word)
    with pytest.raises(UserError, match=f"--background {word[:1]}"):
        SeqFolder.check(SimpleNamespace(data_dir=str(make_folder(tmp_path)), background=word))


def test_images_of_one_colour_are_refused_and_images_of_several_are_not(tmp_path: Path) -> None:
    for label in range(2):
        for k in range(4):
            write_image(tmp_path / f"c{label}" / f"{k}.png", colour=(7, 7, 7))
    with pytest.raises(UserError, match=r"all 6 training images are of one colour, #070707"):
        load(tmp_path)
    write_image(tmp_path / "c1" / "0.png", colour=(7, 7, 8))
    assert load(tmp_path).N_CLASSES == 2


def test_the_record_knows_pictures_on_another_background(tmp_path: Path) -> None:
    plain = load(make_folder(tmp_path / "plain")).fingerprint
    assert load(tmp_path / "plain", background="red").fingerprint == plain
    shapes = write_shapes(tmp_path / "shapes")
    assert load(shapes).fingerprint.endswith(", on #ffffff, 16 bits up to 65535")
    assert load(shapes, background="red").fingerprint != load(shapes).fingerprint


# 16 bits


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_all_sixteen_bits_are_read(tmp_path: Path, channels: int) -> None:
    values = numpy.random.default_rng(0).integers(0, 65536, (5, 7, channels))
    path = write_png16(tmp_path / "a.png", values)
    numpy.testing.assert_array_equal(sixteen_bit_values(path), values)
    if channels in (1, 3):
        transparent = b"".join(struct.pack(">H", value) for value in values[2, 3])
        opacity = sixteen_bit_values(write_png16(path, values, transparent))[..., -1]
        assert opacity[2, 3] == 0 and (opacity == 65535).sum() == 34


@pytest.mark.parametrize(("highest", "white"), [(900, 1023), (4000, 4095), (4095, 4095), (60_000, 65535), (200, 255)])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_scaled_by_the_range_of_the_training_images(
    tmp_path: Path, highest: int, white: int, channels: int
) -> None:
    for label in range(2):
        for part, level in (("train", highest - label), ("test", 65535)):
            values = numpy.full((16, 16, channels), level // 2)
            values[:8] = level
            for k in range(2):
                write_png16(tmp_path / part / f"c{label}" / f"{k}.png", values)
    dataset = load(tmp_path)
    assert dataset.reading == Reading((255, 255, 255), white)
    levels = dataset.train.pixels(torch.tensor([0]))[0, :, :, 0]
    assert (levels[:, 0] == round(highest * 255 / white)).all()
    assert abs(int(levels[0, 15]) - highest // 2 * 255 / white) <= 0.5
    assert (dataset.test.pixels(torch.tensor([0]))[0, :, 0] == 255).all()  # in the range of the training images


def test_the_opacity_of_twelve_bits_is_full_where_it_is_highest(tmp_path: Path) -> None:
    values = numpy.array([[[4095, 4095], [2048, 0], [0, 4095]]]).repeat(3, 0)
    image = upright_square(write_png16(tmp_path / "a.png", values), 3, Reading(white=4095))
    assert image[0, 0].tolist() == [255, 255, 0]


def test_a_turned_photo_with_sixteen_bits(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    levels = numpy.zeros((16, 16), dtype=numpy.uint16)
    levels[:, :8] = 65535
    Image.fromarray(levels).save(tmp_path / "a.png", exif=exif)
    image = read_images([tmp_path / "a.png"], 16, lambda done: None)[0]
    assert (image[:, :8] == 255).all() and (image[:, 8:] == 0).all()


# files that cannot be read


def break_files(root: Path) -> None:
    """Put a file that is no image, a truncated one and a link to nothing into class c1."""
    (root / "c1" / "fake.png").write_text("just words")
    noise = numpy.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=numpy.uint8)
    Image.fromarray(noise).save(root / "c1" / "half.jpg")
    content = (root / "c1" / "half.jpg").read_bytes()
    (root / "c1" / "half.jpg").write_bytes(content[: len(content) // 2])
    (root / "c1" / "gone.png").symlink_to(root / "nowhere.png")
    (root / "c1" / "notes.txt").write_text("hello")


def test_files_that_cannot_be_read_are_skipped_and_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = make_folder(tmp_path / "data", classes=2)
    break_files(data)
    args = SimpleNamespace(data_dir=str(data), on_bad_image="skip", image_size=16)
    SeqFolder.check(args)
    said = capsys.readouterr().err
    assert said.startswith(
        f"4 files that cannot be read are skipped: {data / 'c1' / 'fake.png'} (of no known format), "
    )
    dataset = SeqFolder(args, "cpu")
    assert capsys.readouterr().err == ""  # it was said
    assert list(dataset.skipped_images) == ["c1/fake.png", "c1/gone.png", "c1/half.jpg", "c1/notes.txt"]
    assert dataset.skipped_images["c1/fake.png"] == "of no known format"
    assert dataset.skipped_images["c1/gone.png"] == f"a link to {data / 'nowhere.png'}, which is not there"
    assert (len(dataset.train.labels), len(dataset.test.labels)) == (8, 2)
    with pytest.raises(UserError, match=r"or say --on_bad_image skip|is no image of a kind"):
        SeqFolder.check(SimpleNamespace(data_dir=str(data)))


def test_a_class_without_a_readable_image_is_refused(tmp_path: Path) -> None:
    data = make_folder(tmp_path, classes=2, images=2)
    (data / "c1" / "1.png").write_bytes(b"")
    args = SimpleNamespace(data_dir=str(data), on_bad_image="skip")
    for use in (SeqFolder.check, lambda args: SeqFolder(args, "cpu")):
        with pytest.raises(UserError, match=r"c1 holds one image .* it needs 2"):
            use(args)


def test_the_record_of_a_run_lists_what_was_skipped(tmp_path: Path) -> None:
    data = make_folder(tmp_path / "data", classes=2)
    (data / "c0" / "9.png").write_text("no image")
    words = f"--model sgd --dataset seq-folder --data_dir {data} --backbone resnet20 --image_size 8 --n_epochs 1"
    more = f"--on_bad_image skip --results_path {tmp_path / 'runs'} --run_name one --tensorboard 0 --non_verbose 1"
    assert main([*words.split(), *more.split()]) == 0
    results = json.loads((tmp_path / "runs" / "sgd" / "seq-folder" / "one" / "results.json").read_text())
    assert results["skipped_images"] == {"count": 1, "files": {"c0/9.png": "of no known format"}}


def test_a_published_set_skips_too_and_looks_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_cub(tmp_path)
    broken = sorted((root / "images").rglob("*.jpg"))[3]
    broken.write_bytes(broken.read_bytes()[:60])
    args = SimpleNamespace(base_path=str(tmp_path), image_size=16)
    with pytest.raises(UserError, match="or say --on_bad_image skip"):
        SeqCub200(args, "cpu")
    args.on_bad_image = "skip"
    dataset = SeqCub200(args, "cpu")
    assert list(dataset.skipped_images) == [str(broken.relative_to(root / "images"))]
    assert len(dataset.train.labels) + len(dataset.test.labels) == 179
    monkeypatch.setattr("pmi_cl.datasets.files.skipping.try_in_order", lambda *args: pytest.fail("looked again"))
    assert SeqCub200(args, "cpu").skipped_images == dataset.skipped_images


# mirror images


@pytest.mark.parametrize(("flip", "expected"), [(None, True), (True, True), (False, False)])
def test_images_are_mirrored_as_the_flag_says(tmp_path: Path, flip: bool | None, expected: bool) -> None:
    assert load(make_folder(tmp_path), flip=flip).FLIP is expected
    assert SeqDigits(SimpleNamespace(flip=flip), "cpu").FLIP is (flip or False)
    multi = SeqMulti(SimpleNamespace(domains=(f"seq-folder:{tmp_path}",), flip=flip), "cpu")
    assert multi.FLIP is expected and multi.domains[0].FLIP is expected


def test_a_network_with_crops_of_its_own_mirrors_only_where_it_was_typed() -> None:
    from pmi_cl.datasets.input_form import InputForm
    from pmi_cl.seeding import seeded

    images = torch.zeros(40, 3, 16, 16, dtype=torch.uint8)
    images[..., :8] = 255
    for augment in ("none", "crop"):
        left = []
        for flip in (None, True, False):
            dataset = SeqDigits(SimpleNamespace(flip=flip), "cpu")
            dataset.present_as(InputForm(16, (0.5,) * 3, (0.5,) * 3, augment=augment))
            varied = dataset.augment(images, seeded(0, "augment", 1))
            left.append(int((varied[:, 0, 8, 0] > 0).sum()))
        assert left[0] == left[2] == 40 and 5 < left[1] < 35
