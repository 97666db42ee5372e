"""Write and read a trained network as one safetensors file, with all that is needed to use it.

The tensors are those of the method's ``network_state``. In a file that is whole those of its
``backbone_state`` come with them, under ``backbone.``. The file's metadata holds a
:class:`NetworkRecord` as JSON, under ``pmi_cl``.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pmi_cl.errors import UserError
from pmi_cl.utils.records.atomic import write_atomically

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = "pmi-cl model 1"
BACKBONE = "backbone."  # before the names of the weights that no task changed
_KEY = "pmi_cl"
_NOT_OURS = "is no network of pmi-cl: give the folder of a finished run, its model.safetensors, or what export wrote"
_DECODINGS = ("upright", "squash", "crop")


@dataclass(frozen=True)
class Preprocessing:
    """Say how an image file becomes the input of the network.

    Attributes:
        side: of the square of pixels that a file is decoded to.
        decoding: how it becomes a square, see :func:`pmi_cl.datasets.files.decoding.square`.
        mean: mean of each channel of the input, in [0, 1], which is subtracted.
        std: deviation of each channel, in [0, 1], by which it is divided.
        background: the colour, 0 to 255, that transparent images are laid on.
        white: the value that becomes 255 in a file with 16 bits for each channel.
        form: size and resize ("squash" or "crop") of a network that wants squares of another size;
            None: they stay as they are.
    """

    side: int
    decoding: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    background: tuple[int, int, int]
    white: int
    form: tuple[int, str] | None


@dataclass(frozen=True)
class NetworkRecord:
    """Describe a trained network.

    Attributes:
        args: the value of every option of its run.
        class_names: the name of each label of the run, those not learned yet, too.
        prompt_names: the same, as a prompt has them.
        texts: the different (prompt, templates) of the classes.
        text_of: for each label, its place in ``texts``.
        tasks: the number of classes of each task.
        task: the last task that was learned, from 0.
        preprocessing: what is done with an image.
        data: the fingerprint of a user's own images; empty: a checksum fixes them.
        weights: where the backbone's weights are from; None: it was trained from scratch.
    """

    args: dict[str, Any]
    class_names: tuple[str, ...]
    prompt_names: tuple[str, ...]
    texts: tuple[tuple[str, tuple[str, ...]], ...]
    text_of: tuple[int, ...]
    tasks: tuple[int, ...]
    task: int
    preprocessing: Preprocessing
    data: str = ""
    weights: dict[str, Any] | None = None

    @property
    def learned(self) -> tuple[str, ...]:
        """Return the names of the classes that the network tells apart, in the order of logits."""
        return self.class_names[: sum(self.tasks[: self.task + 1])]


def write_model(
    path: Path,
    tensors: Mapping[str, Tensor],
    record: NetworkRecord,
    backbone: Mapping[str, Tensor] | None = None,
    flag: str = "--results_path",
) -> int:
    """Write a network atomically. Return the size of the file in bytes.

    Args:
        tensors: the method's ``network_state``.
        backbone: its ``backbone_state``, for a file that is whole. None: they are left out.
        flag: decides where ``path`` lies, for the error message.

    Raises:
        UserError: the file cannot be written.
    """
    from safetensors.torch import save

    named = {**tensors, **{BACKBONE + name: value for name, value in (backbone or {}).items()}}
    # Each tensor by itself: safetensors refuses views, and the file has one layout for all devices.
    plain = {name: value.detach().cpu().contiguous().clone() for name, value in named.items()}
    about = {"format": FORMAT, "whole": backbone is not None, **dataclasses.asdict(record)}
    content = save(plain, {"format": "pt", _KEY: json.dumps(about, allow_nan=False)})
    write_atomically(path, lambda file: file.write(content), flag)
    return len(content)


def read_model(path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor] | None, NetworkRecord]:
    """Return (network_state, backbone_state or None, record) of a file of :func:`write_model`.

    Raises:
        UserError: the file is missing, damaged or none of ours, or a weight is not finite. Nothing
            in it can run code.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            about = json.loads((file.metadata() or {})[_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dictionary)
        if about["format"] != FORMAT:
            raise UserError(f"{path} has the format '{about['format']}', this version reads '{FORMAT}'")
        record = _record(about)
        whole = bool(about["whole"])
    except (SafetensorError, OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        reason = f" ({error.strerror})" if isinstance(error, OSError) and error.strerror else ""
        raise UserError(f"{path} {_NOT_OURS}{reason}") from error
    broken = [name for name, value in tensors.items() if value.is_floating_point() and not torch.isfinite(value).all()]
    if broken:
        raise UserError(f"{path}: {broken[0]} has values that are not finite: train the network again")
    backbone = {name.removeprefix(BACKBONE): value for name, value in tensors.items() if name.startswith(BACKBONE)}
    state = {name: value for name, value in tensors.items() if not name.startswith(BACKBONE)}
    return state, backbone if whole else None, record


def _record(about: Any) -> NetworkRecord:
    """Return the record in a file's metadata. Raise one of Python's errors if it is none."""
    form = about["preprocessing"]
    size = None if form["form"] is None else (_whole(form["form"][0]), str(form["form"][1]))
    mean, std = (tuple(float(value) for value in form[name]) for name in ("mean", "std"))
    red, green, blue = map(_whole, form["background"])
    record = NetworkRecord(
        args=dict(about["args"]),
        class_names=tuple(map(str, about["class_names"])),
        prompt_names=tuple(map(str, about["prompt_names"])),
        texts=tuple((str(prompt), tuple(map(str, templates))) for prompt, templates in about["texts"]),
        text_of=tuple(map(_whole, about["text_of"])),
        tasks=tuple(map(_whole, about["tasks"])),
        task=_whole(about["task"]),
        preprocessing=Preprocessing(
            _whole(form["side"]), str(form["decoding"]), mean, std, (red, green, blue), _whole(form["white"]), size
        ),
        data=str(about["data"]),
        weights=None if about["weights"] is None else dict(about["weights"]),
    )
    if not all(isinstance(record.args[kind], str) for kind in ("model", "dataset", "backbone")):
        raise TypeError("a run has a model, a data set and a backbone")
    classes = len(record.class_names)
    fits = (
        sum(record.tasks) <= classes == len(record.text_of) == len(record.prompt_names)
        and record.task < len(record.tasks)
        and min(record.tasks) > 0
        and max(record.text_of) < len(record.texts)
        and len(mean) == len(std) == 3
        and min(std) > 0
        and all(map(math.isfinite, (*mean, *std)))
        and max(red, green, blue) < 256
        and 0 < record.preprocessing.white < 65536
        and 0 < record.preprocessing.side <= 4096
        and record.preprocessing.decoding in _DECODINGS
        and (size is None or (0 < size[0] <= 4096 and size[1] in _DECODINGS[1:]))
    )
    if not fits:
        raise ValueError("its parts do not fit together")
    return record


def _whole(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise TypeError(f"{value!r} is no whole number")
    return value
