"""Save and load checkpoints: tensors and plain data only, written atomically."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pmi_cl.errors import UserError
from pmi_cl.machine.tensor_files import DamagedFile, first_not_finite, is_whole_archive, read_tensors
from pmi_cl.utils.records.atomic import write_atomically

FORMAT = "pmi-cl checkpoint 1"
# Options that shape a checkpoint and are younger than some: what those were written with.
NEWER: dict[str, Any] = {"replay": "synthetic", "classifier": "head"}
_NOT_OURS = "is not a checkpoint of pmi-cl: give the checkpoint.pt that a run with --savecheck left"


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write ``state`` in the current format. The old file stays until the new file is complete.

    Args:
        path: the file, in a folder that exists.
        state: nested dicts, lists and tuples of tensors (on any device), ``int``, ``float``,
            ``str``, ``bool`` and ``None``. Keys are strings or integers. The top level holds what
            :func:`load` compares ("model", "dataset", ...).

    Raises:
        TypeError: a value is of another type. The message says where it is.
        UserError: the disk is full, or the folder cannot be written to.
    """
    import torch

    plain = _plain({"format": FORMAT, **state}, "state")
    try:
        write_atomically(path, lambda file: torch.save(plain, file))
    except RuntimeError as error:  # torch's writer raises it instead of OSError
        raise UserError(f"cannot write {path} (is the disk full?): make room, then continue with --resume") from error


def load(path: Path, expected: Mapping[str, Any]) -> dict[str, Any]:
    """Read a checkpoint of :func:`save`, bit for bit. All tensors are on the CPU.

    The caller moves them to its device. Some tensors must stay on the CPU: with Adam's step counts
    on a GPU, every step would wait for the GPU once per parameter.

    Args:
        path: the file.
        expected: values that the top level must hold, such as {"model": ..., "dataset": ...}.

    Raises:
        UserError: the file is missing, damaged or no checkpoint, has another format or other
            values than ``expected``, holds numbers that are not finite, or Python objects. Their
            loading could run code, so that they are refused, and nothing in the file is run.
    """
    check_file(path)
    try:
        state = read_tensors(path)
    except DamagedFile as error:
        raise UserError(f"{path} {_NOT_OURS}") from error
    _check_contents(path, state, expected)
    # The iterate of an inversion may not be finite for some steps: it then begins anew by itself.
    place = first_not_finite(state.get("training"), leave_out=("inversion",))
    if place is not None:
        advice = "start the run again with a smaller --lr, or give an older checkpoint"
        raise UserError(f"{path} holds numbers that are not finite (in {place}): {advice}")
    return dict(state)


def check_values(path: Path, state: Mapping[str, Any], values: Mapping[str, Any], record: Path) -> None:
    """Compare the values that shaped a run with those of its record, which may have been edited.

    Checkpoints of version 0.1.0 do not have them, and pass.

    Args:
        path: the checkpoint, for the error message.
        state: what :func:`load` returned.
        values: the options of the run that goes on, by name.
        record: the file that they are from.

    Raises:
        UserError: names the first option that differs, with both values.
    """
    written = state.get("values", {})
    if not isinstance(written, Mapping):
        raise UserError(f"{path} {_NOT_OURS}")
    for name, value in values.items():
        if name in written and written[name] != value:
            both = f"{path} was written with --{_named(name, written[name])}, and {record} has {_named(name, value)}"
            raise UserError(f"{both}: write the old value there again, or start a new run")


def load_start(path: Path, expected: Mapping[str, Any], tasks: int) -> dict[str, Any]:
    """Load a checkpoint that a new run may begin with: one that was written between two tasks.

    Args:
        tasks: the number of tasks that the new run trains.

    Raises:
        UserError: as in :func:`load`, or the checkpoint holds no run, was written within a task, or
            has trained all tasks.
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
        advice = "give the checkpoint of an earlier task (--savecheck task keeps them), or leave --loadcheck out"
        raise UserError(f"{path}: nothing is left to train, it holds the last of {tasks} tasks: {advice}")
    return state


def check_file(path: Path) -> None:
    """Check a checkpoint file without torch and without interpreting its content.

    Raises:
        UserError: the file is missing, damaged, or no checkpoint.
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
    """Raise UserError unless the state has our format and the expected values."""
    written = state.get("format") if isinstance(state, dict) else None
    if not isinstance(written, str) or not written.startswith("pmi-cl checkpoint"):
        raise UserError(f"{path} {_NOT_OURS}")
    if written != FORMAT:
        raise UserError(
            f"{path} has the format '{written}', this version reads '{FORMAT}': use the version of pmi-cl that wrote it"
        )
    state = NEWER | _with_task_sizes(state)
    for name, value in expected.items():
        if type(state.get(name)) is not type(value) or state[name] != value:
            both = f"{path} was written with {_named(name, state.get(name))}, this run has {_named(name, value)}"
            raise UserError(f"{both}: use the same as then, or another checkpoint")


def _with_task_sizes(state: dict[str, Any]) -> dict[str, Any]:
    """Add the classes of each task where version 0.1 wrote the checkpoint: its tasks were equal."""
    tasks, order = state.get("n_tasks"), state.get("class_order")
    if "classes_per_task" in state or not isinstance(tasks, int) or tasks < 1 or not isinstance(order, list):
        return state
    return {**state, "classes_per_task": [len(order) // tasks] * tasks}


def _named(name: str, value: Any) -> str:
    """Return name and value, shortened, for an error message."""
    text = str(int(value) if isinstance(value, bool) else value)
    return f"{name} {text if len(text) <= 40 else text[:37] + '...'}"


def _plain(value: Any, where: str) -> Any:
    """Return the value in types that can be loaded without running code.

    Views are copied, because torch would save the whole tensor behind them.

    Args:
        where: the place of the value in the state, for the error message.
    """
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
    for kind in (int, float, str):  # also converts subclasses of numpy and torch, which would not load
        if isinstance(value, kind):
            return kind(value)
    allowed = "tensors, numbers, strings, lists, tuples, dicts and None"
    raise TypeError(f"{where} is a {type(value).__name__}: a checkpoint holds {allowed}")
