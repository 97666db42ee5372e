"""Writes TensorBoard events into a run's folder without making the device wait."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import torch

HEADLINES = ("class-il/last", "class-il/average", "task-il/last")  # scalars that HPARAMS shows beside the settings
_FINE_STEPS = 500  # a curve keeps at least this resolution: all of its points up to here, then about one in step / 500


class EventWriter:
    """A thin layer over ``torch.utils.tensorboard``, imported when the first event is written; switched off it does nothing.

    Scalars are kept as they come, tensors on the device included, and turned into numbers many at a time.
    """

    def __init__(self, folder: Path, enabled: bool = True, buffered: int = 100, settings: Mapping[str, Any] | None = None) -> None:
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
        self._writer: Any = None

    def scalars(self, values: Mapping[str, float | torch.Tensor], step: int) -> None:
        """Keeps numbers or 0-dimensional tensors, by tag, at ``step``; long curves are thinned to a resolution of 0.2 % of their length."""
        kept = {tag: _detached(value) for tag, value in values.items() if self._is_due(tag, step)} if self._enabled else {}
        if kept:
            self._rows.append((step, time.time(), kept))
        if len(self._rows) >= self._buffered:
            self.flush()

    def image(self, tag: str, pixels: np.ndarray, step: int) -> None:
        """Writes a picture: (h, w, 3) uint8."""
        if self._enabled:
            self._open().add_image(tag, pixels, step, dataformats="HWC")

    def flush(self) -> None:
        """Writes what is buffered and hands it to the disk."""
        if not self._rows:
            return
        rows, self._rows = self._rows, []
        numbers = iter(_numbers([value for _, _, values in rows for value in values.values()]))
        for step, moment, values in rows:
            for tag in values:
                self._open().add_scalar(tag, next(numbers), step, walltime=moment)
        self._writer.flush()

    def close(self) -> None:
        """Writes the rest and closes the file."""
        self.flush()
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _is_due(self, tag: str, step: int) -> bool:
        last = self._last.get(tag)
        due = last is None or step < last or step - last >= max(1, step // _FINE_STEPS)
        if due:
            self._last[tag] = step
        return due

    def _open(self) -> Any:
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._folder))
            if self._settings:
                self._tell_settings()
        return self._writer

    def _tell_settings(self) -> None:
        """Written with the first event, as TensorBoard takes a second to import."""
        from torch.utils.tensorboard.summary import hparams

        rows = "\n".join(f"| {name} | {value} |" for name, value in self._settings.items())
        self._writer.add_text("settings", f"| option | value |\n|---|---|\n{rows}", 0)
        plain = {name: value if isinstance(value, bool | int | float | str) else str(value) for name, value in self._settings.items()}
        for summary in hparams(plain, dict.fromkeys(HEADLINES, 0.0))[:2]:  # the third says how the session ended
            self._writer.file_writer.add_summary(summary)


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
