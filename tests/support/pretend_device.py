"""A GPU that is not there: tensors that say they are on ``cuda:0`` and hold a CPU tensor.

What CUDA refuses raises an error here, and waits are counted. Mistakes of placement show without a
GPU. Nothing is known of CUDA's speed, of its rounding, of bfloat16 under autocast, or of its own
random numbers: those are drawn from the CPU's generator.
"""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
import torch._dynamo  # its import looks at torch.cuda, which must be real then
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.support.pretend_driver import RandomState, answering, driver
from tests.support.pretend_rules import operator, refuse, wait_of

GPU = torch.device("cuda", 0)
# What torch's own C++ takes the tensors for: it has all that autograd needs, and runs nothing.
_INSIDE = torch.device("meta")
_CPU = torch.device("cpu")


class OnGpu(Tensor):
    """A tensor that says it is on :data:`GPU`.

    Attributes:
        held: its values, on the CPU; views of the tensor hold views of them.
    """

    held: Tensor
    device = property(lambda self: GPU)
    is_cuda = property(lambda self: True)
    is_cpu = is_meta = property(lambda self: False)
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: Tensor) -> OnGpu:
        form = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype}
        shell: OnGpu = torch.Tensor._make_wrapper_subclass(cls, held.shape, device=_INSIDE, **form)
        shell.held = held.detach()
        return shell

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _execute(func, args, kwargs or {}, None)

    @property
    def data(self) -> Tensor:
        """Without a gradient, the same memory; what is assigned replaces the values."""
        return Tensor.data.__get__(self)  # type: ignore[attr-defined]

    @data.setter
    def data(self, value: OnGpu) -> None:
        Tensor.data.__set__(self, value)  # type: ignore[attr-defined]
        self.held = value.held

    def to(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the same object if it is on the device already, as a GPU's tensor would.

        torch itself takes it for a tensor on another device.
        """
        copy = kwargs.pop("copy", False)
        device, dtype, non_blocking, form = torch._C._nn._parse_to(*args, **kwargs)
        where = {} if device is None or device.type == GPU.type else {"device": device}
        layout = {} if form is None else {"memory_format": form}
        return super().to(dtype=dtype or self.dtype, non_blocking=non_blocking, copy=copy, **where, **layout)

    def new_tensor(self, data: Any, *, dtype: torch.dtype | None = None, **kwargs: Any) -> Tensor:
        """Make a tensor on the same device. torch's own would be where its C++ takes this tensor to
        be.
        """
        return torch.tensor(data, **{"dtype": dtype or self.dtype, "device": GPU, **kwargs})

    def tolist(self) -> Any:
        """Return the values. The host waits for them."""
        return self.cpu().tolist()

    def numpy(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse, as a GPU's tensor does."""
        raise TypeError("can't convert cuda:0 device type tensor to numpy: use .cpu() first")

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if id(self) not in memo:
            copied = OnGpu(self.held.clone())
            is_parameter = isinstance(self, torch.nn.Parameter)
            memo[id(self)] = (
                torch.nn.Parameter(copied, self.requires_grad)
                if is_parameter
                else copied.requires_grad_(self.requires_grad)
            )
        result: Tensor = memo[id(self)]
        return result

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"OnGpu({self.held!r})"


class PretendGpu(TorchDispatchMode):
    """A context in which :data:`GPU` can be used like a device.

    Attributes:
        waits: how often the host had to wait for it, by reason and by the line of the
            package that asked.
        draws: how often the device's own random numbers were drawn, by line.
        random: what they were seeded with.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        self.draws: Counter[str] = Counter()
        self.random = RandomState()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _execute(func, args, kwargs or {}, self)

    def __enter__(self) -> PretendGpu:
        self._patches = contextlib.ExitStack()
        self._patches.enter_context(mock.patch.multiple(torch.cuda, **driver(self.random)))
        if hasattr(torch, "accelerator"):  # since torch 2.6; optimisers ask it whether CUDA is recording a graph
            self._patches.enter_context(mock.patch.object(torch.accelerator, "current_accelerator", answering(None)))
        self._patches.callback(torch._C._set_only_lift_cpu_tensors, torch._C._only_lift_cpu_tensors())
        # torch.tensor(..., device=GPU) is made on the CPU, then sent, and the sending
        # seen.
        torch._C._set_only_lift_cpu_tensors(True)
        self._patches.enter_context(mock.patch.object(torch.nn.Module, "_apply", _swapping(torch.nn.Module._apply)))
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._patches.close()


def on_gpu(value: Any) -> Any:
    """Return nested plain data with its tensors on the device."""
    return _mapped(value, lambda tensor: tensor if isinstance(tensor, OnGpu) else OnGpu(tensor))


def on_cpu(value: Any) -> Any:
    """Return nested plain data with its tensors on the CPU."""
    return _mapped(value, lambda tensor: tensor.held if isinstance(tensor, OnGpu) else tensor)


def _swapping(move: Callable[..., Any]) -> Callable[..., Any]:
    """Return what moves a module's parameters such that each stays the same object, as on a real
    GPU.
    """

    def moved(*args: Any, **kwargs: Any) -> Any:
        before = torch.__future__.get_swap_module_params_on_conversion()
        torch.__future__.set_swap_module_params_on_conversion(True)
        try:
            return move(*args, **kwargs)
        finally:
            torch.__future__.set_swap_module_params_on_conversion(before)

    return moved


def _execute(func: Any, args: Any, kwargs: dict[str, Any], gpu: PretendGpu | None) -> Any:
    """Run an operator on the held values, after a look at what CUDA would say to it."""
    known, wanted = operator(func), kwargs.get("device")
    there = _any_there([args, list(kwargs.values())]) if wanted is None else torch.device(wanted).type != "cpu"
    refuse(known, args, kwargs, there)
    wait = wait_of(known, args, kwargs, there)
    if gpu is not None and wait:
        gpu.waits[f"{wait} {_line_of_ours()}"] += 1
    if gpu is not None and there and known.random:
        gpu.draws[_line_of_ours()] += 1
    inside = on_cpu(kwargs)
    result = func(*on_cpu(args), **({**inside, "device": _CPU} if wanted is not None else inside))
    if known.written and (not func._schema.returns or func._schema.returns[0].alias_info is not None):
        return _in_place(func, known.written, args, kwargs)
    return _mapped(result, OnGpu) if there else result


def _in_place(func: Any, written: tuple[int, ...], args: Any, kwargs: dict[str, Any]) -> Any:
    """Return what an operator that works in place returns: the changed arguments themselves."""
    schema = func._schema.arguments
    changed = [args[number] if number < len(args) else kwargs[schema[number].name] for number in written]
    if any(isinstance(value, OnGpu) and value.shape != value.held.shape for value in changed):
        raise NotImplementedError(f"{func} changes the form of a tensor in place")
    if not func._schema.returns:
        return None
    return changed[0] if len(changed) == 1 else tuple(changed)


def _mapped(value: Any, function: Callable[[Any], Any]) -> Any:
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, list | tuple):
        return type(value)([_mapped(item, function) for item in value])
    return {key: _mapped(item, function) for key, item in value.items()} if isinstance(value, dict) else value


def _any_there(values: Any) -> bool:
    return any(isinstance(value, OnGpu) or (isinstance(value, list | tuple) and _any_there(value)) for value in values)


def _line_of_ours() -> str:
    """Return the innermost line of the package that is being executed."""
    frame: Any = sys._getframe(1)
    while frame is not None and not frame.f_globals.get("__name__", "").startswith("pmi_cl"):
        frame = frame.f_back
    return "elsewhere" if frame is None else f"{frame.f_globals['__name__']}:{frame.f_lineno}"
