"""Test our methods, data sets and backbones inside Mammoth.

That is a stand-in of our own, and a real checkout where MAMMOTH_PATH names one.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.mammoth_runs import ACCURACY, FEW, REAL, SMALL, STAND_IN, contents, mammoth, python, raw, refused


def test_a_method_and_a_data_set_of_ours_and_a_checkout_that_stays_as_it_was(
    mammoth_host: Path, tmp_path: Path
) -> None:
    before = contents(mammoth_host)
    text = mammoth(
        tmp_path,
        mammoth_host,
        "--model",
        "pmi_rdfcil",
        "--dataset",
        "seq-digits",
        *SMALL,
        "--savecheck",
        "task",
        "--ckpt_name",
        "x",
        "--checkpoint_path=kept",
    )
    assert [int(task) for task, _ in ACCURACY.findall(text)] == [1, 2, 3, 4, 5]
    assert contents(mammoth_host) == before
    assert (tmp_path / "data/results/class-il/seq-digits/pmi_rdfcil/logs.pyd").is_file()
    assert len(list((tmp_path / "kept").glob("x*.pt"))) == 5


SAVED = ["--model", "pmi_rdfcil", "--dataset", "seq-digits", *SMALL, "--lr", "0.05"]


@pytest.fixture(scope="module")
def saved_run(mammoth_host: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[list[float]]]:
    """Run two tasks and keep a checkpoint of each. Return the folder and the accuracies."""
    folder = tmp_path_factory.mktemp("saved")
    return folder, raw(mammoth(folder, mammoth_host, *SAVED, "--stop_after", "2", "--savecheck", "task"))


def test_a_run_goes_on_from_a_checkpoint_of_its_middle(
    mammoth_host: Path, saved_run: tuple[Path, list[list[float]]], tmp_path: Path
) -> None:
    """A relative path starts in the current folder.

    What was learned is there, and the rest is learned from it.
    """
    folder, first = saved_run
    (newest,) = (folder / "checkpoints").glob("*_1.pt")
    more = ["--start_from", "2", "--stop_after", "3", "--loadcheck", os.path.relpath(newest, tmp_path)]
    again = mammoth(tmp_path, mammoth_host, *SAVED, *more)
    assert [len(row) for row in raw(again)] == [3]
    if mammoth_host != STAND_IN:
        return  # Mammoth's checkpoints keep --savecheck, with which it refuses --inference_only
    shown = ["--start_from", "2", "--stop_after", "3", "--inference_only", "1", "--loadcheck", str(newest)]
    assert raw(mammoth(tmp_path, mammoth_host, *SAVED, *shown))[-1][:2] == first[-1]


def test_a_checkpoint_brings_its_settings(
    mammoth_host: Path, saved_run: tuple[Path, list[list[float]]], tmp_path: Path
) -> None:
    """Nothing is typed again, and the preset does not come back.

    The next tasks end as if the run had not been stopped.
    """
    folder, whole = saved_run
    (first,) = (folder / "checkpoints").glob("*_0.pt")
    assert (
        raw(mammoth(tmp_path, mammoth_host, "--loadcheck", str(first), "--start_from", "1", "--stop_after", "2"))[-1]
        == whole[-1]
    )
    for typed, said in (
        ("2", "--start_from is 2: say --start_from 1"),
        (None, "--start_from is 0: say --start_from 1"),
    ):
        more = ["--start_from", typed] if typed else []
        assert said in refused(tmp_path, "--mammoth_path", str(mammoth_host), "--loadcheck", str(first), *more)


def test_every_preset_of_every_method_is_one_for_mammoths_data_sets() -> None:
    from pmi_cl.mammoth.flags import preset_names, preset_values
    from pmi_cl.registry.catalogue import INSTALLED

    for entry in INSTALLED.entries("model"):
        for preset in preset_names(entry):
            for dataset in ("seq-cifar100", "seq-cifar10"):
                assert preset_values(entry, dataset, None, preset)["backbone"]


def test_a_preset_of_ones_own(mammoth_host: Path, tmp_path: Path) -> None:
    """Its path starts in the current folder."""
    (tmp_path / "mine.yaml").write_text("lr: 0.0625\nlr_milestones: [0.25]\n")
    code = """
