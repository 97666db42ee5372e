"""Write TensorBoard events into a run's folder without making the device wait."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from pmi_cl.machine.plain_text import printable
from pmi_cl.machine.terminal import tell

if TYPE_CHECKING:
    import numpy as np
    import torch

HEADLINES = ("class-il/last", "class-il/average", "task-il/last")  # scalars in the tab HPARAMS
PICTURES = "visuals"  # the group of all pictures: by its name the last one, after the groups of curves
_FINE_STEPS = 500  # a curve keeps every point up to this step, then about one in step / 500


class EventWriter:
    """Write scalars and pictures with the summaries of ``torch.utils.tensorboard``.

    The library is imported when the first event is written. Scalars are buffered, also tensors on
    the device, and turned into numbers many at a time. If the disk takes no more events, one line
    says so, and the run goes on without them. (torch's own writer uses a thread for the disk. It
    prints a traceback in that case, and the next write fails.)
    """

    def __init__(
        self, folder: Path, enabled: bool = True, buffered: int = 100, settings: Mapping[str, Any] | None = None
    ) -> None:
        """
        Args:
            folder: the folder of the events file.
            enabled: False writes nothing.
            buffered: calls of :meth:`scalars` between two transfers from the device.
            settings: options that distinguish this run, for a table under TEXT and a row under
                HPARAMS.
        """
        self._folder = folder
        self._enabled = enabled
        self._buffered = buffered
        self._settings = dict(settings or {})
        self._rows: list[tuple[int, float, dict[str, Any]]] = []
        self._last: dict[str, int] = {}
        self._file: IO[bytes] | None = None

    def scalars(self, values: Mapping[str, float | torch.Tensor], step: int) -> None:
        """Buffer numbers or 0-dimensional tensors, by tag, at ``step``.

        Long curves are thinned to a resolution of 0.2 % of their length.
        """
        if self._enabled:
            kept = {tag: _detached(value) for tag, value in values.items() if self._is_due(tag, step)}
            if kept:
                self._rows.append((step, time.time(), kept))
        if len(self._rows) >= self._buffered:
            self.flush()

    def image(self, tag: str, pixels: np.ndarray, step: int) -> None:
        """Write a picture: uint8 (h, w, 3). All pictures are in one group, below the curves."""
        if self._enabled:
            from torch.utils.tensorboard import summary

            with self._stopping_on_errors():
                self._write(summary.image(f"{PICTURES}/{printable(tag)}", pixels, dataformats="HWC"), step)

    def flush(self) -> None:
        """Write the buffered scalars to the disk."""
        rows, self._rows = self._rows, []
        if not rows or not self._enabled:
            return
        from torch.utils.tensorboard import summary

        numbers = iter(_numbers([value for _, _, values in rows for value in values.values()]))
        with self._stopping_on_errors():
            for step, moment, values in rows:
                for tag in values:
                    self._write(summary.scalar(printable(tag), next(numbers)), step, moment)
            self._open().flush()

    def close(self) -> None:
        """Write the buffered scalars and close the file."""
        self.flush()
        with self._stopping_on_errors():
            if self._file is not None:
                self._file.close()
        self._file = None

    def _is_due(self, tag: str, step: int) -> bool:
        """Return whether the curve ``tag`` keeps this step."""
        last = self._last.get(tag)
        due = last is None or step < last or step - last >= max(1, step // _FINE_STEPS)
        if due:
            self._last[tag] = step
        return due

    @contextlib.contextmanager
    def _stopping_on_errors(self) -> Iterator[None]:
        """Stop writing events after an OSError in the body, without stopping the run.

        The run itself reports a disk that it cannot write to.
        """
        try:
            yield
        except OSError as error:
            self._enabled = False
            fault = f"cannot write TensorBoard's events into {self._folder} ({error.strerror or error})"
            tell(f"{fault}: the run goes on without them")
            if self._file is not None:
                with contextlib.suppress(OSError):  # close() tries again to write what is buffered
                    self._file.close()

    def _write(self, summary: Any, step: int, moment: float | None = None) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._record(Event(wall_time=moment or time.time(), step=step, summary=summary))

    def _record(self, event: Any) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        RecordWriter(self._open()).write(event.SerializeToString())

    def _open(self) -> IO[bytes]:
        """Return the events file. The first call creates it: TensorBoard's import takes 1 s."""
        if self._file is None:
            from tensorboard.compat.proto.event_pb2 import Event

            self._folder.mkdir(parents=True, exist_ok=True)
            # A resumed run has several files, which TensorBoard reads in the order of their names.
            moment = time.time_ns()
            name = f"events.out.tfevents.{moment // 10**9:010d}.{socket.gethostname()}.{os.getpid()}.{moment % 10**9}"
            self._file = (self._folder / name).open("xb")
            self._record(Event(wall_time=moment / 1e9, file_version="brain.Event:2"))
            if self._settings:
                self._write_settings()
        return self._file

    def _write_settings(self) -> None:
        """Write the settings as a table and as hyper-parameters."""
        from torch.utils.tensorboard import summary

        rows = "\n".join(f"| {name} | {printable(str(value))} |" for name, value in self._settings.items())
        self._write(summary.text("settings", f"| option | value |\n|---|---|\n{rows}"), 0)
        plain = {
            name: value if isinstance(value, bool | int | float) else printable(str(value))
            for name, value in self._settings.items()
        }
        for each in summary.hparams(plain, dict.fromkeys(HEADLINES, 0.0))[:2]:  # the third is the session's end
            self._write(each, 0)


def _detached(value: float | torch.Tensor) -> float | torch.Tensor:
    """Return a copy of the value: a loop may overwrite its tensor before it is written."""
    import torch

    return value.detach().clone() if isinstance(value, torch.Tensor) else value


def _numbers(values: list[float | torch.Tensor]) -> list[float]:
    """Return all values as numbers, with one transfer for all that are on a device."""
    import torch

    on_device = [value.float().reshape(()) for value in values if isinstance(value, torch.Tensor) and not value.is_cpu]
    fetched = iter(torch.stack(on_device).tolist() if on_device else [])
    return [next(fetched) if isinstance(value, torch.Tensor) and not value.is_cpu else float(value) for value in values]
