"""The folder that a run leaves: its arguments, its results, and where its checkpoint, pictures and events lie."""

from __future__ import annotations

import contextlib
import difflib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pmi_cl
from pmi_cl.errors import UserError, unknown_name
from pmi_cl.utils.records.atomic import write_json

SCHEMA = 1
_FEW = 3  # runs that an error names
# Synthetic images kept; steps of any kind over all batches; the same in full forward plus backward passes to the input; the passes, one
# each a step, through whatever part of the network was optimised.
_INVERSION = {"images": 0, "steps": 0, "step_equivalents": 0.0, "forward_passes": 0, "backward_passes": 0}


class RunRecord:
    """One run's folder, ``<results_path>/<model>/<dataset>/<name>``.

    Attributes:
        folder: the folder itself; TensorBoard's events go here.
        checkpoint: where its checkpoint is or will be.
        pictures: the folder of its PNGs; made by whoever saves the first.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._made: tuple[Path, ...] = ()
        self.checkpoint = folder / "checkpoint.pt"
        self.pictures = folder / "pictures"

    @classmethod
    def create(
        cls, results_path: str | Path, model: str, dataset: str, seed: int, run_name: str | None = None
    ) -> RunRecord:
        """Makes a new folder; a name that is taken gets -2, -3 ... so that nothing is ever overwritten.

        Args:
            run_name: the folder's name; ``None``: the local time and the seed.

        Raises:
            UserError: the name is not one of a folder, or the folder cannot be made.
        """
        name = time.strftime("%Y%m%d-%H%M%S") + f"-seed{seed}" if run_name is None else run_name
        if not name or name in {".", ".."} or any(mark in name for mark in "/\\\0\n"):
            raise UserError(
                f"--run_name {name!r} is not the name of a folder: use letters, digits, blanks and . - _ + = @"
            )
        parent = Path(results_path).expanduser() / model / dataset
        missing = tuple(path for path in (parent, *parent.parents) if not path.exists())
        try:
            parent.mkdir(parents=True, exist_ok=True)
            record = cls(_make_new_folder(parent, name))
        except OSError as error:
            raise UserError(
                f"cannot make a folder in {parent} ({error.strerror}): choose another --results_path"
            ) from error
        record._made = (record.folder, *missing)
        return record

    def discard(self) -> None:
        """Takes back what :meth:`create` made, as far as nothing has been put there since."""
        for folder in self._made:
            with contextlib.suppress(OSError):
                folder.rmdir()

    def write_args(
        self, values: Mapping[str, Any], sources: Mapping[str, str], weights: Mapping[str, Any] | None = None
    ) -> None:
        """Writes ``args.json``: every value with where it came from, the weights that the backbone brought, the command line, versions,
        commit and hardware."""
        args = {name: {"value": value, "source": sources[name]} for name, value in values.items()}
        told = {"args": args, "backbone_weights": weights, "command": sys.argv}
        write_json(self.folder / "args.json", {"schema": SCHEMA, **told, **surroundings()})

    def write_results(self, results: Mapping[str, Any]) -> None:
        """Writes ``results.json`` (made by :func:`build_results`) so that a reader never sees half of it."""
        write_json(self.folder / "results.json", results)

    def read_results(self) -> dict[str, Any]:
        """The run's ``results.json``."""
        results: dict[str, Any] = json.loads((self.folder / "results.json").read_text(encoding="utf-8"))
        return results


def find_run(results_path: str | Path, run: str) -> RunRecord:
    """The record that ``--resume RUN`` means: a folder below ``results_path``, at any depth, or a path to one.

    Raises:
        UserError: there is none, or several have that name.
    """
    root = Path(results_path).expanduser()
    for folder in (root / run, Path(run).expanduser()):
        if (folder / "args.json").is_file():
            return RunRecord(folder)
    folders = [file.parent for file in root.glob("*/*/*/args.json")]
    named = [folder for folder in folders if folder.name == run]
    if len(named) > 1:
        raise UserError(
            f"several runs are called '{run}': say --resume {' or '.join(str(f.relative_to(root)) for f in sorted(named))}"
        )
    if not folders:
        raise UserError(
            f"there is no run below {root}: say where it is with --results_path, or give --resume the path of its folder"
        )
    if not named:
        raise _unknown_run(run, root, folders)
    return RunRecord(named[0])


