"""Define what a method may ask of the program that runs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from pmi_cl.inversion.engine.engine import Inversion


class PhaseState(NamedTuple):
    """How far a phase is.

    Attributes:
        done, total: units.
        where: the place within the phase, in words.
        part: the part of the work that is done, 0 to 1, where units differ in what they cost. None:
            ``done / total``.
        values: numbers by name. Tensors (0-dimensional) are read only when something is shown.
    """

    done: int
    total: int
    where: str = ""
    part: float | None = None
    values: Mapping[str, float | Tensor] = {}

    @property
    def work(self) -> float:
        """Return the part of the work that is done, 0 to 1."""
        return self.done / max(self.total, 1) if self.part is None else self.part


class Host(Protocol):
    """Take progress, events and pictures, measure phases, and stop a run at safe points."""

    def progress(self, phase: str, state: PhaseState) -> None:
        """Report how far a phase is."""

    def scalars(self, values: Mapping[str, float | Tensor], step: int) -> None:
        """Write numbers, by tag, to TensorBoard."""

    def images(self, tag: str, images: Tensor, labels: Tensor) -> None:
        """Show images (n, 3, h, w) in [0, 1] by class."""

    def curves(self, tag: str, losses: Mapping[str, Sequence[float]]) -> None:
        """Show the losses of each layer against the step."""

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Count the seconds and the memory of the body for the phase ``name``."""

    def to_run(self, inversion: Inversion) -> Inversion:
        """Return the inversion to carry out in place of this one, with as many images.

        It is the same, unless the program only wants to know what it costs.
        """

    def safe_point(self) -> None:
        """Let the program save the method's state, and stop, if it wants to.

        The method calls this where its state is complete.
        """


class NullHost:
    """Ignore everything: the host of a method that runs without a program."""

    def progress(self, phase: str, state: PhaseState) -> None:
        """Do nothing."""

    def scalars(self, values: Mapping[str, float | Tensor], step: int) -> None:
        """Do nothing."""

    def images(self, tag: str, images: Tensor, labels: Tensor) -> None:
        """Do nothing."""

    def curves(self, tag: str, losses: Mapping[str, Sequence[float]]) -> None:
        """Do nothing."""

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Measure nothing."""
        return nullcontext()

    def to_run(self, inversion: Inversion) -> Inversion:
        """Return the same."""
        return inversion

    def safe_point(self) -> None:
        """Do nothing."""
