"""Test sizes that no machine has, and a lack of memory in a run.

The first are refused before anything is done. The second is one line that says what to lower.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from pmi_cl.cli import main
from pmi_cl.errors import RunFailed
from pmi_cl.options import OptionSpec
from pmi_cl.registry import catalogue
from pmi_cl.utils.arguments.command_line import all_specs
from pmi_cl.utils.records import checkpoints
from pmi_cl.utils.run.out_of_memory import explain_out_of_memory, what_to_lower
from pmi_cl.utils.run.training import Position, Training
from tests.support.command_runs import QUICK, folder_of, results_in
from tests.support.small_runs import METHODS, words_of

ROOT = Path(__file__).resolve().parent.parent
FOLDER = catalogue.find("dataset", "seq-folder")


def whole_numbers(method: str) -> list[OptionSpec]:
    """Return the flags of a method, the run and seq-folder that take a whole number."""
    return [
        spec for spec in all_specs(catalogue.find("model", method), FOLDER) if spec.scalar == "int" and not spec.choices
    ]


@pytest.mark.parametrize("method", METHODS)
def test_every_whole_number_has_an_upper_bound(method: str) -> None:
    specs = whole_numbers(method)
    assert {"num_threads", "image_size"} <= {spec.name for spec in specs}
    unbounded = [spec.name for spec in specs if spec.high is None]
    assert unbounded == [], "say high=... in option(...): a run must not begin with a size that no machine has"


@pytest.mark.parametrize("method", METHODS)
def test_an_absurd_size_is_refused_in_one_line(method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for spec in whole_numbers(method):
        words = [
            "--model",
            method,
            "--dataset",
            "seq-folder",
            "--data_dir",
            str(tmp_path),
            "--results_path",
            str(tmp_path / "runs"),
        ]
        assert main([*words, f"--{spec.name}", str(10**11)]) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"pmi-cl: error: --{spec.name} {10**11}: it must be between ") and said.count("\n") == 1
    assert not any(tmp_path.iterdir())


# A lack of memory.

TORCH_SAYS = (
    "[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: "
    "you tried to allocate 40000000000000 bytes."
)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError(TORCH_SAYS),
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."),
        "real",
    ],
    ids=["python", "cpu", "cuda", "real"],
)
def test_every_way_to_say_it_is_understood(error: Exception | str) -> None:
    args = SimpleNamespace(batch_size=64, inv_batch=4000, buffer_images=20000, classifier_lr=None)
    with pytest.raises(RunFailed) as caught, explain_out_of_memory(args, lambda: Position(task=2, phase="train")):
        if isinstance(error, Exception):
            raise error
        torch.empty(2**50)
    assert str(caught.value) == "out of memory in task 3, in training: start again with a lower --batch_size (64)"


@pytest.mark.parametrize(
    ("phase", "flags"),
    [
        ("prepare", "--inv_batch (4000) or --buffer_images (20000)"),
        ("end", "--buffer_images (20000)"),
        ("evaluate", "--n_classes"),
    ],
)
def test_what_to_lower_depends_on_the_phase(phase: str, flags: str) -> None:
    args = SimpleNamespace(batch_size=64, inv_batch=4000, buffer_images=20000, n_classes=None)
    with pytest.raises(RunFailed) as caught, explain_out_of_memory(args, lambda: Position(phase=phase)):
        raise MemoryError
    assert str(caught.value).endswith(f"start again with a lower {flags}")


@pytest.mark.parametrize(
    ("phase", "flags"),
    [("prepare", "--inv_batch (20) or --samples_per_class (5)"), ("train", "--batch_size (32) or --replay_batch (64)")],
)
def test_a_method_on_a_clip_is_told_its_own_flags(phase: str, flags: str) -> None:
    own = {spec.name: spec.default for spec in catalogue.find("model", "pmi_moe").options}
    assert what_to_lower(SimpleNamespace(**{**own, "batch_size": 32}), phase) == flags


def test_before_the_first_task_the_images_are_to_blame() -> None:
    with pytest.raises(RunFailed) as caught, explain_out_of_memory(SimpleNamespace(image_size=512, batch_size=64)):
        raise MemoryError
    assert str(caught.value) == "out of memory: start again with a lower --image_size (512)"


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes differ"), RunFailed("the loss is not finite"), ValueError("no")]
)
def test_other_errors_pass(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, explain_out_of_memory(SimpleNamespace()):
        raise error
    assert caught.value is error


def test_a_run_without_memory_is_marked_and_keeps_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has memory for one task, and not for the second."""
    train = Training._train

    def hungry(self: Training) -> None:
        if self.position.task == 1:
            self.host.save()
            torch.empty(2**50)
        train(self)

    monkeypatch.setattr(Training, "_train", hungry)
    assert main([*words_of("sgd", **QUICK), "--results_path", str(tmp_path), "--run_name", "hungry"]) == 1
    said = capsys.readouterr().err
    assert said == "pmi-cl: error: out of memory in task 2, in training: start again with a lower --batch_size (16)\n"
    folder = folder_of(tmp_path, "sgd", "hungry")
    results = results_in(folder)
    assert results["status"] == "failed" and len(results["class_il"]["matrix"]) == 1
    assert checkpoints.load(folder / "checkpoint.pt", {"model": "sgd"})["training"]["position"]["task"] == 1


LIMITED = """
import resource, sys
import torch
from pmi_cl.cli import main
torch.zeros(1000, 1000) @ torch.zeros(1000, 1000)
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + 400 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux tells a process its size")
def test_a_real_lack_of_memory_ends_in_one_line(tmp_path: Path) -> None:
    flags = {**QUICK, "n_epochs": 1, "buffer_images": 20000, "inv_batch": 20000, "inv_start": "noise", "cfs": 0}
    words = [*words_of("pmi_rdfcil", **flags), "--results_path", str(tmp_path), "--run_name", "limited"]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *words], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 1, done.stderr
    said = done.stderr.splitlines()[-1]
    assert said.startswith(
        "pmi-cl: error: out of memory in task 2, before its first epoch: "
        "start again with a lower --inv_batch (20000) or"
    )
    assert "Traceback" not in done.stderr
    assert results_in(folder_of(tmp_path, "pmi_rdfcil", "limited"))["status"] == "failed"
