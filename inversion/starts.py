"""Where an inversion starts.

A start says how first values are drawn, and which pieces are inverted on their own before the whole
network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from pmi_cl.inversion.features.statistics import Moments
from pmi_cl.inversion.networks.protocol import InvertibleNetwork
from pmi_cl.inversion.ways.pmi import PmiConfig, seen_at

StartName = Literal["noise", "stats", "lowfreq", "stem", "pmi"]
STARTS: tuple[StartName, ...] = get_args(StartName)
# (shape (b, c, h, w), generator on the CPU) -> images on the CPU
Initialiser = Callable[[tuple[int, ...], torch.Generator], Tensor]


def white_noise(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw N(0, 1) on the CPU, the start of the paper in normalised pixel space."""
    return torch.randn(shape, generator=generator)


def matched_noise(shape: tuple[int, ...], moments: Moments, generator: torch.Generator) -> Tensor:
    """Draw white noise with the stored mean and variance of each channel or position, on the CPU.

    Args:
        shape: (b, c, h, w) or (b, t, c).
        moments: of the channels, or of the positions of tokens.
        generator: on the CPU.
    """
    noise = torch.randn(shape, generator=generator)
    last = len(shape) == 3 and moments.axis == "channel"
    view = (1, 1, -1) if last else (1, -1) + (1,) * (len(shape) - 2)
    return noise * moments.var.cpu().sqrt().view(view) + moments.mean.cpu().view(view)


def low_frequency_noise(shape: tuple[int, ...], generator: torch.Generator, coarser: int = 4) -> Tensor:
    """Draw noise that is smooth, as natural images are, on the CPU.

    It is N(0, 1) on a grid ``coarser`` times smaller, upsampled bilinearly and scaled back to unit
    variance. (In a prototype it cut the full-model steps to an equal loss by 1.9 to 2.3,
    ``docs/findings.md``.)
    """
    b, c, h, w = shape
    small = torch.randn(b, c, max(h // coarser, 1), max(w // coarser, 1), generator=generator)
    smooth = F.interpolate(small, size=(h, w), mode="bilinear", align_corners=False)
    return smooth / smooth.std().clamp_min(1e-8) if smooth.numel() > 1 else smooth


class Start:
    """Where the full-model stage starts, and what is inverted before it.

    This one starts at white noise and inverts nothing before.

    Attributes:
        name: the name of the start in ``InversionConfig.start``.
        needs_targets: whether target features must be given.
        random_target: whether the first piece is inverted from random values with the stored
            moments of its output, not from the targets.
        draws_images: whether :meth:`draw` gives images; else it gives uncorrelated channels.
    """

    name: str = "noise"
    needs_targets = False
    random_target = False
    draws_images = False

    def layers(self, pieces: int) -> list[int]:
        """Return which of so many pieces are inverted before the whole network, in this order."""
        return []

    def steps(self, layer: int) -> int:
        """Return how many steps the descent of piece ``layer`` takes."""
        return 0

    def priors(self, network: InvertibleNetwork) -> list[Moments | None]:
        """Return the moments of the input of every piece, as far as this start looks at them.

        Raises:
            ValueError: moments that the start needs are not there.
        """
        return [None] * len(network.pieces)

    def draw(self, shape: tuple[int, ...], moments: Moments | None, generator: torch.Generator) -> Tensor:
        """Draw first values on the CPU.

        Args:
            shape: of what is drawn, with the batch.
            moments: of what is drawn, where they are known.
            generator: on the CPU.
        """
        return white_noise(shape, generator)

    def handed_down(self, layer: int, value: Tensor) -> Tensor:
        """Return what the descent of ``layer``, which ended at ``value``, gives the next stage."""
        return value


@dataclass(frozen=True)
class FunctionStart(Start):
    """Start at the images that a function of the user draws."""

    function: Initialiser
    draws_images = True

    def draw(self, shape: tuple[int, ...], moments: Moments | None, generator: torch.Generator) -> Tensor:
        """See :class:`Start`."""
        return self.function(shape, generator)


class LowFrequencyStart(Start):
    """Start at low-frequency noise."""

    name = "lowfreq"

    def draw(self, shape: tuple[int, ...], moments: Moments | None, generator: torch.Generator) -> Tensor:
        """See :class:`Start`."""
        return low_frequency_noise(shape, generator)


class StatisticsStart(Start):
    """Start at noise with the stored moments of the images."""

    name = "stats"
    draws_images = True

    def priors(self, network: InvertibleNetwork) -> list[Moments | None]:
        """See :class:`Start`."""
        return self._known(network, 0)

    def _known(self, network: InvertibleNetwork, piece: int) -> list[Moments | None]:
        """Return the measured moments. Raise ValueError if the input of ``piece`` has none."""
        known = self._measured(network)
        if known[piece] is None:
            raise ValueError(f"start '{self.name}' needs a network with statistics (measure_token_moments)")
        return known

    def _measured(self, network: InvertibleNetwork) -> list[Moments | None]:
        """Return the measured moments. Raise ValueError if there is not one for each piece."""
        known, pieces = network.input_moments, len(network.pieces)
        if known is None or len(known) != pieces:
            needed = f"input_moments, one for each of the {pieces} pieces (measure_input_moments)"
            raise ValueError(f"start '{self.name}' needs {needed}")
        return list(known)

    def draw(self, shape: tuple[int, ...], moments: Moments | None, generator: torch.Generator) -> Tensor:
        """See :class:`Start`."""
        return white_noise(shape, generator) if moments is None else matched_noise(shape, moments, generator)


@dataclass(frozen=True)
class StemStart(StatisticsStart):
    """Start where a few steps of the lowest piece end.

    They are taken towards random values with the stored moments of its output.

    Attributes:
        descent_steps: how many steps.
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

    def priors(self, network: InvertibleNetwork) -> list[Moments | None]:
        """See :class:`Start`."""
        self._measured(network)
        if len(network.pieces) == 1:
            raise ValueError("start 'stem' needs a network of two pieces or more")
        return self._known(network, 1)


@dataclass(frozen=True)
class PmiStart(StatisticsStart):
    """Start where the per-layer inversion of the targets, from top to bottom, ends.

    Attributes:
        config: the settings of that inversion.
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

    def priors(self, network: InvertibleNetwork) -> list[Moments | None]:
        """See :class:`Start`. Where an entry is None, PMI starts from white noise.

        Without any moments it matches features alone.
        """
        if self.config.prior == "bn_affine" and network.affine_moments is not None:
            return list(network.affine_moments)
        return self._measured(network)

    def handed_down(self, layer: int, value: Tensor) -> Tensor:
        """See :class:`Start`. The map of the lowest piece is given as its last grid shows it."""
        return seen_at(value, self.config.grid_at(layer, self.steps(layer) - 1))


def make_start(start: StartName | Initialiser, pmi: PmiConfig, stem_steps: int) -> Start:
    """Return the start that ``InversionConfig.start`` names, or that a function of the user makes.

    Raises:
        ValueError: there is no start of that name.
    """
    if callable(start):
        return FunctionStart(start)
    own = (Start(), StatisticsStart(), LowFrequencyStart(), StemStart(stem_steps), PmiStart(pmi))
    made = {known.name: known for known in own}
    if start not in made:
        raise ValueError(f"unknown start '{start}': choose from {', '.join(STARTS)}")
    return made[start]
