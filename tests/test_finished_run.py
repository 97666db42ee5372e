"""What a run by the real command leaves: its record, its pictures, its events and its words."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pmi_cl.backbones.resnet_cifar import resnet20
from pmi_cl.datasets.seq_digits import SeqDigits
from pmi_cl.utils.arguments.command_line import resolve
from pmi_cl.utils.records.confusion import as_table
from tests.support.command_runs import SLOW, headline_of, results_in
from tests.support.small_runs import words_of


def digits() -> SeqDigits:
    return SeqDigits(resolve(words_of("pmi_rdfcil", **SLOW)).args, torch.device("cpu"))


def test_the_record_has_the_keys_of_its_schema(finished_run: tuple[Path, str, str]) -> None:
    results = results_in(finished_run[0])
    named = {
        "schema": 1,
        "model": "pmi_rdfcil",
        "dataset": "seq-digits",
        "seed": 0,
        "classes_per_task": [2, 2],
        "headline_over": "tasks",
        "status": "finished",
        "precision": "float32",
    }
    assert {name: results[name] for name in named} == named
    measured = {
        "backbone_weights",
        "images",
        "without_effect",
        "class_il",
        "task_il",
        "by_class",
        "seconds",
        "peak_memory_mib",
        "inversion",
        "stored",
        "classifiers",
        "versions",
        "commit",
        "hardware",
    }
    assert results.keys() == named.keys() | measured
    for setting in ("class_il", "task_il"):
        assert results[setting].keys() == {
            "matrix",
            "last",
            "average",
            "forgetting",
            "bwt",
            "micro",
            "micro_last",
            "micro_average",
        }
    phases = {"training", "selection", "inversion", "statistics", "evaluation"}
    assert results["seconds"].keys() == results["peak_memory_mib"].keys() == phases
    assert all(value > 0 for value in (*results["seconds"].values(), *results["peak_memory_mib"].values()))
    assert results["versions"]["torch"] == torch.__version__ and results["hardware"]["threads"] == 1


def test_the_figures_are_those_of_the_network_that_was_saved(finished_run: tuple[Path, str, str]) -> None:
    """Compute accuracies by hand, from the checkpoint's weights and the test images alone."""
    results, dataset = results_in(finished_run[0]), digits()
    network = resnet20()
    network.load_state_dict(
        torch.load(finished_run[0] / "checkpoint.pt", weights_only=True)["training"]["method"]["net"]
    )
    with torch.no_grad():
        logits = network.eval()(dataset.normalise(dataset.test.images)).numpy()
    labels = dataset.test.labels.numpy()
    by_task = [labels // 2 == task for task in range(2)]
    free = logits.argmax(1) == labels
    told = np.array(
        [row[2 * (y // 2) : 2 * (y // 2) + 2].argmax() == y % 2 for row, y in zip(logits, labels, strict=True)]
    )
    for setting, right in (("class_il", free), ("task_il", told)):
        found = results[setting]
        assert found["matrix"][1] == pytest.approx([100 * right[rows].mean() for rows in by_task])
        assert found["micro_last"] == pytest.approx(100 * right.mean())
        (first,), (old, new) = found["matrix"]
        assert found["micro_average"] == pytest.approx((first + 100 * right.mean()) / 2)
        assert found["last"] == pytest.approx((old + new) / 2)
        assert found["average"] == pytest.approx((first + (old + new) / 2) / 2)
        assert found["forgetting"] == pytest.approx(first - old) and found["bwt"] == pytest.approx(old - first)


def test_the_figures_by_class_are_those_of_the_network_that_was_saved(finished_run: tuple[Path, str, str]) -> None:
    results, dataset = results_in(finished_run[0]), digits()
    network = resnet20()
    network.load_state_dict(
        torch.load(finished_run[0] / "checkpoint.pt", weights_only=True)["training"]["method"]["net"]
    )
    with torch.no_grad():
        predicted = network.eval()(dataset.normalise(dataset.test.images)).argmax(1).numpy()
    labels, found = dataset.test.labels.numpy(), results["by_class"]
    table = np.zeros((4, 4), int)
    np.add.at(table, (labels, predicted), 1)
    assert as_table(found["confusion"][1], 4) == table.tolist()
    assert found["accuracy"][1] == [round(100 * table[k, k] / table[k].sum(), 4) for k in range(4)]
    assert (found["class_names"], found["images"]) == (["0", "1", "2", "3"], table.sum(1).tolist())
    # After the first task: the counts are those of its accuracy.
    first = np.array(as_table(found["confusion"][0], 4))
    assert 100 * first.trace() / first.sum() == pytest.approx(results["class_il"]["matrix"][0][0])


def test_the_inversion_is_accounted_for(finished_run: tuple[Path, str, str]) -> None:
    """There are 24 images in two batches.

    Each batch takes 4 steps for each of the 10 pieces and 40 through the whole network.
    """
    found = results_in(finished_run[0])["inversion"]
    steps = 2 * (10 * 4 + 40)
    assert (found["images"], found["steps"], found["forward_passes"], found["backward_passes"]) == (
        24,
        steps,
        steps,
        steps,
    )
    assert found["step_equivalents"] == pytest.approx(4 + 40) and 0 < found["seconds_per_image"] < 10


def test_the_arguments_are_kept_with_their_sources(finished_run: tuple[Path, str, str]) -> None:
    args = json.loads((finished_run[0] / "args.json").read_text(encoding="utf-8"))["args"]
    assert args["inv_steps"] == {"value": 40, "source": "flag"}
    assert args["balanced"] == {"value": True, "source": "preset smoke"}
    assert args.keys() == vars(resolve(words_of("pmi_rdfcil", **SLOW)).args).keys()


def test_the_folder_holds_the_record_and_nothing_else(finished_run: tuple[Path, str, str]) -> None:
    names = {path.relative_to(finished_run[0]).as_posix() for path in finished_run[0].rglob("*") if path.is_file()}
    events = {name for name in names if name.startswith("events.out.tfevents")}
    pictures = {"accuracy-class-il", "accuracy-task-il", "inversion-task-2", "synthetic-task-2"}
    pictures |= {"confusion", "accuracy-by-class"}
    assert len(events) == 1
    assert names - events == {
        "args.json",
        "results.json",
        "checkpoint.pt",
        "model.safetensors",
        *(f"pictures/{name}.png" for name in pictures),
    }


def test_the_pictures_can_be_looked_at(finished_run: tuple[Path, str, str]) -> None:
    for path in (finished_run[0] / "pictures").iterdir():
        assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        with Image.open(path) as picture:
            pixels = np.asarray(picture)
        assert pixels.dtype == np.uint8 and min(pixels.shape[:2]) > 100 and len(np.unique(pixels)) > 10


def test_tensorboard_shows_what_was_promised(finished_run: tuple[Path, str, str]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(finished_run[0]), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    tags, results = events.Tags(), results_in(finished_run[0])
    losses = {f"loss/{name}" for name in ("loss", "ce", "hkd", "rkd", "ft")}
    layers = {f"inversion/task 2/{stage}" for stage in ("full model", *(f"layer {number}" for number in range(10)))}
    accuracies = {
        f"{setting}/{name}" for setting in ("class-il", "task-il") for name in ("task 1", "task 2", "last", "average")
    }
    assert losses | layers | accuracies | {
        "learning rate",
        "inversion/images per second",
        "training/images per second",
    } <= set(tags["scalars"])
    drawn = {"accuracy-class-il", "accuracy-task-il", "synthetic/task 2", "inversion/task 2"}
    assert {f"visuals/{tag}" for tag in drawn | {"confusion", "accuracy-by-class"}} <= set(tags["images"])
    assert [event.step for event in events.Images("visuals/confusion")] == [1, 2]
    assert min(tags["images"]) > max(tags["scalars"])  # TensorBoard sorts them: curves first
    settings = events.Tensors("settings/text_summary")[0].tensor_proto.string_val[0]
    assert b"| seed | 0 |" in settings and b"| inv_steps | 40 |" in settings and b"| tensorboard |" not in settings
    # 30 steps, two epochs, two tasks.
    assert [event.step for event in events.Scalars("loss/loss")] == list(range(1, 121))
    pace = {event.step: event.value for event in events.Scalars("training/images per second")}
    assert {60, 120} <= pace.keys() and 1 < min(pace.values()) <= max(pace.values()) < 1e6  # the last step of each task
    assert [event.value for event in events.Scalars("class-il/average")][-1] == pytest.approx(
        results["class_il"]["average"]
    )
    assert [event.value for event in events.Scalars("class-il/task 1")] == pytest.approx(
        [row[0] for row in results["class_il"]["matrix"]]
    )
    assert [event.step for event in events.Images("visuals/accuracy-class-il")] == [1, 2]
    assert (
        len(events.Scalars("inversion/task 2/full model")) == 80
        and len(events.Scalars("inversion/task 2/layer 9")) == 8
    )


def test_it_says_what_it_does_in_plain_lines(finished_run: tuple[Path, str, str]) -> None:
    folder, out, err = finished_run
    results = results_in(folder)
    lines = out.splitlines()
    assert [line.partition(": ")[0] for line in lines[:-2]] == [str(folder), "after task 1 of 2", "after task 2 of 2"]
    assert re.fullmatch(
        rf"the network is in model.safetensors \(1\.1 MB\); use it with: pmi-cl predict {folder} IMAGES", lines[-2]
    )
    assert f"{lines[-1]}\n" == headline_of(results)
    # A file gets a line of progress a minute, which no phase of this run takes on an idle machine.
    told = re.findall(r"^task \d \w+: \d+/\d+ in \d+:\d\d, .*, loss \S+$", err, re.MULTILINE)
    assert len(told) == err.count("\n") and "\r" not in err