import sys
from pmi_cl.mammoth import register
from pmi_cl.mammoth.launch import launch
register(sys.argv[1])
import utils.training
utils.training.train = lambda model, dataset, args: print(args.lr, args.pmi_lr_milestones, args.base_path)
launch(["--mammoth_path", *sys.argv[1:]])
"""
    words = ["--model", "pmi-sgd", "--dataset", "seq-digits", "--model_config=mine.yaml", *FEW]
    assert python(tmp_path, code, str(mammoth_host), *words).startswith("0.0625 (0.25,) ")


def test_a_method_of_ours_on_a_data_set_of_mammoths(
    mammoth_host: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    words = [
        "--model",
        "pmi_rdfcil",
        "--dataset",
        "seq-cifar100",
        "--stop_after",
        "3",
        "--model_config",
        "smoke",
        "--inv_steps",
        "2",
        *FEW[2:],
    ]
    if mammoth_host == STAND_IN:
        words += ["--buffer_images", "40", "--inv_batch", "40"]
    else:  # real images; six steps an epoch
        (tmp_path / "data").mkdir()
        (tmp_path / "data/CIFAR100").symlink_to(request.getfixturevalue("cifar100_dir"))
        words += ["--base_path", "data", "--dataset_config", "5tasks", "--debug_mode", "1", "--backbone", "resnet20"]
        words += ["--buffer_images", "200", "--inv_batch", "200", "--cont_epochs", "1"]
    assert [len(row) for row in raw(mammoth(tmp_path, mammoth_host, *words))] == [1, 2, 3]


def test_what_mammoth_does_to_its_data_reaches_our_methods(tmp_path: Path) -> None:
    """It orders the classes otherwise.

    It evaluates before a task that a head which grows cannot yet answer.
    """
    words = ["--model", "pmi-sgd", *FEW[2:], "--permute_classes", "1", "--enable_other_metrics", "1"]
    for dataset in ("seq-cifar100", "seq-digits"):
        assert [len(row) for row in raw(mammoth(tmp_path, STAND_IN, *words, "--dataset", dataset))] == [1, 2, 3, 4, 5]


@pytest.mark.skipif(REAL is None, reason="needs MAMMOTH_PATH")
@pytest.mark.parametrize("model", ["icarl", "er", "ewc_on", "lwf"])
def test_methods_of_mammoths_that_look_into_a_data_set(model: str, tmp_path: Path) -> None:
    more = {
        "icarl": ["--buffer_size", "50"],
        "er": ["--buffer_size", "50"],
        "ewc_on": ["--e_lambda", "10", "--gamma", "1"],
    }
    text = mammoth(tmp_path, Path(str(REAL)), "--model", model, "--dataset", "seq-digits", *more.get(model, []), *FEW)
    assert len(ACCURACY.findall(text)) == 5


@pytest.mark.parametrize("model", ["pmi-sgd", "rdfcil", "zsclip", "vpt", "pmi_moe"])
def test_every_kind_of_method_runs(model: str, mammoth_host: Path, tmp_path: Path) -> None:
    """``sgd`` is Mammoth's own, and zsclip trains nothing.

    A CLIP gets its images in its own form, whatever Mammoth's loader makes of them. It knows their
    names in whatever order Mammoth shows the classes.
    """
    words = {
        "rdfcil": ["--generator_steps", "2", *FEW],
        "zsclip": ["--backbone", "clip-tiny", "--permute_classes", "1", *FEW[:4], "--seed", "0"],
        "vpt": ["--backbone", "clip-tiny", *FEW],
        "pmi_moe": ["--backbone", "clip-tiny", "--pmi_steps", "2", "--inv_steps", "2", "--cont_epochs", "2", *FEW],
    }
    text = mammoth(tmp_path, mammoth_host, "--model", model, "--dataset", "seq-digits", *words.get(model, FEW))
    found = ACCURACY.findall(text)
    assert len(found) == 5 and (model != "zsclip" or float(found[-1][1]) > 70)


def test_a_method_of_mammoths_on_our_data_set_and_backbone(mammoth_host: Path, tmp_path: Path) -> None:
    """Where it has no values of its own, it gets those of our fine-tuning. No --lr is asked for."""
    rehearsal = ["--model", "derpp", "--buffer_size", "50", "--alpha", "0.3", "--beta", "0.5"]
    assert len(ACCURACY.findall(mammoth(tmp_path, mammoth_host, *rehearsal, "--dataset", "seq-digits", *FEW))) == 5


def test_help_has_our_flags_with_the_preset_s_values(mammoth_host: Path, tmp_path: Path) -> None:
    words = ["--model", "pmi_rdfcil", "--dataset", "seq-digits", "--help"]
    best = " ".join(mammoth(tmp_path, mammoth_host, *words).split())
    paper = " ".join(mammoth(tmp_path, mammoth_host, *words, "--model_config", "paper").split())
    assert (
        "steps of the full-model stage (steps; between 1 and 1000000; default: 300; source: PMI appendix I.1)" in best
    )
    assert "default: 280" in paper
    for flag in (
        "--pmi_lr_milestones",
        "--pmi_class_order",
        "--n_tasks",
        "--precision",
        "{default,paper,code,rdfcil,best,deepinversion,smoke,none}",
    ):
        assert flag in best
