"""The real command from beginning to end: what it leaves, what stops it, and that it goes on as if nothing had happened."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pmi_cl.backbones.resnet_cifar import resnet20
from pmi_cl.cli import main
from pmi_cl.datasets.seq_digits import SeqDigits
from pmi_cl.utils.arguments.command_line import resolve
from pmi_cl.utils.records import checkpoints
from tests.support.run_figures import same_figures
from tests.support.small_runs import BACKBONE, METHODS, words_of

ROOT = Path(__file__).resolve().parent.parent
DIGITS = {"n_classes": 4, "n_tasks": 2, "backbone": "resnet20"}
# Few images in many steps, so that a signal sent at the first step of a phase finds the run in the midst of it.
SLOW = {
    **DIGITS,
    "train_per_class": 60,
    "batch_size": 4,
    "n_epochs": 2,
    "classifier_part": 0.5,
    "inv_steps": 40,
    "pmi_steps": 4,
    "generator_steps": 30,
    "generator_batch": 4,
}
QUICK = {**DIGITS, "train_per_class": 16, "n_epochs": 1, "tensorboard": 0, "progress": 0}


def folder_of(results: Path, method: str, name: str) -> Path:
    return results / method / "seq-digits" / name


def results_in(folder: Path) -> dict[str, Any]:
    results: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return results


def headline_of(results: dict[str, Any]) -> str:
    last, average, forgetting = (results["class_il"][name] for name in ("last", "average", "forgetting"))
    figures = (
        f"A_2 = {last:.2f} % (last class-IL accuracy), average incremental {average:.2f} %, forgetting {forgetting:.2f}"
    )
    return f"{results['model']} on seq-digits, seed {results['seed']}: {figures}\n"


def launch(words: list[str], stdout: int = subprocess.PIPE) -> subprocess.Popen[bytes]:
    """``python main.py`` as a process of its own."""
    return subprocess.Popen([sys.executable, "main.py", *words], stdout=stdout, stderr=subprocess.PIPE, cwd=ROOT)


def complete(words: list[str]) -> tuple[str, str]:
    """Run the command to its end: what it said on stdout and on stderr."""
    with launch(words) as process:
        out, err = process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode(), err.decode()


def wait_for(happened: Callable[[], Any], process: subprocess.Popen[bytes]) -> None:
    """Look again and again, as long as the process lives."""
    while not happened():
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)


def wait_for_phase(process: subprocess.Popen[bytes], phase: str) -> None:
    """Read stderr until the progress bar of a phase appears, which is when its first step has been taken."""
    assert process.stderr is not None
    seen = b""
    while phase.encode() not in seen:
        block = process.stderr.read1(4096)  # type: ignore[attr-defined]
        assert block, seen.decode()
        seen += block


@contextlib.contextmanager
def clogged(process_stdout: Callable[[int], subprocess.Popen[bytes]]) -> Any:
    """A process whose second line on stdout blocks it until the body has ended: its pipe is full by then."""
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    process = process_stdout(write)
    filler = os.open(f"/proc/self/fd/{write}", os.O_WRONLY | os.O_NONBLOCK)  # the process's own end must go on blocking
    os.close(write)
    line = b""
    while not line.endswith(b"\n"):
        line += os.read(read, 1)
    for size in (4096, 64, 1):
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(filler, bytes(size))
    yield process
    os.close(filler)
    while os.read(read, 4096):
        pass
    os.close(read)


# what a finished run leaves


@pytest.fixture(scope="module")
def results_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def whole(results_path: Path) -> tuple[Path, str, str]:
    """An uninterrupted run of the whole method by the real command: its folder, and what it said."""
    out, err = complete([*words_of("pmi_rdfcil", **SLOW), "--results_path", str(results_path), "--run_name", "whole"])
    return folder_of(results_path, "pmi_rdfcil", "whole"), out, err


def digits() -> SeqDigits:
    return SeqDigits(resolve(words_of("pmi_rdfcil", **SLOW)).args, torch.device("cpu"))


def test_the_record_has_the_keys_of_its_schema(whole: tuple[Path, str, str]) -> None:
    results = results_in(whole[0])
    named = {
        "schema": 1,
        "model": "pmi_rdfcil",
        "dataset": "seq-digits",
        "seed": 0,
        "status": "finished",
        "precision": "float32",
    }
    assert {name: results[name] for name in named} == named
    measured = {
        "backbone_weights",
        "class_il",
        "task_il",
        "seconds",
        "peak_memory_mib",
        "inversion",
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
            "micro_last",
            "micro_average",
        }
    phases = {"training", "selection", "inversion", "statistics", "evaluation"}
    assert results["seconds"].keys() == results["peak_memory_mib"].keys() == phases
    assert all(value > 0 for value in (*results["seconds"].values(), *results["peak_memory_mib"].values()))
    assert results["versions"]["torch"] == torch.__version__ and results["hardware"]["threads"] == 1


def test_the_figures_are_those_of_the_network_that_was_saved(whole: tuple[Path, str, str]) -> None:
    """Accuracies computed by hand, from the checkpoint's weights and the test images alone."""
    results, dataset = results_in(whole[0]), digits()
    network = resnet20()
    network.load_state_dict(torch.load(whole[0] / "checkpoint.pt", weights_only=True)["training"]["method"]["net"])
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


