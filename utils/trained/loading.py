"""Load the network of a run, from its folder, a checkpoint or an exported file."""

from __future__ import annotations

import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from pmi_cl.datasets.files.find_images import ENDINGS
from pmi_cl.errors import UserError
from pmi_cl.machine.device import pick_device
from pmi_cl.machine.user_paths import user_path
from pmi_cl.registry.catalogue import INSTALLED, Catalogue
from pmi_cl.utils.arguments.command_line import Resolved, device_name, recorded_run
from pmi_cl.utils.arguments.resumed_arguments import read_arguments
from pmi_cl.utils.arguments.run_options import RunOptions
from pmi_cl.utils.records import checkpoints
from pmi_cl.utils.records.model_file import NetworkRecord, read_model
from pmi_cl.utils.records.record_shape import read_json
from pmi_cl.utils.records.run_record import RunRecord, find_run
from pmi_cl.utils.run.building import build_method
from pmi_cl.utils.run.identity import identity, shaping_values
from pmi_cl.utils.run.kept_network import describe
from pmi_cl.utils.run.preflight import check_backbone
from pmi_cl.utils.trained.learned_classes import LearnedClasses
from pmi_cl.utils.trained.trained_model import TrainedModel

if TYPE_CHECKING:
    import torch

    from pmi_cl.datasets.continual_dataset import ContinualDataset
    from pmi_cl.models.continual_model import ContinualModel

# Files of pmi-cl export that other programs read: what they are, and how they are used.
PROGRAMS = {
    ".pt2": ("program of torch.export", "use it with torch.export.load(FILE).module(), without pmi-cl"),
    ".onnx": ("ONNX program", "use it with a runtime for ONNX, without pmi-cl"),
}
# What Python and torch raise for tensors that do not fit the network.
UNFIT = (LookupError, TypeError, ValueError, AttributeError, RuntimeError)


def load(
    source: str | Path, device: str = "auto", base_path: str | None = None, catalogue: Catalogue = INSTALLED
) -> TrainedModel:
    """Return the network of a run, ready for images.

    Args:
        source: the folder of a finished run (or its name below ``runs``), a checkpoint in its run's
            folder, a run's ``model.safetensors``, or a file that ``pmi-cl export`` wrote.
        device: "auto", "cpu", "cuda" or "cuda:N".
        base_path: the folder of data sets and weights, if it is not the one that the run had.
        catalogue: where methods, data sets and backbones are looked up.

    Raises:
        UserError: there is no such run or file, the run is not finished or has kept no network, or
            the file is damaged or not one of ours. The message is one line.
    """
    place = pick_device(device_name(device))
    path = find_network(source)
    if path.suffix.lower() == ".safetensors":
        return _from_file(path, place, base_path, catalogue)
    return _from_checkpoint(path, place, base_path, catalogue)


def find_network(source: str | Path) -> Path:
    """Return the file that holds the network which ``source`` means.

    It is a ``model.safetensors``, an exported file, or a checkpoint.

    Raises:
        UserError: there is none.
    """
    path = user_path(str(source), "the run")
    if path.is_file():
        _refuse_other_file(path)
        return path
    if path.is_dir() and not (path / "args.json").is_file():
        raise UserError(f"{path} is not the folder of a run: it has no args.json")
    run = RunRecord(path) if path.is_dir() else find_run(RunOptions().results_path, str(source), "RUN")
    status = run.status()
    if status != "finished":
        how = "has no record of its end" if status is None else f"is '{status}'"
        raise UserError(
            f"{run.folder} {how}: finish it (--resume {run.folder}), or name the checkpoint of a finished task"
        )
    found = next((file for file in (run.model, run.checkpoint) if file.is_file()), None)
    if found is None:
        raise UserError(
            f"{run.folder} has no network: it is older than model.safetensors, or was run with --savemodel 0; "
            f"run it again{_command_of(run)}"
        )
    return found


def _refuse_other_file(path: Path) -> None:
    """Raise UserError if a file is an image, or was exported for programs without pmi-cl."""
    kind = path.suffix.lower()
    if kind in ENDINGS:
        raise UserError(f"{path} has the name of an image: the run comes first, pmi-cl predict RUN IMAGE")
    if kind not in PROGRAMS:
        return
    what, use = PROGRAMS[kind]
    raise UserError(
        f"{path} is an exported {what}: {use}; here give the run, its model.safetensors, "
        "or a .safetensors file that pmi-cl export wrote"
    )


def _command_of(run: RunRecord) -> str:
    """Return ": pmi-cl" with the words that the run was started with, if its record has them."""
    try:
        words = read_json(run.folder / "args.json")["command"][1:]
        return f": pmi-cl {shlex.join(map(str, words))}" if words else ""
    except (OSError, ValueError, LookupError, TypeError):
        return ""


