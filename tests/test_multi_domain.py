"""Test a sequence of data sets.

Each task has the images, names and normalisation of its own data set.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pmi_cl.cli import main
from pmi_cl.datasets.domain_images import DomainImages
from pmi_cl.datasets.input_form import InputForm
from pmi_cl.datasets.multi_domain import MultiDomain
from pmi_cl.datasets.selection import PlacedSplit
from pmi_cl.datasets.seq_digits import SeqDigits
from pmi_cl.datasets.seq_folder import SeqFolder
from pmi_cl.datasets.seq_multi import SeqMulti
from pmi_cl.datasets.task_split import TaskSplit
from pmi_cl.errors import UserError
from pmi_cl.models.resnet.exemplars import exemplars_at
from pmi_cl.registry import catalogue
from pmi_cl.seeding import seeded
from pmi_cl.utils.arguments.presets import presets_of
from tests.support.command_runs import results_in
from tests.support.image_sets import make_folder
from tests.support.run_figures import same_figures
from tests.support.small_runs import BACKBONE, METHODS, RESNET_METHODS, options_of

FEW = {
    "buffer_images": 30,
    "inv_batch": 12,
    "inv_steps": 2,
    "pmi_steps": 1,
    "cont_epochs": 2,
    "generator_steps": 2,
    "generator_batch": 8,
    "generator_epochs": 1,
    "generator_critic_width": 2,
}
FORM = InputForm(24, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    """Two folders of images with three and two classes."""
    first = make_folder(tmp_path / "first", classes=3, images=6)
    return [str(first), str(make_folder(tmp_path / "second", classes=2, images=6, letter="d"))]


def words(folders: list[str]) -> tuple[str, ...]:
    return ("seq-digits", *(f"seq-folder:{folder}" for folder in folders))


def arguments(folders: list[str], **more: Any) -> SimpleNamespace:
    return SimpleNamespace(**{"domains": words(folders), "seed": 0, **more})


@pytest.fixture
def multi(folders: list[str]) -> MultiDomain:
    return SeqMulti(arguments(folders), "cpu")


def test_each_task_has_the_classes_and_the_names_of_its_data_set(multi: MultiDomain, folders: list[str]) -> None:
    digits = SeqDigits(SimpleNamespace(), "cpu")
    second = SeqFolder(SimpleNamespace(data_dir=folders[1]), "cpu")
    assert multi.tasks.sizes == (10, 3, 2) and multi.N_CLASSES == 15
    assert multi.prompt_names == [*digits.prompt_names, *multi.domains[1].prompt_names, *second.prompt_names]
    assert (multi.prompt_of(9), multi.prompt_of(10)) == (SeqDigits.PROMPT, SeqFolder.PROMPT)
    assert (multi.templates_of(0), multi.templates_of(14)) == (SeqDigits.TEMPLATES, SeqFolder.TEMPLATES)


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("form", [None, FORM], ids=["own", "form"])
def test_plain_batches_are_those_of_the_data_set_alone(
    multi: MultiDomain, folders: list[str], split: Any, form: InputForm | None
) -> None:
    """Test it under a network's form, and without one.

    Without one each data set is resized to the common side and normalised in its own way.
    """
    alone = SeqFolder(SimpleNamespace(data_dir=folders[1]), "cpu")
    alone.present_as(form or InputForm(32, alone.MEAN, alone.STD))
    if form:
        multi.present_as(form)
    (images, labels), (expected, own) = (
        next(iter(data.plain_batches(task, split))) for data, task in ((multi, 2), (alone, 0))
    )
    n = len(own)
    assert labels[:n].tolist() == [label + 13 for label in own.tolist()]
    torch.testing.assert_close(images[:n], expected)


def test_training_batches_are_those_of_the_data_set_alone_under_a_form(multi: MultiDomain, folders: list[str]) -> None:
    form = InputForm(24, (0.5,) * 3, (0.25,) * 3, augment="crop")
    alone = SeqFolder(SimpleNamespace(data_dir=folders[0], n_tasks=1, seed=0), "cpu")
    alone.present_as(form)
    multi.present_as(form)
    rows = torch.tensor([2, 0, 5])
    expected, raw = alone._augmented(rows, 1, 0, 3)
    found, found_raw = multi._augmented(rows + len(multi.domains[0].train.labels), 1, 0, 3)
    torch.testing.assert_close(found, expected)
    assert torch.equal(found_raw, raw)


def test_a_batch_of_several_data_sets_has_each_image_in_its_place(multi: MultiDomain) -> None:
    digits = len(multi.domains[0].train.labels)
    rows = torch.tensor([digits + 1, 0, digits + 14, 5, digits])
    together = multi._normalised(multi.train, rows)
    for place, row in enumerate(rows):
        torch.testing.assert_close(together[place : place + 1], multi._normalised(multi.train, row[None]))
    inputs, raw = multi._augmented(rows, 0, 0, 0)
    assert inputs.shape == (5, 3, 32, 32) and raw.shape == (5, 3, 32, 32) and raw.dtype == torch.uint8


def test_images_are_normalised_by_their_labels(multi: MultiDomain) -> None:
    images, labels = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8), torch.tensor([0, 11, 14, 3])
    found = multi.normalise(images, labels)
    for image, label, normalised in zip(images, labels, found, strict=True):
        domain = multi.domains[TaskSplit((10, 3, 2)).task_of(int(label))]
        mean, std = (torch.tensor(values)[:, None, None] for values in (domain.MEAN, domain.STD))
        torch.testing.assert_close(normalised, (image / 255 - mean) / std)
    torch.testing.assert_close(multi.denormalise(found, labels), images / 255)
    with pytest.raises(ValueError, match="pass them"):
        multi.normalise(images)


def test_exemplars_of_several_data_sets_have_one_size_and_vary_as_their_own_does(multi: MultiDomain) -> None:
    memory = exemplars_at(multi, multi.train_indices(0)[:3])
    memory = memory.joined(exemplars_at(multi, multi.train_indices(2)[:2]))
    assert memory.images.shape == (5, 3, 32, 32) and memory.images.dtype == torch.uint8
    order = torch.tensor([3, 0, 4, 1, 2])
    found = multi.augment_pixels(memory.images[order], memory.labels[order], seeded(0))
    digits, folder = multi.domains[0], multi.domains[2]
    generator = seeded(0)
    expected = torch.cat([digits.augment(memory.images[:3], generator), folder.augment(memory.images[3:], generator)])
    assert torch.equal(found, expected[order])


def test_digits_are_not_mirrored_and_images_may_be(multi: MultiDomain) -> None:
    assert [domain.FLIP for domain in multi.domains] == [False, True, True] and multi.FLIP is False


def test_joint_training_sees_every_image_once(multi: MultiDomain) -> None:
    whole = multi.as_one_task(3)
    assert sorted(whole.train_indices(0).tolist()) == list(range(len(multi.train.labels)))
    seen = torch.cat([labels for _, labels, _ in whole.train_batches(0, 0, 8)])
    assert len(seen) == whole.steps_per_epoch(0, 8) * 8 and len(set(seen.tolist())) == 15


def test_rows_are_shared_out_as_a_loop_does() -> None:
    parts = [
        PlacedSplit(torch.zeros(n, 3, 2, 2, dtype=torch.uint8), torch.arange(n) % c)
        for n, c in ((4, 2), (1, 1), (6, 3))
    ]
    images = DomainImages.joined(parts, TaskSplit((2, 1, 3)))
    assert images.labels.tolist() == [0, 1, 0, 1, 2, 3, 4, 5, 3, 4, 5]
    found = {(number, int(place)): int(row) for number, places, rows in images.by_domain(torch.tensor([10, 3, 4, 5]))
             for place, row in zip(places, rows, strict=True)}  # fmt: skip
    assert found == {(2, 0): 5, (0, 1): 3, (1, 2): 0, (2, 3): 0}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_runs_and_goes_on(method: str, folders: list[str], tmp_path: Path) -> None:
    smoke = ["--model_config", "smoke"] if "smoke" in presets_of(method, catalogue.INSTALLED).presets else []
    fixed = ["--model", method, "--dataset", "seq-multi", "--domains", ",".join(words(folders)), *smoke]
    fixed += ["--backbone", BACKBONE[method], "--train_per_class", "4", "--validation", "0.01"]
    fixed += ["--progress", "0", "--tensorboard", "0"]
    fixed += ["--image_size", "16"] if method in RESNET_METHODS else []  # a CLIP has its own
    known = options_of(method)
    fixed += [word for flag, value in FEW.items() if flag in known for word in (f"--{flag}", str(value))]
    unseen = catalogue.find("model", method).constants.get("NAMES_UNSEEN")
    fixed += ["--evaluate_unseen", "1"] if unseen else []
    place = ["--results_path", str(tmp_path / "runs"), "--run_name"]
    assert main([*fixed, *place, "whole"]) == 0
    whole = results_in(tmp_path / "runs" / method / "seq-multi" / "whole")
    assert whole["classes_per_task"][1:] == [3, 2]
    if unseen:
        assert len(whole["everywhere"]["task_il"]["before"]) == 3
    if method == "joint":
        return
    assert main([*fixed, *place, "part", "--stop_after", "1"]) == 0
    folder = tmp_path / "runs" / method / "seq-multi" / "part"
    assert main(["--resume", str(folder), "--stop_after", "3"]) == 0
    again = results_in(folder)
    assert same_figures(again, whole)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "none": ({"domains": ()}, "needs --domains"),
    "unknown": ({"domains": ("seq-digit",)}, "unknown data set 'seq-digit': did you mean seq-digits"),
    "twice": ({"domains": ("seq-digits", "seq_digits")}, "two domains are called 'seq-digits'"),
    "no folder": ({"domains": ("seq-folder",)}, "write seq-folder:DIR"),
    "folder": ({"domains": ("seq-digits:/somewhere",)}, "write seq-digits"),
    "absent": ({"domains": ("seq-folder:/no/such/place",)}, "--domains place: /no/such/place: there is no such folder"),
    "itself": ({"domains": ("seq-multi",)}, "a sequence is no domain of another"),
    "tasks": ({"n_tasks": 2}, "--n_tasks 2: seq-multi has one task for each of its 3 domains"),
    "base": ({"base_classes": 4}, "leave --base_classes and --classes_per_task out"),
    "sizes": ({"classes_per_task": (10, 5)}, "leave --base_classes and --classes_per_task out"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_makes_no_sequence_is_refused_in_one_line(case: str, folders: list[str]) -> None:
    wrong, message = REFUSED[case]
    with pytest.raises(UserError) as refused:
        SeqMulti.check(arguments(folders, **wrong))
    assert message in str(refused.value) and "\n" not in str(refused.value)


def test_two_folders_of_one_name_are_refused(tmp_path: Path) -> None:
    twins = [str(make_folder(tmp_path / parent / "birds", 2)) for parent in ("a", "b")]
    with pytest.raises(UserError, match="two domains are called 'birds'"):
        SeqMulti.check(arguments(twins))


def test_other_channels_are_refused(folders: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PlacedSplit, "channels", property(lambda split: 1 if len(split.labels) > 1000 else 3))
    with pytest.raises(UserError, match="its images have 3 channels, those of seq-digits have 1"):
        SeqMulti(arguments(folders), "cpu")


def test_a_run_is_gone_on_with_on_the_same_images_only(folders: list[str], multi: MultiDomain) -> None:
    assert multi.fingerprint.startswith("seq-digits:+seq-folder:")  # the digits are the package's
    (Path(folders[0]) / "extra.txt").touch()
    assert SeqMulti(arguments(folders), "cpu").fingerprint == multi.fingerprint
    next(Path(folders[0]).rglob("*.png")).unlink()
    assert SeqMulti(arguments(folders), "cpu").fingerprint != multi.fingerprint


def test_the_headline_is_over_all_images_though_the_domains_have_as_many_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    domains = [str(make_folder(tmp_path / name, 2, images=n)) for name, n in (("many", 20), ("few", 5))]
    typed = ["--model", "sgd", "--dataset", "seq-multi", "--domains", ",".join(f"seq-folder:{d}" for d in domains)]
    typed += ["--backbone", "resnet20", "--n_epochs", "1", "--batch_size", "4", "--tensorboard", "0"]
    assert main([*typed, "--results_path", str(tmp_path / "runs"), "--run_name", "one"]) == 0
    said = capsys.readouterr().out
    results = results_in(tmp_path / "runs" / "sgd" / "seq-multi" / "one")
    micro = results["class_il"]["micro_last"]
    assert (
        results["headline_over"] == "images" and f"A_2 = {micro:.2f} % (last class-IL accuracy over all images" in said
    )
    assert f"after task 2 of 2: class-IL {micro:.2f} %" in said
    assert main(["compare", str(tmp_path / "runs")]) == 0
    table = capsys.readouterr().out
    assert f" {micro:.2f} " in table and "last over tasks, %" in table


def test_a_folder_is_read_in_the_size_of_a_clip_or_as_was_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_folder(tmp_path / "one", 2)
    typed = [
        "--model",
        "zsclip",
        "--dataset",
        "seq-multi",
        "--domains",
        f"seq-folder:{folder}",
        "--backbone",
        "clip-tiny",
    ]
    assert main([*typed, "--check"]) == 0
    (row,) = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("image_size")]
    assert row[1:] == ["16", "backbone"]  # clip-tiny's own side
    assert main([*typed, "--image_size", "24", "--check"]) == 0
    assert "image_size          24" in capsys.readouterr().out
