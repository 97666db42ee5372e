"""Turn a lack of memory into one line that says which flag to lower."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING

from pmi_cl.errors import RunFailed, UserError
from pmi_cl.machine.memory import memory_of_the_machine
from pmi_cl.utils.arguments.known_options import named_by_memory

if TYPE_CHECKING:
    import torch

    from pmi_cl.utils.run.training import Position

# The kinds of memory that options declare, by the phase of a task that needs them
# (:class:`pmi_cl.utils.run.training.Position`). The kind that needs the most comes first.
_MEMORY_OF_PHASE = {"prepare": ("inversion", "buffer", "samples"), "train": ("training",), "end": ("buffer",)}
_MEMORY_OF_EVERY_PHASE = ("pixels", "images")  # every phase needs the images themselves
_PHASE_TEXTS = {
    "begin": "before it",
    "prepare": "before its first epoch",
    "train": "in training",
    "end": "after its last epoch",
    "evaluate": "in evaluation",
}
_PHRASES = ("can't allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED", "bad_alloc")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that the process or the device had no memory left.

    torch says so in words.
    """
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(phrase in str(error) for phrase in _PHRASES)
    )


@contextlib.contextmanager
def explain_out_of_memory(args: SimpleNamespace, position: Callable[[], Position] | None = None) -> Iterator[None]:
    """Turn a lack of memory in the body into :class:`pmi_cl.errors.RunFailed`.

    The error says which flags to lower.

    Args:
        args: the run's arguments.
        position: returns where the run is when that happens. None: it is before its first task.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        here = None if position is None else position()
        where = "" if here is None else f" in task {here.task + 1}, {_PHASE_TEXTS[here.phase]}"
        advice = what_to_lower(args, "" if here is None else here.phase)
        raise RunFailed(f"out of memory{where}: start again with a lower {advice}") from error


def what_to_lower(args: SimpleNamespace, phase: str) -> str:
    """Return the flags that decide the memory of a phase, with their values.

    An example is "--inv_batch (4000) or --buffer_images (20000)".
    """
    values, named = vars(args), named_by_memory()

    def among(kinds: Iterable[str]) -> list[str]:
        return [name for kind in kinds for name in named[kind] if name in values]

    own = [name for name in among(_MEMORY_OF_PHASE.get(phase, ())) if values[name] is not None]
    flags = own or among(_MEMORY_OF_EVERY_PHASE)
    return " or ".join(f"--{name}" + (f" ({values[name]})" if values[name] is not None else "") for name in flags)


def check_memory(args: SimpleNamespace, needed_mib: float, device: torch.device) -> None:
    """Refuse a run whose synthetic samples alone are larger than the memory. Raise UserError."""
    there = _memory_mib(device)
    if there is not None and needed_mib > there:
        figures = f"the synthetic samples need at least {needed_mib:,.0f} MiB of memory, {device} has {there:,.0f}"
        raise UserError(f"{figures}: lower {what_to_lower(args, 'prepare')}")


def _memory_mib(device: torch.device) -> float | None:
    """Return all the memory of the device, in MiB. None: the system does not tell."""
    if device.type == "cuda":
        import torch

        return torch.cuda.mem_get_info(device)[1] / 2**20
    there = memory_of_the_machine()
    return None if there is None else there / 2**20
