"""Pictures of images, accuracies and losses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from pmi_cl.datasets.task_split import TaskSplit
from pmi_cl.errors import UserError
from pmi_cl.utils.reports import class_pictures, pictures
from pmi_cl.utils.reports.titles import title_lines

pytestmark = pytest.mark.usefixtures("letters")


def test_the_grid_shows_each_image_once_enlarged_pixel_by_pixel():
    images = torch.zeros(6, 3, 8, 8)
    images[:, 0] = torch.linspace(0, 1, 6)[:, None, None]
    figure = pictures.sample_grid(images, torch.tensor([0, 0, 1, 1, 3, 3]), ["a", "b", "c", "d"], TaskSplit((2, 2)))
    picture = pictures.pixels(figure)
    assert picture.dtype == np.uint8 and picture.shape[2] == 3
    for index in range(1, 6):  # the first is black, as the letters are
        red = np.array([51 * index, 0, 0])
        rows, columns = np.nonzero((picture == red).all(-1))
        assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (48, 48)
        assert (picture[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] == red).all()


def test_the_grid_names_the_classes_and_tasks_that_have_images():
    figure = pictures.sample_grid(
        torch.rand(3, 1, 16, 16),
        torch.tensor([5, 0, 5]),
        [f"class_{label}" for label in range(6)],
        TaskSplit((2, 2, 2)),
    )
    assert sorted(text.get_text() for text in figure.texts) == ["class 0", "class 5", "task 1", "task 3"]


def test_a_hundred_classes_stand_in_blocks_of_a_shape_that_fits_a_screen():
    labels = torch.arange(300) % 100
    figure = pictures.sample_grid(
        torch.rand(300, 3, 32, 32),
        labels,
        [f"$long_name_of_a_class_{label}$" for label in range(100)],
        TaskSplit((10,) * 10),
    )
    height, width, _ = pictures.pixels(figure).shape
    assert 0.7 < width / height < 2.5


@pytest.mark.parametrize(("side", "shown"), [(8, 48), (16, 48), (28, 56), (32, 64), (64, 64), (224, 74)])
def test_images_of_any_size_can_be_seen(side, shown):
    picture = pictures.pixels(
        pictures.sample_grid(torch.full((1, 3, side, side), 0.4), torch.tensor([0]), ["a"], TaskSplit((1,)))
    )
    grey = (picture == 102).all(-1)  # here and there a letter has a pixel of the same grey
    assert [int((grey.sum(axis) >= shown).sum()) for axis in (0, 1)] == [shown, shown]


@pytest.mark.parametrize("tasks", [1, 5, 30])
def test_the_accuracy_matrix_shows_its_numbers(tasks):
    figure = pictures.accuracy_matrix(
        [[float(row + column) for column in range(row + 1)] for row in range(tasks)], "class-il"
    )
    numbers = [text.get_text() for text in figure.axes[0].texts]
    assert len(numbers) == (tasks * (tasks + 1) // 2 if tasks <= 25 else 0)
    assert tasks != 5 or numbers[-1] == "8.0"
    assert pictures.pixels(figure).std() > 0


def test_the_single_row_of_joint_training_is_shown_in_full():
    figure = pictures.accuracy_matrix([[float(task) for task in range(20)]], "joint")
    assert [text.get_text() for text in figure.axes[0].texts] == [str(task) for task in range(20)]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["1-20"]
    height, width, _ = pictures.pixels(figure).shape
    assert height < width / 2


def test_curves_are_drawn_on_a_log_scale_where_they_can_be():
    figure = pictures.loss_curves({"stem": [3.0, 1.0], "head": [2.0, 0.5]}, "inversion")
    assert figure.axes[0].get_yscale() == "log" and len(figure.axes[0].lines) == 2
    assert pictures.loss_curves({"stem": [1.0, 0.0]}, "inversion").axes[0].get_yscale() == "linear"
    assert all(float(place).is_integer() for place in figure.axes[0].get_xticks())  # there is no half step


def test_a_png_is_what_was_drawn(tmp_path):
    picture = pictures.pixels(pictures.accuracy_matrix([[50.0]], "one"))
    pictures.save_png(picture, tmp_path / "new" / "m.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "new" / "m.png")), picture)


def test_a_picture_whose_folder_cannot_be_made_is_a_users_matter(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot make the folder .*choose another --output"):
        pictures.save_png(np.zeros((2, 2, 3), np.uint8), tmp_path / "file" / "pictures" / "m.png", "--output")


def texts_of(figure):
    return [text.get_text() for text in figure.texts] + ([figure._suptitle.get_text()] if figure._suptitle else [])


@pytest.mark.parametrize(
    ("title", "lines"),
    [
        ("sgd on seq-x, seed 0: accuracy by class", ["sgd on seq-x, seed 0: accuracy by class"]),
        (
            "pmi_rdfcil on seq-cifar100, seed 12: class-IL after task 5: last 84.99 %, average 89.00 %",
            [
                "pmi_rdfcil on seq-cifar100, seed 12:",
                "class-IL after task 5:",
                "last 84.99 %, average 89.00 %",
            ],
        ),
        (
            "my_own_method_with_a_name_that_does_not_end on seq-x, seed 12: accuracy",
            ["my_own_method_with_a_name_that_does_not_", "end on seq-x, seed 12:", "accuracy"],
        ),
        (f"{'x' * 85} on seq-y, task 1", ["x" * 40, "x" * 40, "xxxxx on seq-y, task 1"]),
        (
            "Plot 1 of 3: seq-y, 2 tasks; networks from scratch; network: resnet20",
            ["Plot 1 of 3: seq-y, 2 tasks;", "networks from scratch; network: resnet20"],
        ),
        (
            "accuracies of some words that are 84.99 %, or task 12",
            ["accuracies of some words that are", "84.99 %, or task 12"],
        ),
    ],
)
def test_a_title_ends_its_lines_where_a_reader_would(title, lines):
    assert title_lines(title, 40) == lines


def test_every_picture_has_its_title():
    title = "pmi_rdfcil on seq-digits, seed 7: a title that is long enough for more than one line of a narrow picture"
    grid = pictures.sample_grid(torch.rand(2, 3, 8, 8), torch.tensor([0, 1]), ["a", "b"], TaskSplit((2,)), title=title)
    words = " ".join(text for text in texts_of(grid) if text not in ("a", "b", "task 1"))
    assert words == title
    for figure in (
        pictures.accuracy_matrix([[50.0]], title),
        class_pictures.confusion_matrix([[1, 2], [0, 3]], ["a", "b"], (2,), title),
        class_pictures.accuracy_by_class([[10.0, 20.0]], ["a", "b"], (2,), title),
    ):
        assert figure._suptitle.get_text().replace("\n", " ") == title


def test_the_confusion_matrix_shows_percentages_of_each_class_and_where_tasks_end():
    figure = class_pictures.confusion_matrix([[3, 1, 0], [0, 4, 0], [0, 0, 0]], ["cat", "a_dog", "bird"], (2, 3), "t")
    axes = figure.axes[0]
    assert axes.images[0].get_array().tolist() == [[75.0, 25.0, 0.0], [0.0, 100.0, 0.0], [0.0, 0.0, 0.0]]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat", "a dog", "bird"]
    assert sorted(text.get_text() for text in axes.texts) == ["100", "25", "75"]
    assert len(axes.lines) == 2
    assert pictures.pixels(figure).std() > 0


@pytest.mark.parametrize("classes", [1, 17, 60, 200])
def test_pictures_by_class_stay_in_bounds(classes):
    names, ends = [f"class {k}" for k in range(classes)], (classes,)
    table = np.eye(classes, dtype=int).tolist()
    for figure in (
        class_pictures.confusion_matrix(table, names, ends, "t"),
        class_pictures.accuracy_by_class([None, [50.0] * classes], names, ends, "t"),
    ):
        assert max(figure.get_size_inches()) < 16
        written = [text.get_text() for text in figure.axes[0].get_xticklabels()]
        assert written == (names if classes <= 40 else [str(k + 1) for k in range(0, classes, -(-classes // 20))])
