"""Find the device that ``--device`` names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pmi_cl.errors import UserError

if TYPE_CHECKING:
    import torch


def pick_device(text: str) -> torch.device:
    """Return the device for "auto", "cpu", "cuda", "cuda:N" or "N".

    "auto" is the first GPU, or the CPU where there is no GPU.

    Raises:
        UserError: this machine has no such device. The message names the devices that it has.
    """
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if text == "cpu" or (text == "auto" and not gpus):
        return torch.device("cpu")
    kind, _, index = ("cuda", "", "0") if text in {"auto", "cuda"} else text.rpartition(":")
    if kind in {"", "cuda"} and index.isdecimal() and int(index) < gpus:
        return torch.device("cuda", int(index))
    available = ["cpu", *(f"cuda:{index} ({torch.cuda.get_device_name(index)})" for index in range(gpus))]
    raise UserError(f"--device {text} is not in this machine: choose {' or '.join(available)}")
