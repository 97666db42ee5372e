"""Say what a checkpoint and the run that continues it must share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pmi_cl.utils.arguments.command_line import all_specs
from pmi_cl.utils.records import checkpoints

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pmi_cl.datasets.continual_dataset import ContinualDataset
    from pmi_cl.utils.arguments.command_line import Resolved
    from pmi_cl.utils.records.run_record import RunRecord


def identity(run: Resolved, dataset: type[ContinualDataset]) -> dict[str, Any]:
    """Return what a checkpoint and the run that continues it must share.

    It is what is known without reading data.
    """
    names = {"model": run.model.name, "dataset": run.dataset.name, "backbone": run.backbone.name}
    tasks = dataset.task_split(run.args)
    shown: dict[str, Any] = {"n_tasks": tasks.n_tasks, "classes_per_task": list(tasks.sizes)}
    shown["class_order"] = dataset.shown_classes(run.args)
    values = vars(run.args)
    if values.get("validation"):
        # The seed chose the held-out images. With another seed the network has trained on them.
        shown["seed"] = values["seed"]
    specs = all_specs(run.model, run.dataset, run.backbone)
    bound = [spec.name for spec in specs if spec.binds == "checkpoint" and spec.name in values]
    return {**names, **shown, **{name: values[name] for name in bound}}


def shaping_values(run: Resolved) -> dict[str, Any]:
    """Return the options that a resumed run must have as its record has them, by name."""
    specs = all_specs(run.model, run.dataset, run.backbone)
    values = vars(run.args)
    return {spec.name: values[spec.name] for spec in specs if spec.binds != "nothing" and spec.name != "resume"}


def resumable(run: Resolved, record: RunRecord, expected: Mapping[str, Any]) -> dict[str, Any]:
    """Return the checkpoint of a run that goes on.

    Args:
        run: its arguments, from its record.
        record: its folder.
        expected: as :func:`pmi_cl.utils.records.checkpoints.load` has it.

    Raises:
        UserError: the checkpoint cannot be read, is of another run, or was written under other
            values than the record has now.
    """
    state = checkpoints.load(record.checkpoint, {**expected, "seed": run.args.seed})
    checkpoints.check_values(record.checkpoint, state, shaping_values(run), record.folder / "args.json")
    return state


def tasks_to_train(run: Resolved, n_tasks: int) -> int:
    """Return how many tasks the run trains, of ``n_tasks`` that the data set has.

    Joint training makes them one.
    """
    return 1 if run.model.constants.get("JOINT", False) else min(n_tasks, run.args.stop_after or n_tasks)
