"""Check what was read from a checkpoint: the types and sizes of fields.

A field that does not fit would otherwise end the run much later, in a matrix product.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from types import EllipsisType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

ADAM = {"step", "exp_avg", "exp_avg_sq"}  # what Adam keeps of a parameter


def tensor_field(value: Any, *shape: int | EllipsisType | None, floating: bool = True) -> Tensor:
    """Return a tensor of a state.

    Args:
        value: the field.
        shape: each side; None: any. A last ``...`` stands for any further sides.
        floating: whether its numbers are floating-point. If not, they are int64.

    Raises:
        TypeError: it is no tensor, or one of other numbers.
        ValueError: it has another shape.
    """
    import torch

    if not isinstance(value, torch.Tensor):
        raise TypeError(f"a tensor is expected, not {type(value).__name__}")
    if not (value.is_floating_point() if floating else value.dtype == torch.int64):
        raise TypeError(f"a tensor of other numbers is expected, not of {value.dtype}")
    sides = shape[:-1] if shape[-1:] == (...,) else shape
    fits = value.ndim == len(sides) or (sides is not shape and value.ndim >= len(sides))
    if not fits or any(side not in (None, found) for side, found in zip(sides, value.shape, strict=False)):
        raise ValueError(f"a tensor of the shape {shape} is expected, not {tuple(value.shape)}")
    return value


def whole_field(value: Any, low: int = 0, high: float = math.inf) -> int:
    """Return a whole number of a state. Raise TypeError or ValueError if it is none in bounds."""
    if type(value) is not int:
        raise TypeError(f"a whole number is expected, not {type(value).__name__}")
    if not low <= value <= high:
        raise ValueError(f"{value} is not from {low} to {high}")
    return value


def number_fields(values: Any) -> dict[str, float]:
    """Return the numbers of a dict by name. Raise TypeError or ValueError for anything else."""
    if not isinstance(values, Mapping):
        raise TypeError(f"numbers by name are expected, not {type(values).__name__}")
    for name, value in values.items():
        if not isinstance(name, str) or type(value) not in (int, float) or not 0 <= value < math.inf:
            raise ValueError(f"{name}: a number that is not negative is expected, not {value!r}")
    return dict(values)


def same_form(value: Any, like: Any, place: str = "state") -> None:
    """Compare nested data with an example: keys, lengths, types, and shapes of tensors.

    Raises:
        ValueError: names the first place that differs.
    """
    import torch

    fits = type(value) is type(like) or (isinstance(value, int) and type(like) is float)
    if isinstance(like, torch.Tensor):
        fits = isinstance(value, torch.Tensor) and value.shape == like.shape
        fits = fits and value.is_floating_point() == like.is_floating_point()
    elif isinstance(like, Mapping | list | tuple):
        fits = fits and len(value) == len(like) and (not isinstance(like, Mapping) or value.keys() == like.keys())
    if not fits:
        raise ValueError(f"{place} is not as expected")
    if isinstance(like, Mapping):
        for key, item in like.items():
            same_form(value[key], item, f"{place}.{key}")
    elif isinstance(like, list | tuple):
        for index, item in enumerate(like):
            same_form(value[index], item, f"{place}.{index}")


def load_optimizer(optimizer: Optimizer, state: Any) -> None:
    """Load what ``optimizer.state_dict()`` has returned. The state itself stays as it is.

    torch compares nothing but the numbers of parameters. A sum of another shape would end a later
    step.

    Raises:
        Exception: one of Python's own, if it is not the state of such an optimiser.
    """
    import torch

    for group, own in zip(state["param_groups"], optimizer.state_dict()["param_groups"], strict=True):
        known = {name: value for name, value in own.items() if name in group and name != "lr"}
        same_form({name: group[name] for name in known}, known, "param_groups")
        number_fields({"lr": group["lr"]})
    optimizer.load_state_dict(copy.deepcopy(state))  # a copy, or steps would change the tensors of the state
    for parameter, sums in optimizer.state.items():
        if isinstance(optimizer, torch.optim.Adam | torch.optim.AdamW) and not sums.keys() >= ADAM:
            raise KeyError("the sums of Adam are missing")
        for name, value in sums.items():
            if value is not None:
                tensor_field(value, *(() if name == "step" else parameter.shape))
