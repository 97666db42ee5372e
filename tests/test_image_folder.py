"""Test ``seq-folder`` on real image files: every mode and size is read, what is wrong is named."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
import torch
from PIL import Image

from pmi_cl.cli import main
from pmi_cl.datasets.files.image_folder import read_images
from pmi_cl.datasets.seq_folder import SeqFolder
from pmi_cl.errors import UserError
from tests.support.image_sets import RED, make_folder, write_image


def load(root: Path, **values: Any) -> SeqFolder:
    return SeqFolder(SimpleNamespace(data_dir=str(root), **values), "cpu")


def refused(root: Path | None, **values: Any) -> str:
    """Return the error of --check. The data set itself must raise the same."""
    args = SimpleNamespace(data_dir=root and str(root), **values)
    with pytest.raises(UserError) as by_check:
        SeqFolder.check(args)
    with pytest.raises(UserError) as by_loading:
        SeqFolder(args, "cpu")
    assert str(by_check.value) == str(by_loading.value)
    assert "\n" not in str(by_check.value)
    return str(by_check.value)


def test_one_folder_is_split_the_same_way_for_every_seed(tmp_path: Path) -> None:
    first, second = (load(make_folder(tmp_path, images=10), seed=seed) for seed in (0, 1))
    assert first.class_names == ["c0", "c1", "c2", "c3"]
    assert (len(first.train.labels), len(first.test.labels)) == (32, 8)
    assert torch.equal(first.test.images, second.test.images)
    places = first.test.images[first.test.labels == 2][:, 0, 0, 0].tolist()
    assert places == [4, 9]  # the red level is the number of the image


@pytest.mark.parametrize(("fraction", "n_test"), [(0.1, 1), (0.5, 5), (0.9, 9), (0.01, 1)])
def test_the_test_fraction(tmp_path: Path, fraction: float, n_test: int) -> None:
    dataset = load(make_folder(tmp_path, images=10), test_fraction=fraction)
    assert dataset.test.labels.bincount().tolist() == [n_test] * 4
    assert dataset.train.labels.bincount().tolist() == [10 - n_test] * 4


def test_train_and_test_folders_are_taken_as_they_are(tmp_path: Path) -> None:
    make_folder(tmp_path, images=3, parts=("train",))
    make_folder(tmp_path, images=1, parts=("test",))
    dataset = load(tmp_path, test_fraction=0.5)
    assert dataset.train.labels.bincount().tolist() == [3] * 4
    assert dataset.test.labels.bincount().tolist() == [1] * 4


def test_images_in_deeper_folders_and_what_systems_leave(tmp_path: Path) -> None:
    make_folder(tmp_path, classes=2)
    shutil.move(tmp_path / "c0" / "0.png", write_image(tmp_path / "c0" / "deeper" / "9.JPEG").with_name("0.png"))
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store", ".hidden.png"):
        (tmp_path / "c0" / name).write_text("not an image")
    for folder in (tmp_path / ".git", tmp_path / "c0" / ".cache"):
        folder.mkdir()
        (folder / "notes.txt").write_text("nobody looks here")
    (tmp_path / "README.md").write_text("hello")
    SeqFolder.check(SimpleNamespace(data_dir=str(tmp_path)))
    assert len(load(tmp_path).train.labels) + len(load(tmp_path).test.labels) == 11


@pytest.mark.parametrize(
    ("name", "mode", "options"),
    [
        ("a.png", "RGB", {}),
        ("a.PNG", "RGBA", {}),
        ("a.png", "P", {}),
        ("transparent.png", "P", {"transparency": b"\xff\xff"}),
        ("a.jpg", "RGB", {"quality": 95}),
        ("a.jpeg", "CMYK", {"quality": 95}),
        ("a.webp", "RGB", {"lossless": True}),
        ("a.webp", "RGBA", {"lossless": True}),
        ("a.bmp", "RGB", {}),
    ],
)
def test_colours_survive_every_format(tmp_path: Path, name: str, mode: str, options: dict[str, Any]) -> None:
    path = write_image(tmp_path / name, (37, 50), mode=mode, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = read_images([path], 12, lambda done: None)[0]
    assert image.shape == (3, 12, 12)
    colours = image.reshape(3, -1).T.int()
    assert (colours - torch.tensor(RED)).abs().max() <= 8  # a palette and JPEG are not exact


@pytest.mark.parametrize(
    ("mode", "value", "level"),
    [("1", 1, 255), ("L", 77, 77), ("LA", (77, 200), 115), ("I;16", 77 * 256 + 5, 77), ("I;16", 65535, 255)],
)
def test_grey_of_every_depth(tmp_path: Path, mode: str, value: Any, level: int) -> None:
    Image.new(mode, (9, 30), value).save(tmp_path / "grey.png")
    assert (read_images([tmp_path / "grey.png"], 8, lambda done: None) == level).all()


def test_the_middle_is_cut_out_and_shrunk(tmp_path: Path) -> None:
    wide = numpy.zeros((40, 120, 3), dtype=numpy.uint8)
    wide[:, 40:80] = RED  # the middle third is all that remains
    Image.fromarray(wide).save(tmp_path / "wide.png")
    Image.fromarray(wide.transpose(1, 0, 2)).save(tmp_path / "tall.png")
    images = read_images([tmp_path / "wide.png", tmp_path / "tall.png"], 20, lambda done: None)
    assert torch.equal(images[0], images[1].transpose(1, 2))
    inner = images[0, :, :, 1:-1]  # the outermost columns are blended with what was cut off
    assert (inner.permute(1, 2, 0) == torch.tensor(RED, dtype=torch.uint8)).all()


def test_an_image_of_the_right_size_is_not_touched(tmp_path: Path) -> None:
    pixels = numpy.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=numpy.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    numpy.testing.assert_array_equal(
        read_images([tmp_path / "a.png"], 16, lambda done: None)[0].numpy(), pixels.transpose(2, 0, 1)
    )


def test_a_photo_is_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side: turn by 90 degrees clockwise
    picture = Image.new("RGB", (32, 32))
    picture.paste(RED, (0, 0, 16, 32))
    picture.save(tmp_path / "photo.png", exif=exif)
    image = read_images([tmp_path / "photo.png"], 32, lambda done: None)[0]
    assert (image[0, :16] == RED[0]).all()
    assert (image[0, 16:] == 0).all()


@pytest.mark.parametrize(("classes", "n_tasks"), [(2, 2), (4, 2), (6, 2), (9, 3), (10, 5), (5, 5), (7, 7), (15, 5)])
def test_the_default_number_of_tasks(classes: int, n_tasks: int) -> None:
    assert SeqFolder.default_tasks(classes) == n_tasks


def test_statistics_size_and_padding_come_from_the_folder(tmp_path: Path) -> None:
    dataset = load(make_folder(tmp_path), image_size=24)
    assert dataset.SIZE == (24, 24)
    assert dataset.PADDING == 3
    pixels = dataset.train.images.numpy() / 255
    numpy.testing.assert_allclose(dataset.MEAN, pixels.mean((0, 2, 3)))
    numpy.testing.assert_allclose(dataset.STD[:2], pixels.std((0, 2, 3))[:2])


def test_reading_tells_how_far_it_is(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    args = SimpleNamespace(data_dir=str(make_folder(tmp_path, classes=2)))
    SeqFolder(args, "cpu", progress=lambda *state: seen.append(state))
    assert seen == [("reading images", done, 10) for done in range(1, 11)]


def test_the_folder_must_be_named_and_exist(tmp_path: Path) -> None:
    assert "--data_dir DIR" in refused(None)
    assert "no such folder" in refused(tmp_path / "nowhere")
    assert "no such folder" in refused(write_image(tmp_path / "file.png"))


def test_fewer_than_two_classes(tmp_path: Path) -> None:
    assert "holds no class folder" in refused(tmp_path)
    write_image(tmp_path / "lonely" / "a.png")
    assert "one class folder ('lonely'): give a folder with at least two" in refused(tmp_path)
    for name in ("a", "b"):
        write_image(tmp_path / "lonely" / name / "a.png")
    assert f"('lonely'): give --data_dir {tmp_path / 'lonely'}, which holds 2" in refused(tmp_path)


def test_an_empty_class(tmp_path: Path) -> None:
    make_folder(tmp_path, classes=2)
    (tmp_path / "void").mkdir()
    (tmp_path / "void" / ".gitkeep").write_text("nothing here")
    assert f"{tmp_path / 'void'} holds no image" in refused(tmp_path)


@pytest.mark.parametrize("name", ["notes.txt", "scan.tif", "animation.gif", "photo.heic", "no ending"])
def test_a_file_that_is_no_image_is_not_passed_over(tmp_path: Path, name: str) -> None:
    make_folder(tmp_path)
    (tmp_path / "c1" / name).write_text("something")
    assert f"{tmp_path / 'c1' / name} is no image of a kind that is read (.png, .jpg," in refused(tmp_path)
    (tmp_path / "c1" / "zz.txt").write_text("something else")
    assert "and 1 more are no images" in refused(tmp_path)


def test_the_fingerprint_follows_the_files(tmp_path: Path) -> None:
    first = load(make_folder(tmp_path)).fingerprint
    assert first.startswith("20 images, ")
    assert load(tmp_path).fingerprint == first
    moved = shutil.copytree(tmp_path, tmp_path.with_name("moved"))
    assert load(moved).fingerprint == first
    write_image(moved / "c0" / "0.png", (21, 16))  # another length
    found = {first, load(moved).fingerprint}
    shutil.move(moved / "c0" / "0.png", moved / "c1" / "0 of c0.png")
    found.add(load(moved).fingerprint)
    found.add(load(moved, test_fraction=0.5).fingerprint)
    write_image(moved / "c0" / "9.png")
    found.add(load(moved).fingerprint)
    assert len(found) == 5


def test_a_class_of_one_image_cannot_be_split(tmp_path: Path) -> None:
    make_folder(tmp_path, classes=2)
    write_image(tmp_path / "single" / "a.png")
    assert f"{tmp_path / 'single'} holds one image" in refused(tmp_path)


@pytest.mark.parametrize("parts", [("train",), ("test",), ("test", "val")])
def test_half_a_split(tmp_path: Path, parts: tuple[str, ...]) -> None:
    assert "it needs both train/ and test/" in refused(make_folder(tmp_path, parts=parts))


@pytest.mark.parametrize("names", [("train", "test"), ("Training", "validation", "testing")])
def test_splits_without_class_folders_are_no_classes(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        for k in range(3):
            write_image(tmp_path / name / f"{k}.png")
    assert "(3 images, no folder): it needs both train/ and test/ (or val/) with class folders" in refused(tmp_path)


def test_a_run_stops_after_one_of_its_tasks(tmp_path: Path) -> None:
    args = SimpleNamespace(data_dir=str(make_folder(tmp_path)), n_tasks=2, stop_after=2)
    SeqFolder.check(args)
    args.stop_after = 3
    with pytest.raises(UserError, match="--stop_after 3: the run has 2 tasks"):
        SeqFolder.check(args)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for name in ("train", "plane"):
        for k in range(3):
            write_image(tmp_path / name / f"{k}.png")
    assert load(tmp_path).class_names == ["plane", "train"]


def test_classes_that_only_one_part_has(tmp_path: Path) -> None:
    make_folder(tmp_path, parts=("train", "test"))
    shutil.move(tmp_path / "test" / "c1", tmp_path / "test" / "other")
    message = refused(tmp_path)
    assert "only in train/: c1" in message
    assert "only in test/: other" in message


def test_a_file_that_only_looks_like_an_image(tmp_path: Path) -> None:
    make_folder(tmp_path)
    fake = tmp_path / "c1" / "fake.jpg"
    fake.write_text("just words")
    assert f"{fake} is not a readable image (of no known format)" in refused(tmp_path)


@pytest.mark.parametrize("name", ["broken.jpg", "broken.png", "broken.bmp", "broken.webp"])
def test_an_image_that_breaks_off(tmp_path: Path, name: str) -> None:
    make_folder(tmp_path)
    path = tmp_path / "c2" / name
    noise = numpy.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=numpy.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError) as caught:
        load(tmp_path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_n_tasks_that_does_not_divide_the_folders(tmp_path: Path) -> None:
    assert "4 classes do not split into 3 equal tasks: say --n_tasks 2 or 4" in refused(
        make_folder(tmp_path), n_tasks=3
    )


def test_a_run_is_not_resumed_on_other_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, runs = make_folder(tmp_path / "data", images=4), tmp_path / "runs"
    where = ["--results_path", str(runs), "--non_verbose", "1"]
    words = [
        "--model",
        "sgd",
        "--dataset",
        "seq-folder",
        "--data_dir",
        str(data),
        "--backbone",
        "resnet20",
        "--image_size",
        "8",
    ]
    assert (
        main([*words, *where, "--run_name", "run", "--n_epochs", "1", "--stop_after", "1", "--tensorboard", "0"]) == 0
    )
    before = {path: path.stat().st_mtime_ns for path in runs.rglob("*")}
    write_image(data / "c1" / "new.png")
    capsys.readouterr()
    assert main([*where, "--resume", "run", "--stop_after", "none"]) == 2
    err = capsys.readouterr().err
    assert (
        err.count("\n") == 1 and "was written with data 16 images, " in err and "this run has data 17 images, " in err
    )
    assert {path: path.stat().st_mtime_ns for path in runs.rglob("*")} == before
    (data / "c1" / "new.png").unlink()
    assert main([*where, "--resume", "run", "--stop_after", "none"]) == 0


def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    root, scandir = make_folder(tmp_path), os.scandir

    def denied(path: Any) -> Any:
        if str(path).endswith("c1"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    assert (
        refused(root)
        == f"cannot read {root / 'c1'} (Permission denied): change its permissions, or take it out of the folder"
    )
