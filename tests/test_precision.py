"""Test which arithmetic an inversion uses, against what the processor says of itself.

Training uses what was typed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pmi_cl.inversion import config as config_module
from pmi_cl.inversion.config import has_fast_bfloat16, inversion_dtype
from tests.support.small_runs import METHODS, start

CPU = torch.device("cpu")
CPUINFO = Path("/proc/cpuinfo")


@pytest.mark.skipif(not CPUINFO.exists(), reason="only Linux lists what the processor can do")
def test_a_cpu_is_fast_in_bfloat16_where_it_has_the_instructions() -> None:
    told = hasattr(torch.cpu, "_is_avx512_bf16_supported")  # since torch 2.6
    flags = next((line.split() for line in CPUINFO.read_text().splitlines() if line.startswith("flags")), [])
    assert has_fast_bfloat16(CPU) == (told and bool({"avx512_bf16", "amx_tile"} & set(flags)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_gpu_is_fast_in_bfloat16_from_capability_8_on() -> None:
    device = torch.device("cuda", 0)
    assert has_fast_bfloat16(device) == (torch.cuda.get_device_capability(device) >= (8, 0))


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_what_was_asked_for_is_what_is_used(precision: str, dtype: torch.dtype) -> None:
    assert inversion_dtype(precision, CPU) == dtype


@pytest.mark.parametrize(("fast", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_follows_the_device(fast: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config_module, "has_fast_bfloat16", lambda device: fast)
    assert inversion_dtype("auto", CPU) == dtype


# Training.

TRAINED = [method for method in METHODS if method != "zsclip"]


def losses_of(method: str, precision: str) -> list[float]:
    """Return the loss of every step of two tasks, without and with replay."""
    found: list[float] = []
    training = start(method, precision=precision, stop_after=2)
    observe = training.model.observe

    def watched(*args: Any, **words: Any) -> dict[str, torch.Tensor]:
        assert torch.is_autocast_enabled("cpu") == (precision == "bf16")
        losses = observe(*args, **words)
        found.append(float(losses["loss"]))
        return losses

    training.model.observe = watched  # type: ignore[method-assign]
    training.run()
    assert {parameter.dtype for parameter in training.model.parameters()} == {torch.float32}
    return found


@pytest.mark.parametrize("method", TRAINED)
def test_training_is_in_bfloat16_where_that_is_typed_and_only_there(method: str) -> None:
    """With "auto" it is not: a command gives the same training on every processor.

    Weights and momentum stay float32.
    """
    exact, rough = losses_of(method, "auto"), losses_of(method, "bf16")
    assert rough != exact
    assert rough[:3] == pytest.approx(exact[:3], rel=0.1)  # later, two trainings drift apart by themselves
