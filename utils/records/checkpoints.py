"""Saves and loads checkpoints: tensors and plain data only, written atomically, refused with a reason when they do not fit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pmi_cl.errors import UserError
from pmi_cl.machine.tensor_files import DamagedFile, is_whole_archive, read_tensors
from pmi_cl.utils.records.atomic import write_atomically

FORMAT = "pmi-cl checkpoint 1"
_NOT_OURS = "is not a checkpoint of pmi-cl: give the checkpoint.pt that a run with --savecheck left"


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Writes ``state`` under the present format; the old file stays until the new one is whole.

    Args:
        path: the file, in a folder that exists.
        state: dicts, lists and tuples, nested, of tensors (any device), ``int``, ``float``, ``str``, ``bool`` and ``None``; keys are
            strings or integers. What is to be compared on loading ("model", "dataset", ...) stands on the top level.

    Raises:
        TypeError: a value is of another type; says where it is.
        UserError: the disk is full or the folder not writable.
    """
    import torch

    plain = _plain({"format": FORMAT, **state}, "state")
    try:
        write_atomically(path, lambda file: torch.save(plain, file))
    except RuntimeError as error:  # torch's own writer turns the system's error into this one
        raise UserError(f"cannot write {path} (is the disk full?): make room, then continue with --resume") from error


def load(path: Path, expected: Mapping[str, Any]) -> dict[str, Any]:
    """Reads what :func:`save` wrote, bit for bit, to the CPU: who takes a tensor up moves it.

    Some tensors belong there. Adam's step counts, restored to a GPU, would make the host wait for it at every step and parameter.

    Args:
        path: the file.
        expected: values that the top level must hold, such as {"model": ..., "dataset": ..., "n_tasks": ..., "class_order": ...}.

    Raises:
        UserError: the file is missing, damaged, not a checkpoint, of another format, model, data set ..., or holds Python objects (whose
            loading could run code: they are refused, and nothing in the file is run).
    """
    check_file(path)
    try:
        state = read_tensors(path)
    except DamagedFile as error:
        raise UserError(f"{path} {_NOT_OURS}") from error
    _check_contents(path, state, expected)
    return dict(state)


def load_start(path: Path, expected: Mapping[str, Any], tasks: int) -> dict[str, Any]:
    """As :func:`load`, of a checkpoint that another run may begin with: one that was written between two tasks.

    Args:
        tasks: how many that run trains.

    Raises:
        UserError: as :func:`load` does, and where it holds no run, one within a task, or one that has trained all the tasks.
    """
    state = load(path, expected)
    try:
        position = state["training"]["position"]
        between = position["phase"] == "begin" and position["task"] > 0
    except (LookupError, TypeError) as error:
        raise UserError(f"{path} lacks the state of a run: give a checkpoint.pt that pmi-cl wrote") from error
    if not between:
        raise UserError(f"{path} was written within a task: go on with that run itself, --resume RUN")
    if position["task"] == tasks:
        earlier = "give the checkpoint of an earlier task (--savecheck task keeps them)"
        raise UserError(
            f"{path}: nothing is left to train, it holds the last of {tasks} tasks: {earlier}, or leave --loadcheck out"
        )
    return state


def check_file(path: Path) -> None:
    """Refuses what is missing, damaged or no checkpoint at all, without torch and without interpreting the contents.

    Raises:
        UserError: says which of these it is.
    """
    if not path.is_file():
        raise UserError(f"no checkpoint at {path}: give the path of a checkpoint.pt, or --resume with a run's folder")
    try:
        with path.open("rb") as file:
            start = file.read(4)
        if start[:1] == b"\x80":
            raise UserError(f"{path} was refused and nothing in it was run: it is a bare pickle, which can hold code")
        if start != b"PK\x03\x04":
            raise UserError(f"{path} {_NOT_OURS}")
        whole = is_whole_archive(path)
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}): check its permissions") from error
    if not whole:
        raise UserError(f"{path} is truncated or damaged: give an older checkpoint, or start the run again")


def _check_contents(path: Path, state: Any, expected: Mapping[str, Any]) -> None:
    written = state.get("format") if isinstance(state, dict) else None
    if not isinstance(written, str) or not written.startswith("pmi-cl checkpoint"):
        raise UserError(f"{path} {_NOT_OURS}")
    if written != FORMAT:
        raise UserError(
            f"{path} has the format '{written}', this version reads '{FORMAT}': use the version of pmi-cl that wrote it"
        )
    state = _with_task_sizes(state)
    for name, value in expected.items():
        if type(state.get(name)) is not type(value) or state[name] != value:
            both = f"{path} was written with {_named(name, state.get(name))}, this run has {_named(name, value)}"
            raise UserError(f"{both}: use the same as then, or another checkpoint")


def _with_task_sizes(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """Add the classes of each task where version 0.1 wrote the checkpoint: its tasks were equal."""
    tasks, order = state.get("n_tasks"), state.get("class_order")
    if "classes_per_task" in state or not isinstance(tasks, int) or tasks < 1 or not isinstance(order, list):
        return state
    return {**state, "classes_per_task": [len(order) // tasks] * tasks}


def _named(name: str, value: Any) -> str:
    text = str(int(value) if isinstance(value, bool) else value)
    return f"{name} {text if len(text) <= 40 else text[:37] + '...'}"


def _plain(value: Any, where: str) -> Any:
    """``value`` in types that a loader without code can restore; views are copied so as not to save all that they look into."""
    import torch

    if isinstance(value, torch.Tensor):
        tensor = value.detach().cpu()
        return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str | int):
                raise TypeError(f"{where} has the key {key!r}: a checkpoint holds strings and integers as keys")
        return {key: _plain(item, f"{where}[{key!r}]") for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [_plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
        return items if isinstance(value, list) else tuple(items)
    if value is None or isinstance(value, bool):
        return value
    for kind in (int, float, str):  # also turns numpy's and torch's subclasses, which would not load, into Python's own
        if isinstance(value, kind):
            return kind(value)
    raise TypeError(
        f"{where} is a {type(value).__name__}: a checkpoint holds tensors, numbers, strings, lists, tuples, dicts and None"
    )
