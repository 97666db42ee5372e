"""What a method may ask of the program that runs it; :class:`NullHost` answers where there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from torch import Tensor


class Host(Protocol):
    """Progress, events, pictures, phases, and places where a run may stop."""

    def progress(self, phase: str, done: int, total: int, **values: float | Tensor) -> None:
        """``done`` of ``total`` units of ``phase`` are behind us; 0-dim tensors are read only when a line is printed."""

    def scalars(self, values: Mapping[str, float | Tensor], step: int) -> None:
        """Numbers by tag, for TensorBoard."""

    def images(self, tag: str, images: Tensor, labels: Tensor) -> None:
        """Show images (n, 3, h, w) in [0, 1] by class."""

    def curves(self, tag: str, losses: Mapping[str, Sequence[float]]) -> None:
        """Show the losses of each layer against the step."""

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Charge the seconds and the memory of the body to ``name``."""

    def safe_point(self) -> None:
        """The method's state is whole here: the program may save it, or save it and stop."""


class NullHost:
    """Nobody is watching."""

    def progress(self, phase: str, done: int, total: int, **values: float | Tensor) -> None:
        """Ignored."""

    def scalars(self, values: Mapping[str, float | Tensor], step: int) -> None:
        """Ignored."""

    def images(self, tag: str, images: Tensor, labels: Tensor) -> None:
        """Ignored."""

    def curves(self, tag: str, losses: Mapping[str, Sequence[float]]) -> None:
        """Ignored."""

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Nothing is charged."""
        return nullcontext()

    def safe_point(self) -> None:
        """Never stops."""
