"""What a GPU refuses and what it makes the host wait for, operator by operator: for
``pretend_device.py``.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

COPIES = {"copy_", "copy", "_to_copy"}
# (values, indices, new values ...).
INDEXING = {
    "index",
    "_unsafe_index",
    "index_put",
    "index_put_",
    "_index_put_impl_",
}
TAKE_A_SCALAR = {"fill", "fill_", "masked_fill", "masked_fill_", "where"}  # of the CPU, beside what is elementwise
MASKS = (torch.bool, torch.uint8)


class WrongDevice(RuntimeError):
    """CUDA would have refused this."""


@dataclass(frozen=True)
class Operator:
    """What the rules need to know of one of torch's operators.

    Attributes:
        written: the numbers of the arguments that it changes.
        scalars: whether 0-dimensional CPU tensors may stand beside a GPU's.
        random: whether it draws random numbers.
        reads: whether its result, or the size of its result, depends on values that the
            host has to wait for.
    """

    name: str
    written: tuple[int, ...]
    scalars: bool
    random: bool
    reads: bool


@functools.cache
def operator(func: Any) -> Operator:
    """Return the operator of an overload."""
    name, tags = func._schema.name.removeprefix("aten::"), func.tags
    changes = [argument.alias_info is not None and argument.alias_info.is_write for argument in func._schema.arguments]
    return Operator(
        name,
        tuple(number for number, changed in enumerate(changes) if changed),
        torch.Tag.pointwise in tags or name in TAKE_A_SCALAR or name.startswith("_foreach"),
        torch.Tag.nondeterministic_seeded in tags,
        (name not in INDEXING and bool({torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & set(tags)))
        or name == "equal",
    )


def given(value: Any) -> Iterator[Tensor | Generator]:
    """Yield every tensor and generator among the arguments of an operator."""
    if isinstance(value, Tensor | Generator):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from given(item)
    elif isinstance(value, dict):
        yield from given(list(value.values()))


def refuse(known: Operator, args: Any, kwargs: dict[str, Any], there: bool) -> None:
    """Raise :class:`WrongDevice` where CUDA would refuse.

    ``there``: whether the result is on the GPU.
    """
    values = list(given((args, kwargs)))
    if there and any(isinstance(value, Generator) for value in values):
        raise WrongDevice(f"{known.name}: expected a 'cuda' device type for generator but found 'cpu'")
    tensors = [value for value in values if isinstance(value, Tensor)]
    plain = [tensor for tensor in tensors if not tensor.is_cuda]
    if known.name in COPIES or not plain or len(plain) == len(tensors):
        return
    if known.name in INDEXING:  # CPU indices are fetched, and a new value; not so what is indexed
        fine = args[0].is_cuda and (len(args) < 3 or args[2].is_cuda or args[2].dim() == 0)
    else:
        changed = given([args[number] for number in known.written if number < len(args)])
        fine = (
            known.scalars and all(tensor.dim() == 0 for tensor in plain) and all(tensor.is_cuda for tensor in changed)
        )  # type: ignore[union-attr]
    if not fine:
        found = ", ".join(f"{tensor.device} {tuple(tensor.shape)}" for tensor in tensors)
        raise WrongDevice(f"{known.name}: expected all tensors to be on the same device, but found {found}")


def wait_of(known: Operator, args: Any, kwargs: dict[str, Any], there: bool) -> str | None:
    """Return why the host has to wait for the GPU: "upload", "download", "read", "mask", or None.

    Raises:
        WrongDevice: a copy to the CPU is not waited for, and may be read before it is there.
    """
    if known.name in COPIES:
        return _wait_of_copy(known, args, kwargs, there)
    if not any(isinstance(value, Tensor) and value.is_cuda for value in given((args, kwargs))):
        return None
    if known.name not in INDEXING:
        return "read" if known.reads else None
    indices = [index for index in args[1] if index is not None]
    if any(index.dtype in MASKS for index in indices):
        return "mask"
    return "upload" if any(not index.is_cuda for index in indices) else None


def _wait_of_copy(known: Operator, args: Any, kwargs: dict[str, Any], there: bool) -> str | None:
    target, source = (there, args[0].is_cuda) if known.name == "_to_copy" else (args[0].is_cuda, args[1].is_cuda)
    queued = bool(kwargs.get("non_blocking") or (known.name != "_to_copy" and len(args) > 2 and args[2]))
    if target == source:
        return None
    if queued and source:
        raise WrongDevice(f"{known.name}: a copy to the CPU that is not waited for may be read before it is there")
    return None if queued else "upload" if target else "download"