def test_the_inversion_is_accounted_for(whole: tuple[Path, str, str]) -> None:
    """24 images in two batches; in each 4 steps for each of the 10 pieces and 40 through the whole network."""
    found = results_in(whole[0])["inversion"]
    steps = 2 * (10 * 4 + 40)
    assert (found["images"], found["steps"], found["forward_passes"], found["backward_passes"]) == (
        24,
        steps,
        steps,
        steps,
    )
    assert found["step_equivalents"] == pytest.approx(4 + 40) and 0 < found["seconds_per_image"] < 10


def test_the_arguments_are_kept_with_their_sources(whole: tuple[Path, str, str]) -> None:
    args = json.loads((whole[0] / "args.json").read_text(encoding="utf-8"))["args"]
    assert args["inv_steps"] == {"value": 40, "source": "flag"}
    assert args["balanced"] == {"value": True, "source": "preset smoke"}
    assert args.keys() == vars(resolve(words_of("pmi_rdfcil", **SLOW)).args).keys()


def test_the_folder_holds_the_record_and_nothing_else(whole: tuple[Path, str, str]) -> None:
    names = {path.relative_to(whole[0]).as_posix() for path in whole[0].rglob("*") if path.is_file()}
    events = {name for name in names if name.startswith("events.out.tfevents")}
    pictures = {"accuracy-class-il", "accuracy-task-il", "inversion-task-2", "synthetic-task-2"}
    assert len(events) == 1
    assert names - events == {
        "args.json",
        "results.json",
        "checkpoint.pt",
        *(f"pictures/{name}.png" for name in pictures),
    }


def test_the_pictures_can_be_looked_at(whole: tuple[Path, str, str]) -> None:
    for path in (whole[0] / "pictures").iterdir():
        assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        with Image.open(path) as picture:
            pixels = np.asarray(picture)
        assert pixels.dtype == np.uint8 and min(pixels.shape[:2]) > 100 and len(np.unique(pixels)) > 10


