"""What the presets of the methods on ResNets say, and what follows from it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pmi_cl.inversion.features.gaussians import ClassGaussians
from pmi_cl.utils.arguments.command_line import resolve
from tests.support.preset_runs import digits, method
from tests.support.recorded_calls import Enough, recorded_inversions

SHARED = {"n_epochs": 200, "batch_size": 128, "lr": 0.1, "optim_mom": 0.9, "optim_wd": 5e-4, "rkd_dim": 128}
LAMBDAS = {"lambda_hkd": 0.15, "lambda_rkd": 0.5}
PAPER = {
    **SHARED,
    **LAMBDAS,
    "lr_milestones": (0.2, 0.4, 0.6, 0.8),  # every 40 of 200 epochs
    "lr_gamma": 0.5,
    "lambda_ce": 0.75,
    "lambda_ft": 1.0,
    "first_task_part": 1.0,
    "classifier_part": 0.2,
    "classifier_lr": None,
    "unfreezing": False,
    "warmup_parts": (0.1, 0.1),
    "warmup_lrs": (0.1, 0.05),
    "unfrozen_lr": 0.01,
    "train_old_heads": True,
    "joint_batches": False,
    "buffer_images": 20000,
    "buffer_per_task": 0,
    "balanced": False,
    "cfs": True,
    "cfs_ratio": 0.5,
    "cfs_steps": 40,
    "cont_epochs": 200,
    "cont_lr": 0.01,
    "cont_optimizer": "sgd",
    "cont_keep_best": False,
    "inv_start": "pmi",
    "inv_batch": 4000,
    "inv_steps": 280,
    "inv_lr": 0.15,
    "inv_schedule": "constant",
    "inv_beta2": 0.999,
    "inv_feature": 1.0,
    "inv_alpha": 0.1,
    "inv_ce": 0.0,
    "inv_tv": 0.0,
    "inv_keep_best": False,
    "pmi_steps": 100,
    "pmi_lr": 0.8,
    "pmi_alpha": 1.6,
    "pmi_prior": "measured",
    "pmi_boost": False,
}
CODE = {
    **PAPER,
    "lr_milestones": (0.4, 0.6),
    "lr_gamma": 0.1,
    "lambda_ft": 1.5,
    "classifier_lr": 0.005,
    "unfreezing": True,
    "train_old_heads": False,
    "buffer_images": 3000,
    "buffer_per_task": 2000,
    "cont_optimizer": "adam",
    "cont_keep_best": True,
    "inv_steps": 160,
    "inv_lr": 0.4,
    "inv_schedule": "released",
    "inv_alpha": 0.25,
    "pmi_steps": 50,
    "pmi_alpha": 80.0,  # 0.25 x 16 blocks x 20
    "pmi_prior": "bn_affine",
    "pmi_boost": True,
}
PMI_UNDER_RDFCIL = {
    **PAPER,
    "lr_milestones": (0.4, 0.6),
    "lr_gamma": 0.1,
    "classifier_lr": 0.005,
    "first_task_part": 0.8,
}
RDFCIL = {
    **{
        name: value
        for name, value in PMI_UNDER_RDFCIL.items()
        if not name.startswith(("buffer", "balanced", "cfs", "cont", "inv", "pmi"))
    },
    "lambda_ce": 0.5,
    "lambda_ft": 0.0,
    "generator_steps": 5000,
    "generator_lr": 1e-3,
    "generator_batch": 128,
    "generator_temperature": 1000.0,
    "generator_smoothness": 1e-3,
    "generator_statistics": 50.0,
}
PLAIN = {name: value for name, value in SHARED.items() if name != "rkd_dim"} | {
    "lr_milestones": (0.5, 0.75),
    "lr_gamma": 0.1,
    "n_epochs": 160,
}
PRESETS: list[tuple[str, str, dict[str, Any]]] = [
    ("pmi_rdfcil", "paper", PAPER),
    ("pmi_rdfcil", "code", CODE),
    ("pmi_rdfcil", "rdfcil", PMI_UNDER_RDFCIL),
    ("rdfcil", "paper", RDFCIL),
    ("sgd", "code", PLAIN),
    ("joint", "code", PLAIN),
]
UNUSED = {"stem_steps"}  # ours, and without effect under these presets: no start "stem"


@pytest.mark.parametrize(
    ("name", "preset", "expected"), PRESETS, ids=[f"{name}-{preset}" for name, preset, _ in PRESETS]
)
def test_every_value_of_a_preset_is_its_sources(name: str, preset: str, expected: dict[str, Any]) -> None:
    """An option that no source knows, being ours, must be off."""
    argv = ["--model", name, "--dataset", "seq-cifar100", "--n_tasks", "10", "--model_config", preset]
    resolved = resolve(argv)
    found = {spec.name: getattr(resolved.args, spec.name) for spec in resolved.model.options}
    ours = {spec.name for spec in resolved.model.options if "ours" in spec.source} - UNUSED
    assert not any(found[option] for option in ours)
    assert {option: value for option, value in found.items() if option not in ours | UNUSED} == expected


def test_the_network_and_the_data_are_the_papers() -> None:
    args = resolve(["--model", "pmi_rdfcil", "--dataset", "seq-cifar100"]).args
    assert (args.model_config, args.backbone, args.n_tasks, args.class_order) == ("paper", "resnet32", 10, "rdfcil0")


@pytest.mark.parametrize(("preset", "images"), [("code", (5000, 7000, 21000)), ("paper", (20000, 20000, 20000))])
def test_the_released_buffer_grows_with_the_tasks(
    preset: str, images: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Register 2.1: 3000 + 2000 t images before new task t (from 1), of ten; the appendix has 20,000 before each."""
    inversions = recorded_inversions(monkeypatch)
    for task in (1, 2, 9):
        model = method("pmi_rdfcil", preset)
        old = task * digits().N_CLASSES_PER_TASK
        model.current_task, model.teacher = task, model.net
        model.gaussians = ClassGaussians(torch.zeros(old, 64), torch.ones(old, 64))
        with pytest.raises(Enough):
            model.begin_task(digits())
    assert (
        tuple(len(made["targets"]) for made in inversions)
        == tuple(len(made["labels"]) for made in inversions)
        == images
    )
