"""Test that a damaged record is passed over by name, and ends neither a table nor ``--resume``."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pmi_cl.cli import main
from tests.support.hostile_inputs import good_record

Change = Callable[[dict[str, Any], dict[str, Any]], object]
SPOILED: dict[str, Change] = {
    "no model": lambda args, results: args["args"]["model"].update(value=None),
    "a list for a model": lambda args, results: args["args"]["model"].update(value=[]),
    "an infinite seed": lambda args, results: args["args"]["seed"].update(value=float("inf")),
    "a seed in words": lambda args, results: args["args"]["seed"].update(value="0"),
    "a preset of numbers": lambda args, results: args["args"]["model_config"].update(value=3),
    "an object for a value": lambda args, results: args["args"]["lr"].update(value={"a": 1}),
    "a list in a list": lambda args, results: args["args"]["lr"].update(value=[[1]]),
    "no source": lambda args, results: args["args"]["lr"].pop("source"),
    "arguments in a list": lambda args, results: args.update(args=[1]),
    "no arguments": lambda args, results: args.pop("args"),
    "a status of its own": lambda args, results: results.update(status=["finished"]),
    "no figures": lambda args, results: results.pop("class_il"),
    "no rows": lambda args, results: results["class_il"].update(matrix=[]),
    "an empty row": lambda args, results: results["class_il"].update(matrix=[[]]),
    "words in a row": lambda args, results: results["class_il"].update(matrix=[["90"]]),
    "a huge figure": lambda args, results: results["task_il"].update(last=1e308),
    "nan": lambda args, results: results["class_il"].update(average=float("nan")),
    "a list for a figure": lambda args, results: results["class_il"].update(forgetting=[1]),
    "seconds in words": lambda args, results: results["seconds"].update(training="1"),
    "no seconds": lambda args, results: results.update(seconds=None),
    "sizes of tasks": lambda args, results: results.update(headline_over="images", classes_per_task=[0]),
    "a transfer in words": lambda args, results: results.update(everywhere={"task_il": {"transfer": "x"}}),
    "a number for the images": lambda args, results: results.update(images=1.5),
    "images of one split": lambda args, results: results.update(images={"train": 1}),
    "options without effect": lambda args, results: results.update(without_effect=3),
    "a number for a tag": lambda args, results: results.update(backbone_weights={"tag": 3}),
    "stored in words": lambda args, results: results.update(stored={"after_task": [{"networks": "1"}]}),
    "a list of bytes": lambda args, results: results.update(stored={"after_task": [3]}),
    "bytes of no task": lambda args, results: results.update(stored=[3]),
    "classifiers in a list": lambda args, results: results.update(classifiers=[1]),
    "a classifier without figures": lambda args, results: results.update(classifiers={"ncm": {"last": "1"}}),
    "a later version": lambda args, results: results.update(schema=2),
    "weights": lambda args, results: results.update(backbone_weights=[1]),
}
TEXTS = {
    "deep": "[" * 100_000,
    "deep objects": '{"a":' * 100_000,
    "empty": "",
    "no object": "[]",
    "half": '{"args": {',
    "a number of 5000 digits": '{"args": ' + "9" * 5000 + "}",
    "zeros": "\0" * 100,
}


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Return a folder with the records of two finished runs, ``good`` and ``bad``."""
    for name in ("good", "bad"):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        for file, content in zip(("args.json", "results.json"), good_record(), strict=True):
            (folder / file).write_text(json.dumps(content))
    return tmp_path / "runs"


def check_only_the_good_one_counts(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for form in ("markdown", "csv"):
        assert main(["compare", str(runs), "--format", form]) == 0
        out, err = capsys.readouterr()
        assert "sgd" in out and err.count("\n") == 1 and err.startswith(f"passed over {runs / 'bad'}: ")


@pytest.mark.parametrize("name", SPOILED)
def test_a_record_with_a_wrong_value_is_passed_over(name: str, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args, results = good_record()
    SPOILED[name](args, results)
    (runs / "bad/args.json").write_text(json.dumps(args))
    (runs / "bad/results.json").write_text(json.dumps(results))
    check_only_the_good_one_counts(runs, capsys)


@pytest.mark.parametrize("file", ["args.json", "results.json"])
@pytest.mark.parametrize("name", TEXTS)
def test_a_record_that_is_no_json_is_passed_over_and_not_resumed(
    name: str, file: str, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (runs / "bad" / file).write_text(TEXTS[name])
    check_only_the_good_one_counts(runs, capsys)
    assert main(["--resume", str(runs / "bad"), "--check"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("make", "file"),
    [
        (os.mkdir, "args.json"),
        (os.mkfifo, "args.json"),
        (lambda path: path.symlink_to("nowhere"), "args.json"),
        (os.mkdir, "results.json"),
        (os.mkfifo, "results.json"),
    ],
)
def test_what_is_no_file_is_no_record(
    make: Callable[[Path], object], file: str, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (runs / "bad" / file).unlink()
    make(runs / "bad" / file)
    check_only_the_good_one_counts(runs, capsys)


@pytest.mark.parametrize("name", TEXTS)
def test_a_damaged_record_ends_no_command_beside_or_on_it(
    name: str, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``--check`` reads records of earlier runs of its setting, ``evaluate`` that of its run."""
    place = runs / "sgd/seq-digits/bad"
    place.parent.mkdir(parents=True)
    (runs / "bad").rename(place)
    (place / "args.json").write_text(TEXTS[name])
    run = ["--model", "sgd", "--dataset", "seq-digits", "--n_tasks", "2", "--n_classes", "4"]
    assert main([*run, "--results_path", str(runs), "--check"]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(place)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
