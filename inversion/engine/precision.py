"""Which arithmetic an inversion uses on this machine."""

from __future__ import annotations

import torch


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware: CUDA from compute capability 8, or a CPU with AVX512-bf16 or AMX.

    Of a CPU torch tells since 2.6; before, the answer is no.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, check)()) for check in checks if hasattr(torch.cpu, check))


def inversion_dtype(precision: str, device: torch.device) -> torch.dtype:
    """``fp32``, ``bf16``, or ``auto``: bfloat16 where the device multiplies it in hardware."""
    fast = precision == "bf16" or (precision == "auto" and has_fast_bfloat16(device))
    return torch.bfloat16 if fast else torch.float32
