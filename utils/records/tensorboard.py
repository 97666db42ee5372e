"""Writes TensorBoard events into a run's folder without making the device wait."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from pmi_cl.machine.terminal import tell

if TYPE_CHECKING:
    import numpy as np
    import torch

HEADLINES = ("class-il/last", "class-il/average", "task-il/last")  # scalars that HPARAMS shows beside the settings
_FINE_STEPS = 500  # a curve keeps at least this resolution: all of its points up to here, then about one in step / 500


class EventWriter:
    """Writes the summaries of ``torch.utils.tensorboard``, imported when the first event is written; switched off it does nothing.

    Scalars are kept as they come, tensors on the device included, and turned into numbers many at a time. Where the disk takes no more
    events, that is told once and the rest is left out: a run does not end over them. (torch's own writer has a thread for the disk, which
    prints a traceback then and fails whoever writes next.)
    """

    def __init__(
        self, folder: Path, enabled: bool = True, buffered: int = 100, settings: Mapping[str, Any] | None = None
    ) -> None:
        """
        Args:
            folder: where the events file goes.
            buffered: calls of :meth:`scalars` that are gathered before the device is waited for, once.
            settings: what tells this run from others, by option: a table under TEXT, and a row under HPARAMS.
        """
        self._folder = folder
        self._enabled = enabled
        self._buffered = buffered
        self._settings = dict(settings or {})
        self._rows: list[tuple[int, float, dict[str, Any]]] = []
        self._last: dict[str, int] = {}
        self._file: IO[bytes] | None = None

    def scalars(self, values: Mapping[str, float | torch.Tensor], step: int) -> None:
        """Keeps numbers or 0-dimensional tensors, by tag, at ``step``; long curves are thinned to a resolution of 0.2 % of their length."""
        kept = (
            {tag: _detached(value) for tag, value in values.items() if self._is_due(tag, step)} if self._enabled else {}
        )
        if kept:
            self._rows.append((step, time.time(), kept))
        if len(self._rows) >= self._buffered:
            self.flush()

    def image(self, tag: str, pixels: np.ndarray, step: int) -> None:
        """Writes a picture: (h, w, 3) uint8."""
        if self._enabled:
            from torch.utils.tensorboard import summary

            with self._given_up_where_it_fails():
                self._write(summary.image(tag, pixels, dataformats="HWC"), step)

    def flush(self) -> None:
        """Writes what is buffered and hands it to the disk."""
        rows, self._rows = self._rows, []
        if not rows or not self._enabled:
            return
        from torch.utils.tensorboard import summary

        numbers = iter(_numbers([value for _, _, values in rows for value in values.values()]))
        with self._given_up_where_it_fails():
            for step, moment, values in rows:
                for tag in values:
                    self._write(summary.scalar(tag, next(numbers)), step, moment)
            self._open().flush()

    def close(self) -> None:
        """Writes the rest and closes the file."""
        self.flush()
        with self._given_up_where_it_fails():
            if self._file is not None:
                self._file.close()
        self._file = None

    def _is_due(self, tag: str, step: int) -> bool:
        last = self._last.get(tag)
        due = last is None or step < last or step - last >= max(1, step // _FINE_STEPS)
        if due:
            self._last[tag] = step
        return due

    @contextlib.contextmanager
    def _given_up_where_it_fails(self) -> Iterator[None]:
        """A full disk, or a folder that may no longer be written to, ends the events, not the run: what that needs itself, it refuses."""
        try:
            yield
        except OSError as error:
            self._enabled = False
            tell(
                f"cannot write TensorBoard's events into {self._folder} ({error.strerror or error}): the run goes on without them"
            )
            if self._file is not None:
                with contextlib.suppress(OSError):  # it tries once more to write what is buffered
                    self._file.close()

    def _write(self, summary: Any, step: int, moment: float | None = None) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._record(Event(wall_time=moment or time.time(), step=step, summary=summary))

    def _record(self, event: Any) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        RecordWriter(self._open()).write(event.SerializeToString())

    def _open(self) -> IO[bytes]:
        """The events file; made, with its version and the settings, when the first event comes, as TensorBoard takes a second to import."""
        if self._file is None:
            from tensorboard.compat.proto.event_pb2 import Event

            self._folder.mkdir(parents=True, exist_ok=True)
            moment = (
                time.time_ns()
            )  # a run that goes on has a file for each sitting; TensorBoard reads them in the order of their names
            name = f"events.out.tfevents.{moment // 10**9:010d}.{socket.gethostname()}.{os.getpid()}.{moment % 10**9}"
            self._file = (self._folder / name).open("xb")
            self._record(Event(wall_time=moment / 1e9, file_version="brain.Event:2"))
            if self._settings:
                self._tell_settings()
        return self._file

    def _tell_settings(self) -> None:
        from torch.utils.tensorboard import summary

        rows = "\n".join(f"| {name} | {value} |" for name, value in self._settings.items())
        self._write(summary.text("settings", f"| option | value |\n|---|---|\n{rows}"), 0)
        plain = {
            name: value if isinstance(value, bool | int | float | str) else str(value)
            for name, value in self._settings.items()
        }
        for told in summary.hparams(plain, dict.fromkeys(HEADLINES, 0.0))[:2]:  # the third says how the session ended
            self._write(told, 0)


def _detached(value: float | torch.Tensor) -> float | torch.Tensor:
    """A loop may overwrite its tensor in place before it is read, so the value as it is now is kept."""
    import torch

    return value.detach().clone() if isinstance(value, torch.Tensor) else value


def _numbers(values: list[float | torch.Tensor]) -> list[float]:
    """All values as numbers, with one transfer for all that are on a device."""
    import torch

    away = [value.float().reshape(()) for value in values if isinstance(value, torch.Tensor) and not value.is_cpu]
    fetched = iter(torch.stack(away).tolist() if away else [])
    return [next(fetched) if isinstance(value, torch.Tensor) and not value.is_cpu else float(value) for value in values]
