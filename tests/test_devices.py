"""Test every method on a pretended GPU.

It computes the numbers of the CPU, mixes no devices, and does not make the host wait in its steps.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from pmi_cl.cli import main
from pmi_cl.seeding import global_seed
from pmi_cl.utils.run.training import Training
from tests.support.hot_steps import watched
from tests.support.pretend_device import GPU, PretendGpu, on_cpu
from tests.support.pretend_rules import WrongDevice
from tests.support.small_runs import (
    BACKBONE,
    EXTRAS,
    METHODS,
    StoppingHost,
    differences,
    finished_in_pieces,
    start,
    words_of,
)

SHORT = {
    "train_per_class": 12,
    "n_epochs": 2,
    "classifier_part": 0.5,
    "cont_epochs": 2,
    "generator_steps": 2,
    "inv_batch": 24,
    "pmi_steps": 1,
}
EVERYTHING = {**EXTRAS, "pmi_steps": 3}
SMI = {"inversion": "smi", "inv_steps": 6}
FEWER = {"n_classes": 4, "n_tasks": 2}  # for more ways to run what has run on three tasks
CASES: list[tuple[str, dict[str, Any]]] = [
    *((method, {}) for method in METHODS),
    ("pmi_rdfcil", {**EVERYTHING, **FEWER}),
    ("pmi_rdfcil", {"inv_start": "noise", "cfs": 0, **FEWER}),
    ("pmi_rdfcil", {"inv_start": "stats", "inv_flip": 1, **FEWER}),
    ("pmi_rdfcil", {"inv_start": "lowfreq", "inv_spectrum": 0.5, "inv_colour": 1, **FEWER}),
    (
        "pmi_rdfcil",
        {
            "inv_start": "stem",
            "unfreezing": 1,
            "warmup_parts": "0.2,0.2",
            "classifier_part": 0.2,
            "n_epochs": 5,
            **FEWER,
        },
    ),
    ("pmi_moe", {"inversion": "full", "optimizer": "adamw", **FEWER}),
    ("pmi_moe", {"synthetic_last_task": 1, **FEWER}),
    ("pmi_vpt", {**SMI, "clip_augment": "crop", **FEWER}),
    ("pmi_codap", {**SMI, "synthetic_last_task": 1, **FEWER}),
]


def name_of(case: Any) -> str:
    return case if isinstance(case, str) else "-".join(f"{name}={value}" for name, value in case.items())[:50]


def plain_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *_: Any, **__: Any
) -> Tensor:
    """Multiply as ``networks/attention.py`` does on a CPU.

    torch's own attention differs in the last bits on each device.
    """
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
    return (scores if attn_mask is None else scores + attn_mask).softmax(-1) @ value


MAY_WAIT = (
    "inversion.ways.buffer",  # it sorts its rows by class when it is first drawn from
    "models.resnet.bic",  # it takes held-out images out of a batch, whose size depends on them
    "models.resnet.exemplars",  # the numbers that tell images apart are made once
)


def stops_of(training: Training) -> set[Any]:
    """Return the middle of each phase of the second task."""
    passed = training.host.passed
    task = min(1, training.tasks_to_train - 1)
    return {(place, count // 2 + 1) for place, count in passed.items() if place[0] == task and place[2] in (0, 1)}


@pytest.mark.parametrize(("method", "flags"), CASES, ids=name_of)
def test_a_run_in_pieces_ends_with_the_numbers_of_the_cpu(
    method: str, flags: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is stopped in every phase, and new objects go on from a file."""
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", plain_attention)
    plain = start(method, StoppingHost(), **{**SHORT, **flags})
    plain.run()
    stops = stops_of(plain)
    with PretendGpu() as gpu, watched(gpu, (type(plain.model), "observe")) as waits:
        there, pieces = finished_in_pieces(method, tmp_path, stops, device=GPU, **{**SHORT, **flags})
        state = on_cpu(there.state())
    assert pieces == len(stops) >= 2
    assert differences(plain.state(), state) == []
    assert there.class_il == plain.class_il
    assert {line for line in waits if not any(place in line for place in MAY_WAIT)} == set()
    assert {line.split(":")[0] for line in gpu.draws} <= {"pmi_cl.backbones.adapters", "pmi_cl.backbones.heads"}


def test_the_command_runs_and_resumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = {
        "n_classes": 4,
        "n_tasks": 2,
        "n_epochs": 1,
        "train_per_class": 16,
        "backbone": BACKBONE["sgd"],
        "stop_after": 1,
    }
    results = {}
    for device in ("cpu", "cuda"):
        with PretendGpu() if device == "cuda" else contextlib.nullcontext():
            place = ["--results_path", str(tmp_path / device)]
            assert main([*words_of("sgd", **few), *place, "--run_name", "run", "--device", device]) == 0
            assert main([*place, "--resume", "sgd/seq-digits/run", "--stop_after", "none"]) == 0
        results[device] = json.loads((tmp_path / device / "sgd" / "seq-digits" / "run" / "results.json").read_text())
    assert "cuda:0" in capsys.readouterr().out
    assert results["cuda"]["class_il"] == results["cpu"]["class_il"]


def test_a_text_becomes_pictures(tmp_path: Path) -> None:
    words = [
        "--prompt",
        "a photo of the digit 5.",
        "--pmi_steps",
        "1",
        "--steps",
        "2",
        "--images",
        "1",
        "--pictures",
        "2",
    ]
    losses = {}
    for device in ("cpu", "cuda"):
        with PretendGpu() if device == "cuda" else contextlib.nullcontext():
            rest = [
                "--precision",
                "fp32",
                "--data_images",
                "16",
                "--progress",
                "0",
                "--device",
                device,
                "--output",
                str(tmp_path / device),
            ]
            assert main(["invert", *words, *rest]) == 0
        losses[device] = [arm["losses"] for arm in json.loads((tmp_path / device / "invert.json").read_text())["arms"]]
    assert [pytest.approx(arm, rel=1e-3) for arm in losses["cpu"]] == losses["cuda"]


def test_a_seed_for_one_purpose_leaves_the_gpus_own_alone() -> None:
    with PretendGpu() as gpu:
        torch.manual_seed(7)
        with global_seed(0, "step"):
            assert gpu.random.state.item() == 7
        with global_seed(0, "step", device=GPU):
            assert gpu.random.state.item() != 7
        assert gpu.random.state.item() == 7


def test_a_mistake_of_a_method_is_found() -> None:
    with PretendGpu():
        training = start("sgd", device=GPU)
        net = training.model.net
        forgetful = mock.patch.object(
            training.model, "observe", lambda inputs, *_, **__: {"loss": (net(inputs) * torch.ones(2)).sum()}
        )
        with forgetful, pytest.raises(WrongDevice, match=r"same device, but found cuda:0 \(16, 2\), cpu \(2,\)"):
            training.run()
