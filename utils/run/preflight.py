"""Finds, before anything is trained or written, what would stop a run later: its device, its disk, its data, its checkpoint."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import TYPE_CHECKING

from pmi_cl.errors import UserError
from pmi_cl.machine.device import pick_device
from pmi_cl.machine.disk import ROOM_MIB, check_writable
from pmi_cl.utils.records.checkpoints import check_file, load_start
from pmi_cl.utils.records.run_lock import run_lock
from pmi_cl.utils.records.run_record import RunRecord
from pmi_cl.utils.run.identity import identity, tasks_to_train
from pmi_cl.utils.run.out_of_memory import check_memory

if TYPE_CHECKING:
    from types import ModuleType, SimpleNamespace

    from pmi_cl.datasets.continual_dataset import ContinualDataset
    from pmi_cl.models.continual_model import RunOutline
    from pmi_cl.utils.arguments.command_line import Resolved


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
        load_start(
            Path(args.loadcheck).expanduser(), identity(run, dataset), tasks_to_train(run, dataset.n_tasks(args))
        )
    if args.resume:
        _check_resumable(RunRecord(Path(args.resume)))
    model = run.model.load()
    outline = outline_of(args, dataset, network)
    model.check(args, outline)
    samples = model.samples_mib(args, outline)
    check_memory(args, samples, pick_device(args.device))
    check_writable(
        results, ROOM_MIB + math.ceil(2 * samples)
    )  # a checkpoint is written before the one before it is removed


def check_backbone(network: ModuleType, args: SimpleNamespace) -> None:
    """Lets a backbone check its weights, where its module has a ``check``. Raises UserError."""
    check = getattr(network, "check", None)
    if check is not None:
        check(args)


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
        raise UserError(
            f"{record.folder} has no checkpoint to go on from (the run {how}): start it again, without --resume"
        )
    with run_lock(record.folder):
        check_file(record.checkpoint)