def test_tensorboard_shows_what_was_promised(whole: tuple[Path, str, str]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(whole[0]), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    tags, results = events.Tags(), results_in(whole[0])
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
    assert {"accuracy-class-il", "accuracy-task-il", "synthetic/task 2", "inversion/task 2"} <= set(tags["images"])
    settings = events.Tensors("settings/text_summary")[0].tensor_proto.string_val[0]
    assert b"| seed | 0 |" in settings and b"| inv_steps | 40 |" in settings and b"| tensorboard |" not in settings
    assert [event.step for event in events.Scalars("loss/loss")] == list(
        range(1, 121)
    )  # 30 steps, two epochs, two tasks
    pace = {event.step: event.value for event in events.Scalars("training/images per second")}
    assert {60, 120} <= pace.keys() and 1 < min(pace.values()) <= max(pace.values()) < 1e6  # the last step of each task
    assert [event.value for event in events.Scalars("class-il/average")][-1] == pytest.approx(
        results["class_il"]["average"]
    )
    assert [event.value for event in events.Scalars("class-il/task 1")] == pytest.approx(
        [row[0] for row in results["class_il"]["matrix"]]
    )
    assert [event.step for event in events.Images("accuracy-class-il")] == [1, 2]
    assert (
        len(events.Scalars("inversion/task 2/full model")) == 80
        and len(events.Scalars("inversion/task 2/layer 9")) == 8
    )


def test_it_says_what_it_does_in_plain_lines(whole: tuple[Path, str, str]) -> None:
    folder, out, err = whole
    results = results_in(folder)
    lines = out.splitlines()
    assert [line.partition(": ")[0] for line in lines[:-1]] == [str(folder), "after task 1 of 2", "after task 2 of 2"]
    assert f"{lines[-1]}\n" == headline_of(results)
    told = re.findall(r"^(task \d \w+): (\d+)/(\d+) in \S+ s.*, loss \S+$", err, re.MULTILINE)
    assert [phase for phase, done, total in told if done == total] == [
        "task 1 training",
        "task 2 inversion",
        "task 2 training",
    ]
    assert len(told) == err.count("\n") and "\r" not in err


# stopping and going on


def stop(words: list[str], phase: str, number: signal.Signals) -> tuple[int, str]:
    """Start the command, send it a signal in the midst of a phase; its exit code and what it said last."""
    with launch([*words, "--progress", "1"]) as process:
        wait_for_phase(process, phase)
        process.send_signal(number)
        _, err = process.communicate()
    return process.returncode, err.decode().splitlines()[-1]


def stop_between_tasks(words: list[str], folder: Path) -> int:
    """Send SIGTERM while the command is about to say how the first task went; its exit code."""
    with clogged(lambda stdout: launch(words, stdout)) as process:
        wait_for((folder / "pictures" / "accuracy-class-il.png").exists, process)
        process.send_signal(signal.SIGTERM)
    process.communicate()
    return int(process.returncode)


def kill(words: list[str], phase: str, folder: Path) -> None:
    """Start the command with a checkpoint at every step, and kill it in the midst of a phase without a warning."""
    path = folder / "checkpoint.pt"
    with launch([*words, "--progress", "1", "--checkpoint_minutes", "1e-9"]) as process:
        wait_for_phase(process, phase)
        written = {path.stat().st_mtime_ns}
        wait_for(lambda: written.add(path.stat().st_mtime_ns) or len(written) > 3, process)
        process.kill()
        process.communicate()


def place_in(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Where the checkpoint in a folder stands, and what the method has in it."""
    training = torch.load(folder / "checkpoint.pt", weights_only=True)["training"]
    return training["position"], training["method"]


@pytest.mark.skipif(not hasattr(fcntl, "F_SETPIPE_SZ"), reason="only Linux can make a pipe small enough to fill")
def test_pmi_stopped_anywhere_goes_on_bit_for_bit(whole: tuple[Path, str, str], results_path: Path) -> None:
    """SIGTERM in mid-epoch, between tasks and in mid-inversion, then SIGKILL: the figures are those of the uninterrupted run."""
    folder = folder_of(results_path, "pmi_rdfcil", "pieces")
    again = ["--results_path", str(results_path), "--resume", "pmi_rdfcil/seq-digits/pieces"]
    said = f"stopped by SIGTERM; go on with: --resume {folder}"

    first = [*words_of("pmi_rdfcil", **SLOW), "--results_path", str(results_path), "--run_name", "pieces"]
    assert stop(first, "task 1 training", signal.SIGTERM) == (143, said)
    position, _ = place_in(folder)
    assert (position["task"], position["phase"]) == (0, "train") and 0 < position["step"] < 30
    assert results_in(folder)["status"] == "interrupted" and results_in(folder)["class_il"]["matrix"] == []
    arguments = (folder / "args.json").read_bytes()

    assert stop_between_tasks(again, folder) == 143
    position, method = place_in(folder)
    assert position == {"task": 1, "phase": "begin", "epoch": 0, "step": 0} and method["inversion"] is None
    assert results_in(folder)["status"] == "interrupted" and len(results_in(folder)["class_il"]["matrix"]) == 1

    assert stop(again, "task 2 inversion", signal.SIGTERM) == (143, said)
    position, method = place_in(folder)
    assert position["phase"] == "prepare" and method["inversion"]["descent"] is not None
    assert 0 < results_in(folder)["inversion"]["steps"] < 160

    kill(again, "task 2 training", folder)
    position, _ = place_in(folder)
    assert (position["task"], position["phase"]) == (1, "train") and 0 < position["step"] < 30

    complete(again)
    assert same_figures(results_in(folder), results_in(whole[0]))
    assert results_in(folder)["seconds"].keys() == results_in(whole[0])["seconds"].keys()
    assert (folder / "args.json").read_bytes() == arguments and not list(folder.glob("*.tmp"))


def test_rdfcil_stopped_while_its_generator_trains_goes_on_bit_for_bit(results_path: Path) -> None:
    words = [*words_of("rdfcil", **SLOW), "--results_path", str(results_path)]
    assert main([*words, "--run_name", "whole", "--progress", "0"]) == 0
    folder = folder_of(results_path, "rdfcil", "pieces")
    assert stop([*words, "--run_name", "pieces"], "task 2 generator", signal.SIGTERM)[0] == 143
    position, method = place_in(folder)
    assert (position["task"], position["phase"]) == (1, "prepare") and 0 < method["generator"]["step"] < 30

    again = ["--results_path", str(results_path), "--resume", str(folder)]
    assert stop(again, "task 2 training", signal.SIGINT) == (130, f"stopped by SIGINT; go on with: --resume {folder}")
    position, _ = place_in(folder)
    assert (position["task"], position["phase"]) == (1, "train") and 0 < position["step"] < 30

    complete(again)
    assert same_figures(results_in(folder), results_in(folder_of(results_path, "rdfcil", "whole")))


# checkpoints that are kept, and started from


def quick(method: str, results: Path, name: str, *words: str, **flags: Any) -> tuple[int, Path]:
    """A short run in this process: its exit code, and its folder."""
    code = main(
        [
            *words_of(method, **{**QUICK, "backbone": BACKBONE[method], **flags}),
            "--results_path",
            str(results),
            "--run_name",
            name,
            *words,
        ]
    )
    return code, folder_of(results, method, name)


@pytest.fixture(scope="module")
def kept(results_path: Path) -> Path:
    """The folder of a short run that kept a checkpoint of each task."""
    code, folder = quick("pmi_rdfcil", results_path, "kept", "--savecheck", "task")
    assert code == 0
    return folder


def test_savecheck_keeps_what_it_says(kept: Path, tmp_path: Path) -> None:
    assert {path.name for path in kept.glob("*.pt")} == {"checkpoint.pt", "checkpoint-task1.pt", "checkpoint-task2.pt"}
    for choice, expected in (("none", set()), ("last", {"checkpoint.pt"})):
        code, folder = quick("sgd", tmp_path, choice, "--savecheck", choice)
        assert code == 0 and {path.name for path in folder.glob("*.pt*")} == expected


def test_a_run_goes_on_from_another_runs_checkpoint(kept: Path, tmp_path: Path) -> None:
    """From the first task on: its seed and its arguments being the same, the figures are too."""
    code, folder = quick("pmi_rdfcil", tmp_path, "loaded", "--loadcheck", str(kept / "checkpoint-task1.pt"))
    assert code == 0 and same_figures(results_in(folder), results_in(kept))


def test_a_run_that_was_to_stop_early_goes_on(kept: Path, tmp_path: Path) -> None:
    code, folder = quick("pmi_rdfcil", tmp_path, "early", stop_after=1)
    assert code == 0 and len(results_in(folder)["class_il"]["matrix"]) == 1
    assert main(["--results_path", str(tmp_path), "--resume", "early", "--stop_after", "none"]) == 0
    assert same_figures(results_in(folder), results_in(kept))


def test_a_finished_run_that_is_resumed_says_its_figures_again(
    kept: Path, results_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = results_in(kept)
    assert main(["--results_path", str(results_path), "--resume", "kept", "--non_verbose", "1"]) == 0
    assert capsys.readouterr().out == headline_of(before)
    assert same_figures(before, results_in(kept))
    assert main(["--results_path", str(results_path), "--resume", "kept", "--progress", "0"]) == 0
    assert "already finished" in capsys.readouterr().out


class Bomb:
    """Unpickling it creates a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


def another(changes: dict[str, Any]) -> Callable[[Path, Path], None]:
    """The checkpoint as a run with other values would have written it."""

    def write(path: Path, target: Path) -> None:
        checkpoints.save(path, {**torch.load(path, weights_only=True), **changes})

    return write


def bare_pickle(path: Path, target: Path) -> None:
    path.write_bytes(pickle.dumps({"format": checkpoints.FORMAT, "net": Bomb(target)}))


def pickle_in_a_zip(path: Path, target: Path) -> None:
    torch.save({**torch.load(path, weights_only=True), "net": Bomb(target)}, path)


DAMAGES: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "model": (another({"model": "sgd"}), "was written with model sgd, this run has model pmi_rdfcil"),
    "data set": (
        another({"dataset": "seq-cifar100"}),
        "was written with dataset seq-cifar100, this run has dataset seq-digits",
    ),
    "backbone": (
        another({"backbone": "resnet32"}),
        "was written with backbone resnet32, this run has backbone resnet20",
    ),
    "tasks": (another({"n_tasks": 4}), "was written with n_tasks 4, this run has n_tasks 2"),
    "order": (
        another({"class_order": [3, 2, 1, 0]}),
        "was written with class_order [3, 2, 1, 0], this run has class_order [0, 1, 2, 3]",
    ),
    "version": (another({"format": "pmi-cl checkpoint 99"}), "has the format 'pmi-cl checkpoint 99'"),
    "truncated": (lambda path, _: os.truncate(path, path.stat().st_size // 2), "is truncated or damaged"),
    "empty": (lambda path, _: path.write_bytes(b""), "is not a checkpoint of pmi-cl"),
    "text": (lambda path, _: path.write_text("hello"), "is not a checkpoint of pmi-cl"),
    "missing": (lambda path, _: path.unlink(), "no checkpoint at"),
    "malicious pickle": (bare_pickle, "was refused and nothing in it was run"),
    "malicious zip": (pickle_in_a_zip, "was refused and nothing in it was run"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_checkpoint_that_does_not_fit_is_refused(
    damage: str, kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, target = tmp_path / "checkpoint.pt", tmp_path / "target"
    path.write_bytes((kept / "checkpoint-task1.pt").read_bytes())
    spoil, message = DAMAGES[damage]
    spoil(path, target)
    code, _ = quick("pmi_rdfcil", tmp_path / "runs", "run", "--loadcheck", str(path))
    out, err = capsys.readouterr()
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("pmi-cl: error: ") and message in err
    assert {entry.name for entry in tmp_path.iterdir()} <= {"checkpoint.pt"}


def test_a_checkpoint_of_another_method_is_refused(
    kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for method in METHODS:
        if method != "pmi_rdfcil":
            assert quick(method, tmp_path / "runs", "run", "--loadcheck", str(kept / "checkpoint.pt"))[0] == 2
            assert f"was written with model pmi_rdfcil, this run has model {method}" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_from_within_a_task_is_for_its_own_run_alone(
    kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = torch.load(kept / "checkpoint-task1.pt", weights_only=True)
    state["training"]["position"].update(phase="train", epoch=0, step=1)
    checkpoints.save(tmp_path / "within.pt", state)
    assert quick("pmi_rdfcil", tmp_path / "runs", "run", "--loadcheck", str(tmp_path / "within.pt"))[0] == 2
    assert "was written within a task: go on with that run itself, --resume RUN" in capsys.readouterr().err
    assert [entry.name for entry in tmp_path.iterdir()] == ["within.pt"]


# other ends


def test_a_results_path_that_cannot_be_written_is_found_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("precious")
    for place in ("file", "file/below"):
        assert quick("sgd", tmp_path / place, "run")[0] == 2
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1 and "is or goes through a file: give a folder" in err
    assert (tmp_path / "file").read_text() == "precious"


def test_a_run_that_diverges_says_so_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, folder = quick("sgd", tmp_path, "run", lr=1e30, n_epochs=3)
    err = capsys.readouterr().err
    assert code == 1 and results_in(folder)["status"] == "failed"
    assert (
        err.count("\n") == 1 and err.startswith("pmi-cl: error: the loss is not finite") and "try a smaller --lr" in err
    )


@pytest.mark.parametrize("method", METHODS)
def test_a_quick_pass_says_its_last_line_alone(method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, folder = quick(method, tmp_path, "run", "--debug_mode", "1", "--non_verbose", "1", "--savecheck", "none")
    assert code == 0
    out, err = capsys.readouterr()
    results = results_in(folder)
    assert (
        err == ""
        and out.count("\n") == 1
        and out.startswith(f"{method} on seq-digits, seed 0: A_2 = {results['class_il']['last']:.2f} %")
    )
    assert [len(row) for row in results["class_il"]["matrix"]] == ([2] if method == "joint" else [1, 2])


def test_real_photographs_pass_through_every_phase(cifar100_dir: Path, tmp_path: Path) -> None:
    words = words_of("pmi_rdfcil", "seq-cifar100", **{**QUICK, "train_per_class": 8, "base_path": cifar100_dir})
    assert main([*words, "--results_path", str(tmp_path), "--run_name", "run"]) == 0
    results = results_in(tmp_path / "pmi_rdfcil" / "seq-cifar100" / "run")
    assert results["seconds"].keys() == {"training", "selection", "inversion", "statistics", "evaluation"}
    assert results["status"] == "finished" and results["inversion"]["images"] == 24