def _from_file(path: Path, device: torch.device, base_path: str | None, catalogue: Catalogue) -> TrainedModel:
    state, backbone, record = read_model(path)
    resolved = recorded_run(record.args, path, catalogue)
    args = resolved.args
    take_base_path(args, base_path)
    if backbone is not None:
        _take_no_weights(args, record)
    check_backbone(resolved.backbone.load_module(), args)
    classes = LearnedClasses(record, args.seed, device)
    method = build_method(resolved, classes)
    classes.restore_form()
    if backbone is None:
        _check_weights(path, method, record)
    try:
        if backbone is not None:
            method.load_backbone(backbone)
        method.load_network(state, record.task)
    except UNFIT as error:
        raise UserError(f"{path} does not fit its own method ({type(error).__name__}): it is damaged") from error
    if record.weights is not None:
        method.net.weights_record = record.weights
    return TrainedModel(method, record)


def take_base_path(args: SimpleNamespace, base_path: str | None) -> None:
    """Look for weights and data in another folder than that of the run, unless it is None."""
    if base_path is not None:
        args.base_path = base_path


def _take_no_weights(args: SimpleNamespace, record: NetworkRecord) -> None:
    """Let a backbone be built without its weights, which come with the file."""
    if hasattr(args, "clip_weights"):
        quick = str((record.weights or {}).get("model")).endswith("-quickgelu")
        args.clip_weights, args.clip_gelu = "random", "quick" if quick else "exact"


def _check_weights(path: Path, method: ContinualModel, record: NetworkRecord) -> None:
    """Raise UserError if the backbone has other weights than those of the run."""
    then, now = (_identity_of(weights) for weights in (record.weights, getattr(method.net, "weights_record", None)))
    if then != now:
        raise UserError(f"{path} was trained on the weights {then}, here are {now}: give those of then")


def _identity_of(weights: dict[str, Any] | None) -> str | None:
    return None if weights is None else str(weights["sha256"] or weights["tag"])


def _from_checkpoint(path: Path, device: torch.device, base_path: str | None, catalogue: Catalogue) -> TrainedModel:
    """Load a checkpoint. The data set of its run is opened, for what only it knows."""
    method, args, state = open_checkpoint(path, device, base_path, catalogue)
    task = method.current_task
    try:
        method.load_weights(state)
    except UNFIT as error:
        raise _unfit(path, error) from error
    method.current_task = task
    return TrainedModel(method, describe(method, method.dataset, args))


def open_checkpoint(
    path: Path, device: torch.device, base_path: str | None = None, catalogue: Catalogue = INSTALLED
) -> tuple[ContinualModel, SimpleNamespace, dict[str, Any]]:
    """Return the method of a checkpoint, new and on the run's data, its arguments and its state.

    The method's ``current_task`` is the last one that it has learned.

    Raises:
        UserError: it is not a checkpoint between two tasks, in the folder of its run.
    """
    checkpoints.check_file(path)
    arguments = path.with_name("args.json")
    if not arguments.is_file():
        raise UserError(f"{path}: a checkpoint is read in the folder of its run, beside args.json")
    resolved = recorded_run(read_arguments(arguments)[0], arguments, catalogue)
    args = resolved.args
    take_base_path(args, base_path)
    dataset = open_dataset(resolved, device)
    method = build_method(resolved, dataset)
    expected = {**identity(resolved, type(dataset)), "seed": args.seed}
    if dataset.fingerprint:
        expected["data"] = dataset.fingerprint
    if (weights := getattr(method.net, "weights_record", None)) is not None:
        expected["backbone_weights"] = _identity_of(weights)
    state = checkpoints.load(path, expected)
    checkpoints.check_values(path, state, shaping_values(resolved), arguments)
    try:
        position = state["training"]["position"]
        between = position["phase"] == "begin" and position["task"] > 0
        if between and method.JOINT:
            tasks = min(dataset.N_TASKS, args.stop_after or dataset.N_TASKS)
            method.dataset = dataset.as_one_task(tasks)
        method.current_task = position["task"] - 1
        own: dict[str, Any] = state["training"]["method"]
    except UNFIT as error:
        raise _unfit(path, error) from error
    if not between:
        raise UserError(f"{path} was written within a task: finish it (--resume {path.parent})")
    return method, args, own


def _unfit(path: Path, error: Exception) -> UserError:
    return UserError(f"{path} does not fit this method ({type(error).__name__}): give another checkpoint")


def open_dataset(resolved: Resolved, device: torch.device) -> ContinualDataset:
    """Return the data set of a run, fetched if it is missing. Raise UserError if it cannot be."""
    kind = resolved.dataset.load()
    kind.check(resolved.args)
    dataset: ContinualDataset = kind(resolved.args, device)
    return dataset
