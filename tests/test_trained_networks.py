"""A trained network of every method is loaded, predicts, is evaluated and exported."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import pmi_cl
from pmi_cl.cli import main
from pmi_cl.errors import UserError
from pmi_cl.registry.catalogue import INSTALLED
from pmi_cl.utils.trained.evaluating import evaluate_other
from tests.support.command_runs import quick, results_in
from tests.support.small_runs import METHODS
from tests.support.trained_runs import digit_files, refused, run_of

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_evaluated_as_its_run_was_and_loads_from_all_that_holds_it(
    method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, results = run_of(method), results_in(run_of(method))
    assert main(["evaluate", str(run), "-o", str(tmp_path / "out")]) == 0
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert found["class_il"] == results["class_il"]["matrix"][-1] and found["last"] == results["class_il"]["last"]
    assert found["task_il"] == results["task_il"]["matrix"][-1]
    exported = tmp_path / "network.SAFETENSORS"
    assert main(["export", str(run), "-o", str(exported)]) == 0
    pixels = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    logits = [pmi_cl.load(path).logits(pixels) for path in (run, run / "checkpoint.pt", exported)]
    assert logits[0].shape == (3, 4) and all(torch.equal(other, logits[0]) for other in logits[1:])


@pytest.mark.parametrize("method", ["rdfcil", "pmi_moe"])
def test_a_network_is_exported_for_programs_without_this_package(method: str, tmp_path: Path) -> None:
    model, path = pmi_cl.load(run_of(method)), tmp_path / "network.pt2"
    assert main(["export", str(run_of(method)), "-o", str(path)]) == 0
    about = {"pmi_cl.json": ""}
    program = torch.export.load(path, extra_files=about).module()
    pixels = torch.randint(0, 256, (5, 3, 16, 16), dtype=torch.uint8)
    torch.testing.assert_close(program(pixels / 255), model.logits(pixels), atol=1e-3, rtol=1e-3)
    told = json.loads(about["pmi_cl.json"])
    assert told["class_names"] == ["0", "1", "2", "3"] and told["preprocessing"]["background"] == [255, 255, 255]
    assert "to 16 x 16" in told["steps"][2] and told["steps"][-1] == "divide by 255"


def test_predictions_are_told_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, files = run_of("joint"), digit_files()
    table, record = tmp_path / "out.csv", tmp_path / "out.json"
    capsys.readouterr()
    assert main(["predict", str(run), str(files), "--csv", str(table), "--json", str(record), "--top", "2"]) == 0
    told = capsys.readouterr().out
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = json.loads(record.read_text())
    right = sum(row["class"] == row["true_class"] for row in rows)
    assert len(rows) == 20 and f"accuracy {5 * right:.2f} % ({right} of 20 labelled" in told
    assert found["accuracy"] == 5 * right and found["classes"] == ["0", "1", "2", "3"]
    assert [image["class"] for image in found["images"]] == [row["class"] for row in rows]
    assert all(len(image["top"]) == 2 and image["top"][0]["probability"] >= 0.25 for image in found["images"])
    one = files / "2" / "0.png"
    assert main(["predict", str(run), str(one), "--batch_size", "1"]) == 0
    told = capsys.readouterr().out
    assert str(one) in told and "accuracy" not in told and re.search(r"^1 image in \S+ s$", told, re.MULTILINE)


def test_files_that_cannot_be_read_are_skipped_and_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("0", "1"):
        (tmp_path / "in" / name).mkdir(parents=True)
        Image.new("RGB", (16, 16), (int(name) * 200, 0, 0)).save(tmp_path / "in" / name / "5.png")
    first, second = tmp_path / "in" / "0", tmp_path / "in" / "1"
    (first / "4.png").write_bytes(b"%!PS")
    (second / "notes.txt").touch()
    (second / "gone.png").symlink_to("nowhere")
    table, record = tmp_path / "out.csv", tmp_path / "out.json"
    # Flags may stand before the words, too.
    words = ["predict", "--on_bad_image", "skip", str(run_of("sgd")), "--csv", str(table), "--json", str(record)]
    assert main([*words, str(tmp_path / "in"), str(first / "4.png")]) == 0
    told = capsys.readouterr().out
    assert "2 images in " in told and "3 files that cannot be read are skipped: " in told and " of 2 labelled" in told
    expected = {
        str(first / "4.png"): "it is EPS, not PNG, JPEG, WebP or BMP",
        str(second / "gone.png"): "a link to nowhere, which is not there",
        str(second / "notes.txt"): "no image by its ending",
    }
    found = json.loads(record.read_text())
    assert found["skipped_images"] == {"count": 3, "files": expected}
    assert [image["true_class"] for image in found["images"]] == ["0", "1"]
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["image"]: row["skipped"] for row in rows if row["skipped"]} == expected
    assert [(row["image"], row["true_class"]) for row in rows if row["class"]] == [
        (str(folder / "5.png"), folder.name) for folder in (first, second)
    ]


def test_three_lines_of_python_predict_files_pictures_and_pixels() -> None:
    model = pmi_cl.load(run_of("joint"))
    paths = sorted((digit_files() / "1").iterdir())
    by_file = model.predict(digit_files() / "1")
    opened = model.predict([Image.open(path) for path in paths])
    single = model.predict(str(paths[0]), top=1)
    assert [each.top for each in by_file] == [each.top for each in opened]
    assert by_file[0].image == str(paths[0]) and opened[0].image is None
    assert single[0].top == by_file[0].top[:1] and by_file[0].label == model.class_names.index(by_file[0].class_name)
    probabilities = model.logits(torch.zeros(1, 3, 16, 16, dtype=torch.uint8)).softmax(1)[0]
    dark = model.predict(torch.zeros(2, 3, 40, 40, dtype=torch.uint8))[1]
    assert dark.probability == pytest.approx(float(probabilities.max()), abs=1e-6)
    assert sum(value for _, value in dark.top) == pytest.approx(1, abs=1e-5)
    empty = torch.zeros(3, 0, 4, dtype=torch.uint8)
    for wrong in (torch.zeros(3, 4, 4), torch.zeros(1, 4, 4, dtype=torch.uint8), empty, 5, None):
        with pytest.raises(TypeError, match="is no image"):
            model.predict(wrong)  # type: ignore[arg-type]


def test_transparent_pictures_are_laid_on_the_background_of_the_run() -> None:
    model = pmi_cl.load(run_of("sgd"))
    clear, white = Image.new("RGBA", (16, 16), (200, 0, 0, 0)), Image.new("RGB", (16, 16), "white")
    assert model.predict(clear)[0].top == model.predict(white)[0].top


def test_another_data_set_is_matched_by_the_names_of_its_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, files = str(run_of("joint")), digit_files()
    words = ["evaluate", run, "--dataset", "seq-folder", "--data_dir", str(files), "--image_size", "16"]
    assert main([*words, "--output", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "evaluation.json").read_text())
    assert found["last"] is None and [sum(row) for row in found["confusion"]] == [1, 1, 1, 1]
    expected = [
        prediction.label for digit in range(4) for prediction in pmi_cl.load(run).predict(files / str(digit) / "4.png")
    ]
    assert [row.index(1) for row in found["confusion"]] == expected
    with (tmp_path / "confusion.csv").open(newline="") as file:
        assert list(csv.reader(file))[1:] == [[str(k), *map(str, row)] for k, row in enumerate(found["confusion"])]
    picture = Image.open(tmp_path / "confusion.png")
    assert min(picture.size) > 200
    # Three classes do not split into the two tasks of the run.
    assert main(["evaluate", run, "--n_classes", "3", "-o", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "evaluation.json").read_text())
    assert [bool(sum(row)) for row in found["confusion"]] == [True, True, True, False]
    # All ten digits: those that the run does not have are named.
    assert "seq-digits has classes that are not among those of the run: 4, 5, 6, ..." in refused(
        ["evaluate", run, "--n_classes", "10"], capsys
    )


def test_classes_of_one_name_are_not_matched() -> None:
    model = pmi_cl.load(run_of("sgd"))
    model.record = dataclasses.replace(model.record, class_names=("0", "1", "2", "0"))
    with pytest.raises(UserError, match="the run has two classes called '0': evaluate it on its own data set"):
        evaluate_other(model, "seq-folder", {"data_dir": str(digit_files())}, None, INSTALLED)


def test_a_run_of_several_data_sets_says_how_images_are_normalised() -> None:
    model = pmi_cl.load(run_of("sgd"))
    assert model.notes == []
    model.method.args.domains = ("seq-digits", "seq-folder:a")
    assert model.notes == ["each of the 2 data sets of the run was normalised by its own values, here by their mean"]
    form = dataclasses.replace(model.record.preprocessing, form=(16, "crop"))  # a CLIP's is the same for all
    model.record = dataclasses.replace(model.record, preprocessing=form)
    assert model.notes == []


def test_a_run_that_ended_early_knows_the_classes_it_has_seen(tmp_path: Path) -> None:
    code, run = quick("coda_prompt", tmp_path, "early", stop_after=1)
    assert code == 0 and pmi_cl.load(run).class_names == ("0", "1")
    assert main(["evaluate", str(run), "--output", str(tmp_path / "out")]) == 0
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert [found["last"]] == results_in(run)["class_il"]["matrix"][-1]


def test_images_of_later_tasks_alone_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, run = quick("sgd", tmp_path, "early", stop_after=1, n_classes=4)
    assert code == 0
    folder = tmp_path / "later"
    for part in ("train", "test"):
        for name in ("2", "3"):
            (folder / part / name).mkdir(parents=True)
            for number in range(2):
                Image.new("RGB", (16, 16), (number * 90, 50, 50)).save(folder / part / name / f"{number}.png")
    line = refused(["evaluate", str(run), "--dataset", "seq-folder", "--data_dir", str(folder)], capsys)
    assert "seq-folder has no class that the run has learned: it stopped after task 1" in line
    # Folders name the true class of an image, learned or not.
    assert main(["predict", str(run), str(digit_files())]) == 0
    told = capsys.readouterr().out
    assert "of 10 labelled by their folders; 10 images are of classes that the run has not learned)" in told
    assert main(["predict", str(run), str(folder / "test")]) == 0
    told = capsys.readouterr().out
    assert "accuracy" not in told and told.endswith("4 images are of classes that the run has not learned\n")


def test_a_network_is_kept_unless_it_is_not_wanted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert quick("sgd", tmp_path, "without", "--savemodel", "0", "--savecheck", "none")[0] == 0
    assert "model.safetensors" not in capsys.readouterr().out
    run = tmp_path / "sgd" / "seq-digits" / "without"
    assert not (run / "model.safetensors").exists()
    line = refused(["predict", str(run), str(digit_files())], capsys)
    assert "has no network: it is older than model.safetensors, or was run with --savemodel 0; run it again" in line
    assert quick("sgd", tmp_path, "kept", "--savecheck", "none")[0] == 0
    out = capsys.readouterr().out
    size = (tmp_path / "sgd" / "seq-digits" / "kept" / "model.safetensors").stat().st_size
    assert f"the network is in model.safetensors ({size / 1e6:.1f} MB); use it with: pmi-cl predict" in out


def test_the_message_of_a_finished_run_names_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(["--resume", str(run_of("sgd")), "--n_epochs", "9"], capsys)
    assert "the run is finished, with 1; start a new run, or use its network: pmi-cl predict " in line
    assert f"pmi-cl evaluate {run_of('sgd')}, pmi-cl export {run_of('sgd')} -o" in line


def test_importing_the_package_imports_no_torch() -> None:
    code = "import pmi_cl, sys; assert callable(pmi_cl.load); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == "False\n"


def test_a_thousand_images_pass_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    model = pmi_cl.load(run_of("sgd"))
    sizes: list[int] = []
    forward = model.method.forward
    monkeypatch.setattr(model.method, "forward", lambda x: (sizes.append(len(x)), forward(x))[1])
    found = model.predict(torch.zeros(1000, 3, 16, 16, dtype=torch.uint8))
    assert sizes == [500, 500] and len(found) == 1000
    sizes.clear()
    model.predict([digit_files() / "0", digit_files() / "1"], batch_size=4)
    assert sizes == [4, 4, 2]
