"""Trained networks, images and words that cannot be used are refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import pmi_cl
from pmi_cl.errors import UserError
from pmi_cl.utils.records import model_file
from tests.support.command_runs import quick
from tests.support.trained_runs import digit_files, refused, run_of


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (torch.rand(1, 3, 16, 16), "uint8, 0 to 255"),
        (torch.zeros(3, 16, 16, dtype=torch.uint8), r"\(b, 3, h, w\), not \(3, 16, 16\): pass pixels\[None\]"),
        (torch.zeros(1, 1, 16, 16, dtype=torch.uint8), r"not \(1, 1, 16, 16\)"),
    ],
)
def test_other_pixels_are_refused(pixels: torch.Tensor, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        pmi_cl.load(run_of("joint")).logits(pixels)


def test_an_unfinished_run_and_a_checkpoint_within_a_task_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = quick("sgd", tmp_path, "run")[1]
    results = json.loads((run / "results.json").read_text())
    (run / "results.json").write_text(json.dumps({**results, "status": "interrupted"}))
    assert f"{run} is 'interrupted': finish it (--resume {run})" in refused(["evaluate", str(run)], capsys)
    state = torch.load(run / "checkpoint.pt", weights_only=True)
    state["training"]["position"]["phase"] = "train"
    torch.save(state, run / "checkpoint.pt")
    assert "was written within a task" in refused(["evaluate", str(run / "checkpoint.pt")], capsys)
    (run / "args.json").unlink()
    assert "is read in the folder of its run" in refused(["evaluate", str(run / "checkpoint.pt")], capsys)
    assert "is not the folder of a run" in refused(["evaluate", str(run)], capsys)


def damaged(path: Path, **about: Any) -> None:
    """Write the file of a network with other metadata."""
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    with safe_open(str(path), framework="pt") as file:
        metadata = file.metadata()
    save_file(load_file(path), path, {**metadata, "pmi_cl": json.dumps({**json.loads(metadata["pmi_cl"]), **about})})


@pytest.mark.parametrize(
    "about",
    [
        {"tasks": [2]},
        {"tasks": [-2, 6]},
        {"task": 7},
        {"task": "x"},
        {"class_names": 5},
        {"text_of": [9, 9, 9, 9]},
        {"preprocessing": {}},
        {"format": "pmi-cl model 99"},
        {"args": {"model": "sgd"}},
        {"args": []},
        {"args": {"model": 5, "dataset": "seq-digits", "backbone": "resnet20"}},
    ],
    ids=str,
)
def test_a_file_that_was_tampered_with_is_refused_in_one_line(about: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "network.safetensors"
    path.write_bytes((run_of("sgd") / "model.safetensors").read_bytes())
    damaged(path, **about)
    with pytest.raises(UserError):
        pmi_cl.load(path)


def test_a_file_that_is_none_of_ours_or_holds_no_numbers_is_refused(tmp_path: Path) -> None:
    whole = (run_of("sgd") / "model.safetensors").read_bytes()
    for content in (b"", b"hello", whole[:-100], whole[:20]):
        (tmp_path / "file.safetensors").write_bytes(content)
        with pytest.raises(UserError, match="is no network of pmi-cl"):
            pmi_cl.load(tmp_path / "file.safetensors")
    state, _, record = model_file.read_model(run_of("sgd") / "model.safetensors")
    state["stem.conv.weight"][0, 0, 0, 0] = torch.nan
    model_file.write_model(tmp_path / "file.safetensors", state, record)
    with pytest.raises(UserError, match=r"stem\.conv\.weight has values that are not finite"):
        pmi_cl.load(tmp_path / "file.safetensors")


def test_wrong_words_are_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, image = str(run_of("sgd")), str(digit_files() / "0" / "0.png")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "notes.txt").write_text("no image")
    for name in ("a.pt2", "a.onnx", "bad.png"):
        (tmp_path / name).touch()
    (tmp_path / "link.png").symlink_to("nowhere")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)  # where there are no runs
    cases = {
        ("predict",): "needs a run and images",
        ("predict", run): "needs a run and images",
        ("predict", run, "gone.png"): "there is no file or folder gone.png",
        ("predict", run, "notes"): "is no image of a kind that is read (.png, .jpg, .jpeg, .webp, .bmp): convert it",
        ("predict", run, image, "--tpo", "3"): "did you mean --top?",
        ("predict", run, image, "--zzz"): "unknown flag '--zzz': pmi-cl predict --help lists the flags",
        ("predict", run, image, "\u2014top", "3"): "begins with a long dash: write --top",
        ("predict", run, "link.png"): "link.png is not a readable image (a link to nowhere, which is",
        ("predict", run, "empty", "--on_bad_image", "skip"): "holds no image",
        (
            "predict",
            run,
            "bad.png",
        ): "(it is empty): repair it, or take it out of the folder, or say --on_bad_image skip",
        ("predict", run, "bad.png", "--on_bad_image", "skip"): "no image is left: 1 file that cannot",
        ("predict", "a.pt2", image): "a.pt2 is an exported program of torch.export: use it with torch.export.load(",
        ("predict", image, run): "0.png has the name of an image: the run comes first, pmi-cl predict RUN IMAGE",
        ("evaluate", "a.onnx"): "a.onnx is an exported ONNX program: use it with a runtime for ONNX, without pmi-cl; h",
        ("evaluate", run, "--zzz"): "pmi-cl evaluate --help lists the flags",
        ("export", run, "--zzz"): "pmi-cl export --help lists the flags",
        ("compare", "--zzz"): "pmi-cl compare --help lists the flags",
        ("sweep", "--zzz"): "pmi-cl sweep --help lists the flags",
        ("sweep", "a.yaml", "b.yaml"): "'b.yaml' stands alone: write one file",
        ("invert", "--zzz"): "pmi-cl invert --help lists the flags",
        ("invert", "--prompt", "a", "dog"): "'dog' stands alone: write --flag value, and a text of several words in",
        ("predict", run, image, "--csv", str(tmp_path / "no" / "x.csv")): "there is no folder",
        ("predict", run, "--csv", "a.PNG", image): "a.PNG has the name of an image: name another file",
        ("predict", run, image, "--csv", "x", "--json", "./x"): "--csv and --json name one file",
        ("evaluate", run, "--data_dir", "x"): "--data_dir is no flag of seq-digits",
        ("evaluate", run, "--dataset", "seq-digit"): "did you mean seq-digits",
        ("evaluate",): "takes one run",
        ("evaluate", "gone"): "give RUN the path of its folder",
        ("export", run): "needs -o FILE",
        ("export", run, "-o", "network.txt"): "give the file one of the endings",
        ("export", run, "-o", str(tmp_path / "no" / "n.pt2")): "name a file in a folder that exists",
        ("export", run, "-o", f"{run}/model.safetensors"): "is the network itself",
    }
    for words, message in cases.items():
        assert message in refused(list(words), capsys)
