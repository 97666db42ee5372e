"""Find the device that a user means."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pmi_cl.errors import UserError

if TYPE_CHECKING:
    import torch


def pick_device(text: str) -> torch.device:
    """The device that a user means by "auto", "cpu", "cuda", "cuda:N" or "N"; "auto" is the first GPU, or the CPU without one.

    Raises:
        UserError: it is not in this machine; names those that are.
    """
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if text == "cpu" or (text == "auto" and not gpus):
        return torch.device("cpu")
    kind, _, index = ("cuda", "", "0") if text in {"auto", "cuda"} else text.rpartition(":")
    if kind in {"", "cuda"} and index.isdecimal() and int(index) < gpus:
        return torch.device("cuda", int(index))
    there = ["cpu", *(f"cuda:{index} ({torch.cuda.get_device_name(index)})" for index in range(gpus))]
    raise UserError(f"--device {text} is not in this machine: choose {' or '.join(there)}")
