"""Describe what a run ran on: versions, commit and hardware."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import pmi_cl


def surroundings() -> dict[str, Any]:
    """Return versions, commit and hardware, as the JSON files of a run hold them."""
    return {"versions": _versions(), "commit": _commit(), "hardware": _hardware()}


def _versions() -> dict[str, str | None]:
    import numpy
    import torch  # its own version names the build ("+cpu"), which the package's metadata do not

    libraries = {"torch": str(torch.__version__), "numpy": numpy.__version__}
    try:
        clip = importlib.metadata.version("open_clip_torch")
    except importlib.metadata.PackageNotFoundError:  # only CLIP backbones need it
        clip = None
    return {"python": platform.python_version(), **libraries, "open_clip_torch": clip, "pmi_cl": pmi_cl.__version__}


def _commit() -> dict[str, Any] | None:
    """Return the commit and whether tracked files differ from it. None outside a checkout."""
    root = Path(pmi_cl.__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    commit = _git(root, "rev-parse", "HEAD")
    if commit is None:
        return None
    return {"hash": commit, "dirty": bool(_git(root, "status", "--porcelain", "--untracked-files=no"))}


def _git(root: Path, *arguments: str) -> str | None:
    """Return the output of a git command, or None if it fails."""
    # Inside a git hook, variables such as GIT_DIR name another repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", str(root), *arguments]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _hardware() -> dict[str, Any]:
    import torch

    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    memory = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**20) if hasattr(os, "sysconf") else None
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": gpus,
        "memory_mib": memory,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
