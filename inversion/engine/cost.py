"""The cost of an inversion: step-equivalents, passes, seconds and memory."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from pmi_cl.machine.state_fields import number_fields


@dataclass
class InversionReport:
    """What an inversion cost.

    Attributes:
        images: images that are finished.
        steps: optimisation steps on a whole batch, of any part of the network.
        forward_passes: forward passes through that part: one for each step, and those that decide
            which patches are dropped.
        backward_passes: backward passes through that part, one for each step.
        step_equivalents: the same work in full-model steps, counted in floating-point operations
            and averaged over the images. A full-model step is one forward and one backward pass to
            the input of the whole network.
        seconds: spent inside the engine, on its device.
        peak_memory_mib: highest memory while the inversion ran
            (:class:`pmi_cl.machine.memory.MemoryGauge`), of torch on a CUDA device, else of the
            process. None before the first stage has ended.
        losses: one entry for each stage and batch: {"batch", "stage", "losses": (steps,)}.
    """

    images: int = 0
    steps: int = 0
    forward_passes: int = 0
    backward_passes: int = 0
    step_equivalents: float = 0.0
    seconds: float = 0.0
    peak_memory_mib: float | None = None
    losses: list[dict[str, Any]] = field(default_factory=list)

    def add_step(self, step_equivalents: float, forward_passes: int = 1) -> None:
        """Count one more step, with one backward pass."""
        self.steps += 1
        self.forward_passes += forward_passes
        self.backward_passes += 1
        self.step_equivalents += step_equivalents

    @property
    def seconds_per_image(self) -> float:
        """Return seconds per image; 0 before the first."""
        return self.seconds / self.images if self.images else 0.0

    def __add__(self, other: InversionReport) -> InversionReport:
        """Return the cost of both: sums, and the higher of the memory peaks.

        The loss curves are left out.
        """
        peaks = [report.peak_memory_mib for report in (self, other) if report.peak_memory_mib is not None]
        return InversionReport(
            self.images + other.images,
            self.steps + other.steps,
            self.forward_passes + other.forward_passes,
            self.backward_passes + other.backward_passes,
            self.step_equivalents + other.step_equivalents,
            self.seconds + other.seconds,
            max(peaks, default=None),
        )

    @classmethod
    def from_summary(cls, summary: dict[str, Any]) -> InversionReport:
        """Return the report that :meth:`summary` describes."""
        number_fields({name: value for name, value in summary.items() if (name, value) != ("peak_memory_mib", None)})
        return cls(**{name: value for name, value in summary.items() if name != "seconds_per_image"})

    def summary(self) -> dict[str, Any]:
        """Return everything but the loss curves, for a run record."""
        figures = {name: value for name, value in asdict(self).items() if name != "losses"}
        return {**figures, "seconds_per_image": self.seconds_per_image}