def _unknown_run(run: str, root: Path, folders: Sequence[Path]) -> UserError:
    """The nearest runs, by their place or their name alone; else the newest few, as there may be hundreds."""
    places = {str(folder.relative_to(root)): folder for folder in folders}
    named = {folder.name: place for place, folder in places.items()}
    near = difflib.get_close_matches(run, named, n=_FEW, cutoff=0.5)
    if difflib.get_close_matches(run, places, n=1, cutoff=0.5):
        return unknown_name("run", run, places)
    if near:
        return UserError(f"unknown run '{run}': did you mean {' or '.join(named[name] for name in near)}?")
    newest = sorted(places, key=lambda place: places[place].stat().st_mtime, reverse=True)[:_FEW]
    count = f"the newest of {len(places)} are" if len(places) > _FEW else "choose from"
    return UserError(f"unknown run '{run}': {count} {', '.join(newest)}")


def build_results(
    *,
    model: str,
    dataset: str,
    seed: int,
    status: str,
    precision: str,
    class_il: Mapping[str, Any],
    task_il: Mapping[str, Any],
    seconds: Mapping[str, float],
    peak_memory_mib: Mapping[str, float],
    inversion: Mapping[str, Any],
    classes_per_task: Sequence[int],
    backbone_weights: Mapping[str, Any] | None = None,
    everywhere: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Everything that ``results.json`` holds.

    Args:
        status: "running", "finished", "interrupted" or "failed".
        precision: of the inversion's network, "float32" or "bfloat16".
        class_il, task_il: made by :func:`pmi_cl.utils.records.metrics.summary`.
        seconds, peak_memory_mib: by phase, see :class:`pmi_cl.utils.records.resources.Phases`.
        inversion: made by :func:`inversion_figures`.
        classes_per_task: the number of classes of each task.
        everywhere: figures on all tasks, learned or not, by setting, made by
            :func:`pmi_cl.utils.records.metrics.square_summary`; None: they were not asked for.
        backbone_weights: where a pre-trained backbone's weights came from: name, model, tag, file, sha256.
    """
    named = {"model": model, "dataset": dataset, "seed": seed, "backbone_weights": backbone_weights}
    named |= {"status": status, "precision": precision, "classes_per_task": list(classes_per_task)}
    figures = {"class_il": class_il, "task_il": task_il} | ({"everywhere": everywhere} if everywhere else {})
    costs = {"seconds": seconds, "peak_memory_mib": peak_memory_mib, "inversion": inversion}
    return {"schema": SCHEMA, **named, **figures, **costs, **surroundings()}


def inversion_figures(bill: Mapping[str, Any]) -> dict[str, Any]:
    """What inversion cost over a whole run, of a method's bill (:meth:`pmi_cl.models.continual_model.ContinualModel.inversion_figures`).

    What the bill does not name is nothing; ``seconds_per_image`` is ``None`` without images.
    """
    figures = {name: bill.get(name, nothing) for name, nothing in _INVERSION.items()}
    return {**figures, "seconds_per_image": bill.get("seconds", 0.0) / figures["images"] if figures["images"] else None}


def surroundings() -> dict[str, Any]:
    """Versions, commit and hardware of this run, as both JSON files hold them."""
    return {"versions": _versions(), "commit": _commit(), "hardware": _hardware()}


def _make_new_folder(parent: Path, name: str) -> Path:
    attempt = 1
    while True:
        folder = parent / (name if attempt == 1 else f"{name}-{attempt}")
        try:
            folder.mkdir()  # not exist_ok: two runs started in one second must not share a folder
            return folder
        except FileExistsError:
            attempt += 1


def _versions() -> dict[str, str | None]:
    import numpy
    import torch  # says more than its package's metadata: which build it is ("+cpu")

    libraries = {"torch": str(torch.__version__), "numpy": numpy.__version__}
    try:
        clip = importlib.metadata.version("open_clip_torch")
    except importlib.metadata.PackageNotFoundError:  # only CLIP backbones need it
        clip = None
    return {"python": platform.python_version(), **libraries, "open_clip_torch": clip, "pmi_cl": pmi_cl.__version__}


def _commit() -> dict[str, Any] | None:
    """The checkout's commit and whether tracked files differ from it; ``None`` when the code is not a checkout."""
    root = Path(pmi_cl.__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    commit = _git(root, "rev-parse", "HEAD")
    return (
        None
        if commit is None
        else {"hash": commit, "dirty": bool(_git(root, "status", "--porcelain", "--untracked-files=no"))}
    )


def _git(root: Path, *arguments: str) -> str | None:
    # GIT_DIR and its like, set inside a git hook, would speak of another repository
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
