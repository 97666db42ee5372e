"""Find, before anything is trained or written, what would stop a run later.

It may be its device, its disk, its data or its checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pmi_cl.errors import UserError
from pmi_cl.machine.device import pick_device
from pmi_cl.machine.disk import ROOM_MIB, check_writable
from pmi_cl.utils.records.checkpoints import load_start
from pmi_cl.utils.records.run_lock import run_lock
from pmi_cl.utils.records.run_record import RunRecord
from pmi_cl.utils.run.identity import identity, resumable, tasks_to_train
from pmi_cl.utils.run.out_of_memory import check_memory

if TYPE_CHECKING:
    from types import ModuleType, SimpleNamespace

    from pmi_cl.datasets.continual_dataset import ContinualDataset
    from pmi_cl.models.run_outline import RunOutline
    from pmi_cl.registry.catalogue import Entry
    from pmi_cl.utils.arguments.command_line import Resolved


def preflight(run: Resolved) -> dict[str, Any]:
    """Check all that a run needs from the machine, and leave nothing behind.

    What needs torch comes last, because importing it takes a second. Return the values of options
    that the backbone's weights decide, as :func:`check_backbone`.

    Raises:
        UserError: the first thing that is wrong.
    """
    args = run.args
    results = Path(args.resume or args.results_path)
    check_writable(results)
    network = run.backbone.load_module()
    decided = check_backbone(network, args)
    dataset = _load_class(run.dataset)
    _choose_image_size(run, network)
    dataset.check(args)
    if args.loadcheck:
        load_start(Path(args.loadcheck), identity(run, dataset), tasks_to_train(run, dataset.n_tasks(args)))
    if args.resume:
        _check_resumable(run, dataset)
    model = _load_class(run.model)
    outline = outline_of(args, dataset, network)
    model.check(args, outline)
    samples = model.samples_mib(args, outline)
    check_memory(args, samples, pick_device(args.device))
    # Twice: a checkpoint is written before the last one is removed.
    check_writable(results, ROOM_MIB + math.ceil(2 * samples))
    return decided


def _load_class(entry: Entry) -> Any:
    """Import a method or a data set. Raise UserError if it is derived from nothing of ours."""
    found = entry.load()
    if not hasattr(found, "check"):
        base = {"model": "ContinualModel", "dataset": "ContinualDataset"}[entry.kind]
        raise UserError(f"{entry.module}: {entry.attribute} cannot be run: derive it from pmi_cl's {base}")
    return found


def _choose_image_size(run: Resolved, network: ModuleType) -> None:
    """Let files be read in the size of the network, where nothing else says a size."""
    if getattr(run.args, "image_size", 0) is None:
        side = getattr(getattr(network, "outline", lambda args: None)(run.args), "image_size", None)
        if side is not None:
            run.args.image_size, run.sources["image_size"] = side, "backbone"


def check_backbone(network: ModuleType, args: SimpleNamespace) -> dict[str, Any]:
    """Let a backbone check its weights, if its module has a ``check``.

    Return the values of options that the weights decide, if it says any.

    Raises:
        UserError: the weights cannot be used.
    """
    check = getattr(network, "check", None)
    return (check(args) or {}) if check is not None else {}


def show_decided(decided: Mapping[str, Any], args: SimpleNamespace, sources: dict[str, str]) -> None:
    """Let ``--check`` show what the weights decide in the place of "auto"."""
    for name, value in decided.items():
        if getattr(args, name) != value:
            setattr(args, name, value)
            sources[name] = "weights"


def outline_of(args: SimpleNamespace, dataset: type[ContinualDataset], network: ModuleType) -> RunOutline:
    """Return what a method's check may know. ``network`` is the backbone's module.

    Raises:
        UserError: the values do not fit.
    """
    from pmi_cl.models.run_outline import RunOutline

    outline = getattr(network, "outline", lambda args: None)
    return RunOutline(dataset.n_classes(args), dataset.n_tasks(args), outline(args), dataset.image_size(args))


def _check_resumable(run: Resolved, dataset: type[ContinualDataset]) -> None:
    """Refuse a run that cannot be resumed.

    Raises:
        UserError: it left no checkpoint (the error says how it ended), or one that does not fit, or
            another process runs it.
    """
    record = RunRecord(Path(run.args.resume))
    if not record.checkpoint.exists():
        status = record.status()
        how = "ended before its first" if status is None else f"is '{status}'"
        raise UserError(
            f"{record.folder} has no checkpoint to go on from (the run {how}): start it again, without --resume"
        )
    with run_lock(record.folder):
        resumable(run, record, identity(run, dataset))
