"""Where an inversion starts: how its first values are drawn, and which pieces are inverted on their own before the whole network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pmi_cl.inversion.features.statistics import Moments
from pmi_cl.inversion.ways.pmi import PmiConfig, bn_affine_moments, seen_at

StartName = Literal["noise", "stats", "lowfreq", "stem", "pmi"]
STARTS: tuple[StartName, ...] = get_args(StartName)
Initialiser = Callable[
    [tuple[int, ...], torch.Generator], Tensor
]  # (shape (b, c, h, w), CPU generator) -> images on the CPU


def white_noise(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """N(0, 1) per element, on the CPU: the paper's start in normalised pixel space."""
    return torch.randn(shape, generator=generator)


def matched_noise(shape: tuple[int, ...], moments: Moments, generator: torch.Generator) -> Tensor:
    """White noise with the stored mean and variance of each channel (or position); ``shape`` (b, c, h, w) or (b, t, c), on the CPU."""
    noise = torch.randn(shape, generator=generator)
    last = len(shape) == 3 and moments.axis == "channel"
    view = (1, 1, -1) if last else (1, -1) + (1,) * (len(shape) - 2)
    return noise * moments.var.cpu().sqrt().view(view) + moments.mean.cpu().view(view)


def low_frequency_noise(shape: tuple[int, ...], generator: torch.Generator, coarser: int = 4) -> Tensor:
    """N(0, 1) on a grid ``coarser`` times smaller, upsampled bilinearly and scaled back to unit variance: natural images are smooth.

    (Prototype: cut the full-model steps to an equal loss by 1.9 to 2.3, ``docs/findings.md``.)
    """
    b, c, h, w = shape
    small = torch.randn(b, c, max(h // coarser, 1), max(w // coarser, 1), generator=generator)
    smooth = F.interpolate(small, size=(h, w), mode="bilinear", align_corners=False)
    return smooth / smooth.std().clamp_min(1e-8)


class Start:
    """Where the full-model stage starts, and what is inverted before it: here at white noise, and nothing.

    Attributes:
        name: what the start is called in ``InversionConfig.start``.
        needs_targets: whether target features must be given.
        random_target: whether the first piece is inverted from random values with the stored moments of its output, not from the targets.
        draws_images: whether :meth:`draw` gives images, where the optimised space is another; else it gives uncorrelated channels.
    """

    name: str = "noise"
    needs_targets = False
    random_target = False
    draws_images = False

    def layers(self, pieces: int) -> list[int]:
        """The pieces of so many that are inverted on their own before the whole network, in this order."""
        return []

    def steps(self, layer: int) -> int:
        """How many steps the descent of piece ``layer`` takes."""
        return 0

    def measured_priors(self, pieces: Sequence[nn.Module], measured: Sequence[Moments] | None) -> list[Moments | None]:
        """The moments of every piece's input, as far as this start looks at them, from what was ``measured``.

        Raises:
            ValueError: moments that the start needs are not there.
        """
        return [None] * len(pieces)

    def stored_priors(self, stored: list[Moments | None]) -> list[Moments | None]:
        """The same for a network that brings the moments of its pieces' inputs; None where nothing is stored.

        Raises:
            ValueError: moments that the start needs are not there.
        """
        return [None] * len(stored)

    def draw(self, shape: tuple[int, ...], moments: Moments | None, generator: torch.Generator) -> Tensor:
        """First values of ``shape`` on the CPU. ``moments`` are those of what is drawn, where they are known."""
        return white_noise(shape, generator)

    def handed_down(self, layer: int, value: Tensor) -> Tensor:
        """What the descent of piece ``layer``, which ended at ``value``, hands to the stage after it."""
        return value


@dataclass(frozen=True)
class FunctionStart(Start):
    """Starts at the images that a function of the user's draws."""

    function: Initialiser
    draws_images = True

    def draw(self, shape: tuple[int, ...], moments: Moments | None, generator: torch.Generator) -> Tensor:
        """See :class:`Start`."""
        return self.function(shape, generator)


class LowFrequencyStart(Start):
    """Starts at low-frequency noise."""

    name = "lowfreq"

    def draw(self, shape: tuple[int, ...], moments: Moments | None, generator: torch.Generator) -> Tensor:
        """See :class:`Start`."""
        return low_frequency_noise(shape, generator)


class StatisticsStart(Start):
    """Starts at noise with the stored moments of the images."""

    name = "stats"
    draws_images = True

    def measured_priors(self, pieces: Sequence[nn.Module], measured: Sequence[Moments] | None) -> list[Moments | None]:
        """See :class:`Start`."""
        if measured is None or len(measured) != len(pieces):
            needed = f"input_moments, one for each of the {len(pieces)} pieces (measure_input_moments)"
            raise ValueError(f"start '{self.name}' needs {needed}")
        return list(measured)

    def stored_priors(self, stored: list[Moments | None]) -> list[Moments | None]:
        """See :class:`Start`."""
        return self._known(stored, 0)

    def _known(self, stored: list[Moments | None], piece: int) -> list[Moments | None]:
        """``stored``; raises ValueError where the moments of the input of ``piece`` are not in it."""
        if stored[piece] is None:
            raise ValueError(f"start '{self.name}' needs a network with statistics (measure_token_moments)")
        return stored

    def draw(self, shape: tuple[int, ...], moments: Moments | None, generator: torch.Generator) -> Tensor:
        """See :class:`Start`."""
        return white_noise(shape, generator) if moments is None else matched_noise(shape, moments, generator)


@dataclass(frozen=True)
class StemStart(StatisticsStart):
    """Starts where a few steps of the lowest piece end, taken towards random values with the right moments.

    Attributes:
        descent_steps: how many.
    """

    descent_steps: int
    name = "stem"
    random_target = True

    def layers(self, pieces: int) -> list[int]:
        """See :class:`Start`."""
        return [0]

    def steps(self, layer: int) -> int:
        """See :class:`Start`."""
        return self.descent_steps

    def measured_priors(self, pieces: Sequence[nn.Module], measured: Sequence[Moments] | None) -> list[Moments | None]:
        """See :class:`Start`."""
        priors = super().measured_priors(pieces, measured)
        self._check_pieces(len(pieces))
        return priors

    def stored_priors(self, stored: list[Moments | None]) -> list[Moments | None]:
        """See :class:`Start`."""
        self._check_pieces(len(stored))
        return self._known(stored, 1)

    def _check_pieces(self, pieces: int) -> None:
        if pieces == 1:
            raise ValueError("start 'stem' needs a network of two pieces or more")


@dataclass(frozen=True)
class PmiStart(StatisticsStart):
    """Starts where the per-layer inversion of the targets, from the top to the bottom, ends.

    Attributes:
        config: its settings.
    """

    config: PmiConfig
    name = "pmi"
    needs_targets = True

    def layers(self, pieces: int) -> list[int]:
        """See :class:`Start`."""
        return list(range(pieces - 1, -1, -1))

    def steps(self, layer: int) -> int:
        """See :class:`Start`."""
        return self.config.steps_of(layer)

    def measured_priors(self, pieces: Sequence[nn.Module], measured: Sequence[Moments] | None) -> list[Moments | None]:
        """See :class:`Start`."""
        if self.config.prior == "bn_affine":
            first = measured[0] if measured else None
            return [first, *[bn_affine_moments(piece) for piece in pieces[:-1]]]
        return super().measured_priors(pieces, measured)

    def stored_priors(self, stored: list[Moments | None]) -> list[Moments | None]:
        """See :class:`Start`. Without moments, PMI starts from white noise and matches features alone."""
        return stored

    def handed_down(self, layer: int, value: Tensor) -> Tensor:
        """See :class:`Start`. The lowest piece's map is handed down as its last grid shows it."""
        return seen_at(value, self.config.grid_at(layer, self.steps(layer) - 1))


def make_start(start: StartName | Initialiser, pmi: PmiConfig, stem_steps: int) -> Start:
    """The start that ``InversionConfig.start`` names, or that a function is.

    Raises:
        ValueError: there is no start of that name.
    """
    if callable(start):
        return FunctionStart(start)
    made = {
        own.name: own for own in (Start(), StatisticsStart(), LowFrequencyStart(), StemStart(stem_steps), PmiStart(pmi))
    }
    if start not in made:
        raise ValueError(f"unknown start '{start}': choose from {', '.join(STARTS)}")
    return made[start]
