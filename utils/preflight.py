"""Finds, before anything is trained or written, what would stop a run later: its device, its disk, its data, its checkpoint."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pmi_cl.errors import UserError
from pmi_cl.utils.checkpoints import check_file, load_start
from pmi_cl.utils.out_of_memory import check_memory
from pmi_cl.utils.records import RunRecord
from pmi_cl.utils.run_lock import run_lock

if TYPE_CHECKING:
    from types import ModuleType, SimpleNamespace

    import torch

    from pmi_cl.datasets.continual_dataset import ContinualDataset
    from pmi_cl.models.continual_model import RunOutline
    from pmi_cl.utils.arguments import Resolved

ROOM_MIB = 128  # what any run may leave: two checkpoints of small networks, one a task if asked for, events and pictures
IMAGES = ("train_per_class", "validation", "split", "image_size", "test_fraction")  # options that decide which images are learned
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def preflight(run: Resolved) -> None:
    """Checks all that a run needs from the machine and leaves nothing behind; what needs torch comes last, as it takes a second.

    Raises:
        UserError: the first thing that is wrong.
    """
    args = run.args
    results = Path(args.resume or args.results_path).expanduser()
    check_writable(results)
    network = run.backbone.load_module()
    check_backbone(network, args)
    dataset = run.dataset.load()
    dataset.check(args)
    if args.loadcheck:
        load_start(Path(args.loadcheck).expanduser(), identity(run, dataset), tasks_to_train(run, dataset.n_tasks(args)))
    if args.resume:
        _check_resumable(RunRecord(Path(args.resume)))
    model = run.model.load()
    model.check(args, outline_of(args, dataset, network))
    samples = model.samples_mib(args, dataset)
    check_memory(args, samples, pick_device(args.device))
    check_writable(results, ROOM_MIB + math.ceil(2 * samples))  # a checkpoint is written before the one before it is removed


def check_backbone(network: ModuleType, args: SimpleNamespace) -> None:
    """Lets a backbone check its weights, where its module has a ``check``. Raises UserError."""
    check = getattr(network, "check", None)
    if check is not None:
        check(args)


def identity(run: Resolved, dataset: type[ContinualDataset]) -> dict[str, Any]:
    """What a checkpoint and the run that goes on with it must share, as far as no data is needed to know it."""
    names = {"model": run.model.name, "dataset": run.dataset.name, "backbone": run.backbone.name}
    shown = {"n_tasks": dataset.n_tasks(run.args), "class_order": dataset.shown_classes(run.args)}
    values = vars(run.args)
    if values.get("validation"):  # the seed chose the images that are held out: under another they would have been trained on
        shown["seed"] = values["seed"]
    return {**names, **shown, **{name: values[name] for name in (*IMAGES, *run.model.load().MEMORY) if name in values}}


def tasks_to_train(run: Resolved, n_tasks: int) -> int:
    """How many tasks the run trains, of ``n_tasks`` that the data set has: joint training makes them one."""
    return 1 if run.model.constants.get("JOINT", False) else min(n_tasks, run.args.stop_after or n_tasks)


def outline_of(args: SimpleNamespace, dataset: type[ContinualDataset], network: ModuleType) -> RunOutline:
    """What a method's check may know; ``network`` is the backbone's module. Raises UserError."""
    from pmi_cl.models.continual_model import RunOutline

    outline = getattr(network, "outline", lambda args: None)
    return RunOutline(dataset.n_classes(args), dataset.n_tasks(args), outline(args), dataset.image_size(args))


def _check_resumable(record: RunRecord) -> None:
    """Raises UserError where a run left no checkpoint, with how it ended, or a damaged one, or where another process runs it."""
    if not record.checkpoint.exists():
        how = "ended before its first"
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):  # no results, or damaged ones
            how = f"is '{record.read_results()['status']}'"
        raise UserError(f"{record.folder} has no checkpoint to go on from (the run {how}): start it again, without --resume")
    with run_lock(record.folder):
        check_file(record.checkpoint)


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


def check_writable(folder: Path, room_mib: int = ROOM_MIB, flag: str = "--results_path") -> None:
    """Makes the folder and a file of ``room_mib`` MiB in it, and removes both again; ``flag`` is what named the folder.

    Raises:
        UserError: the folder is a file, may not be written to, or its disk is full.
    """
    try:
        with _temporary_folder(folder), tempfile.TemporaryFile(dir=folder) as file:
            _reserve(file.fileno(), folder, room_mib * 2**20)
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(f"{flag} {folder} is or goes through a file: give a folder") from error
    except OSError as error:
        hint = f"make room ({room_mib} MiB), or choose another folder" if error.errno in _FULL else "choose a folder that you may write to"
        raise UserError(f"cannot write to {flag} {folder} ({error.strerror}): {hint}") from error


@contextlib.contextmanager
def _temporary_folder(folder: Path) -> Iterator[None]:
    """The folder exists in the body; of it and its parents, those that were missing are gone afterwards."""
    missing = []
    for path in (folder, *folder.parents):
        if path.exists():
            break
        missing.append(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        for path in missing:
            with contextlib.suppress(OSError):  # not made, or in use by another run that started meanwhile
                path.rmdir()


def _reserve(file: int, folder: Path, size: int) -> None:
    """Asks the system for the blocks of a file: a quota shows here, free space alone would not tell."""
    if shutil.disk_usage(folder).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file, 0, size)
        except OSError as error:
            if error.errno not in {errno.EOPNOTSUPP, errno.EINVAL}:  # a file system that cannot reserve is no mistake of the user's
                raise
