"""Test ``pmi-cl invert``.

Its flags need no torch. A mistake is one line. It leaves pictures, curves and a record.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pmi_cl.cli import main
from pmi_cl.datasets.input_form import InputForm
from pmi_cl.registry.catalogue import INSTALLED
from pmi_cl.utils.commands.invert.command import new_folder, resolve_invert
from pmi_cl.utils.commands.invert.measured_images import measured_images
from pmi_cl.utils.commands.invert.options import MOST_ROWS
from pmi_cl.utils.commands.invert.step_pictures import step_grid, work_curves
from tests.support.child_processes import processor_seconds

pytestmark = pytest.mark.usefixtures("letters")

ROOT = Path(__file__).resolve().parent.parent
SHORT = ["--pmi_steps", "2", "--images", "2", "--pictures", "3", "--progress", "0", "--precision", "fp32"]
PROMPT = ["--prompt", "a photo of the digit 5."]


def invert(*words: str, folder: Path, steps: int = 6) -> int:
    return main(["invert", *PROMPT, *SHORT, "--steps", str(steps), "--output", str(folder), *words])


def record_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "invert.json").read_text())
    return found


def test_leaves_a_grid_for_each_arm_the_curves_and_the_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "new" / "pictures"
    assert invert(folder=folder) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["full.png", "invert.json", "losses.png", "pmi.png"]
    for name in ("full", "pmi", "losses"):
        with Image.open(folder / f"{name}.png") as picture:
            assert np.asarray(picture).std() > 10
    said = capsys.readouterr().out
    assert "PMI + full model: cosine" in said and "full model alone: cosine" in said and str(folder) in said


def test_that_not_all_images_are_shown_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["invert", "--help"]) == 0
    assert f"the first {MOST_ROWS} are shown" in " ".join(capsys.readouterr().out.split())
    for images, said in ((MOST_ROWS, ""), (MOST_ROWS + 4, " (the first 16 of 20 are shown)")):
        folder = tmp_path / str(images)
        words = ["--pmi_steps", "1", "--steps", "1", "--pictures", "2", "--dataset", "none", "--progress", "0"]
        words += ["--precision", "fp32"]  # bfloat16 is slow on most CPUs
        assert main(["invert", *PROMPT, *words, "--images", str(images), "--output", str(folder)]) == 0
        assert capsys.readouterr().out.splitlines()[-1] == f"pictures: {folder}{said}"


def test_both_arms_do_the_same_work_on_the_same_text(tmp_path: Path) -> None:
    assert invert(folder=tmp_path / "a") == 0
    record = record_of(tmp_path / "a")
    pmi, full = record["arms"]
    assert pmi["inversion"]["step_equivalents"] == pytest.approx(8, rel=1e-3)
    assert full["inversion"]["step_equivalents"] == pytest.approx(8, rel=1e-3)
    # clip-tiny: convolution, embedding, four blocks, projection.
    assert len(pmi["pmi_losses"]) == 7 and full["pmi_losses"] == {}
    assert pmi["shown_steps"] == [0, 3, 6] and full["shown_steps"] == [0, 4, 8]
    assert (
        len(pmi["losses"]) == 6
        and pmi["step_equivalents"][0] == pytest.approx(3, rel=1e-3)
        and full["step_equivalents"][0] == 1
    )
    assert record["args"]["prompt"] == PROMPT[1] and record["weights"]["sha256"] and record["versions"]["torch"]


def test_the_seed_decides(tmp_path: Path) -> None:
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        assert invert("--seed", seed, folder=tmp_path / name, steps=2) == 0
    losses = {name: record_of(tmp_path / name)["arms"][0]["losses"] for name in "abc"}
    assert losses["a"] == losses["b"] != losses["c"]
    assert (tmp_path / "a" / "pmi.png").read_bytes() == (tmp_path / "b" / "pmi.png").read_bytes()


def test_pictures_come_to_show_the_text(tmp_path: Path) -> None:
    assert invert(folder=tmp_path / "a", steps=60) == 0
    assert all(arm["cosine"] > 0.5 for arm in record_of(tmp_path / "a")["arms"])


def test_without_data_there_are_no_statistics_and_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invert("--dataset", "none", folder=tmp_path / "a") == 0
    assert "no statistics" in capsys.readouterr().out


def test_any_folder_of_images_can_be_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(6):
        folder = tmp_path / "images" / f"{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")
    assert invert("--data_dir", str(tmp_path / "images"), folder=tmp_path / "a") == 0
    assert "no statistics" not in capsys.readouterr().out


def test_without_a_folder_the_text_names_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert new_folder('A "big" cat / dog.') == "runs/invert/a-big-cat-dog"
    for name in ("a-cat", "a-cat-2"):
        assert new_folder("a cat") == f"runs/invert/{name}"
        (tmp_path / "runs/invert" / name).mkdir(parents=True)
        (tmp_path / "runs/invert" / name / "invert.json").write_text("{}")
    assert new_folder("../..") == "runs/invert/text"
    assert resolve_invert(["--prompt", "a cat"], INSTALLED)[0].output == "runs/invert/a-cat-3"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--output", "x"], "--prompt is missing"),
        (["--prompt", "  ", "--output", "x"], "a text that is not empty"),
        ([*PROMPT, "--output", "x", "--backbone", "clip-tinny"], "clip-tiny"),
        ([*PROMPT, "--output", "x", "--backbone", "resnet32"], "reads no text: choose from clip-tiny"),
        ([*PROMPT, "--output", "x", "--step", "5"], "--steps"),
        ([*PROMPT, "--output", "x", "--steps", "0"], "between 1 and"),
        ([*PROMPT, "--output", "x", "--data_dir", "y", "--dataset", "seq-digits"], "keep one"),
        ([*PROMPT, "--output", "x", "--data_dir", "nowhere"], "there is no such folder"),
        ([*PROMPT, "--output", "x", "--dataset", "seq-digit"], "seq-digits"),
        (["--prompt", "a " * 300, "--output", "x"], "is longer than the"),
        ([*PROMPT, "--output", "taken"], "--output taken is or goes through a file"),
        ([*PROMPT, "--output", "done"], "has pictures already"),
        ([*PROMPT, "--output", "x", "--device", "tpu"], "--device tpu"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").write_text("")
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "invert.json").write_text("{}")
    checked = [] if "longer" in said else [["--check"]]  # how long a text is only the network tells
    for more in [*checked, []]:
        assert main(["invert", *words, *more]) == 2
        told = capsys.readouterr().err
        assert said in told and len(told.strip().splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["done", "taken"]


def test_what_was_not_typed_has_its_default() -> None:
    args, sources = resolve_invert([*PROMPT, "--output", "x", "--steps", "7"], INSTALLED)
    assert (args.steps, args.pmi_steps, args.backbone, args.dataset) == (7, 200, "clip-tiny", "seq-digits")
    assert sources["steps"] == "flag" and sources["pmi_steps"] == "default"
    other, _ = resolve_invert(
        [*PROMPT, "--output", "x", "--backbone", "clip-vit-b-16", "--clip_weights", "random"], INSTALLED
    )
    assert other.dataset is None and other.clip_weights == "random"


def test_check_prints_the_values_and_runs_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["invert", *PROMPT, "--output", str(tmp_path / "x"), "--check"]) == 0
    assert "pmi_steps" in capsys.readouterr().out and not (tmp_path / "x").exists()


def test_help_needs_no_torch_and_shows_the_backbones_flags() -> None:
    code = "import sys; from pmi_cl.cli import main; code = main(sys.argv[1:]); "
    code += "print('torch' in sys.modules); sys.exit(code)"
    words = [sys.executable, "-c", code, "invert", "--help", "--backbone", "clip-vit-b-16"]
    began = processor_seconds()
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
    spent = processor_seconds() - began
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "False"
    assert "--prompt" in done.stdout and "--clip_weights" in done.stdout and "App. I.2" in done.stdout
    assert spent < 0.6


def test_out_of_memory_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise RuntimeError("CUDA out of memory. Tried to allocate much")

    monkeypatch.setattr("pmi_cl.utils.commands.invert.text_to_image.text_to_image", full)
    assert invert(folder=tmp_path / "a") == 1
    assert "fewer --images (2)" in capsys.readouterr().err


# Drawings.


def test_a_grid_has_a_column_for_each_shot_and_a_row_for_each_image() -> None:
    shots = [(step, torch.full((2, 3, 4, 4), step / 10)) for step in (0, 1, 10)]
    figure = step_grid(shots, "a $strange$ text")
    assert [axes.get_title() for axes in figure.axes[:3]] == ["0 steps", "1 step", "10 steps"]
    assert len(figure.axes) == 6 and figure.get_suptitle() == "a $strange$ text"
    shown = [float(axes.images[0].get_array().mean()) for axes in figure.axes]  # type: ignore[union-attr]
    assert shown == pytest.approx([0, 0.1, 1, 0, 0.1, 1])


def test_curves_are_named_and_over_their_own_x() -> None:
    axes = work_curves({"one": ([1, 2], [3.0, 1.0]), "two": ([5], [2.0])}, "work", "loss").axes[0]
    assert [line.get_label() for line in axes.lines] == ["one", "two"] and axes.get_yscale() == "log"
    assert axes.get_xlabel() == "work" and list(axes.lines[1].get_xdata()) == [5]  # type: ignore[arg-type]
    assert work_curves({"one": ([1], [0.0])}, "", "").axes[0].get_yscale() == "linear"


@pytest.mark.parametrize(("most", "expected"), [(3, 3), (5, 5), (23, 20)])
def test_no_more_images_are_measured_than_was_said(most: int, expected: int) -> None:
    """There are as many of each task, or one of each of the first tasks where tasks outnumber
    images.
    """
    args = SimpleNamespace(**vars(resolve_invert([*PROMPT, "--data_images", str(most)], INSTALLED)[0]))
    form = InputForm(16, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    batches = list(measured_images(args, INSTALLED, form, torch.device("cpu"), lambda *progress: None))
    assert sum(map(len, batches)) == expected
