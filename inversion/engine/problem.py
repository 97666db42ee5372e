"""What is to be inverted, through which network, and how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

from torch import Tensor, nn

from pmi_cl.inversion.config import InversionConfig
from pmi_cl.inversion.engine.checks import check_given, check_network
from pmi_cl.inversion.features.statistics import Moments
from pmi_cl.inversion.networks.frozen import FrozenNetwork
from pmi_cl.inversion.networks.pieces import device_of
from pmi_cl.inversion.networks.protocol import InvertibleNetwork
from pmi_cl.inversion.parts.colour import Colour


@dataclass(frozen=True, eq=False)
class Problem:
    """All that an :class:`~pmi_cl.inversion.engine.engine.Inversion` needs.

    Example:
        >>> import torch
        >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten())
        >>> config, targets = InversionConfig(steps=2), torch.zeros(4, 8 * 6 * 6)
        >>> frozen = frozen_network([network], None, config)
        >>> Problem(frozen, config, image_shape=(3, 8, 8), targets=targets).n
        4

    Attributes:
        network: frozen, of the precision and the direction of ``config``
            (:func:`frozen_network`, or a
            :class:`~pmi_cl.inversion.networks.token_network.TokenNetwork`).
        config: the settings.
        image_shape: (c, h, w) of what is optimised.
        targets: (n, d), the features to invert. Targets, labels or both are given.
        labels: (n,), whole class numbers.
        contexts: (n, dq), which go with the targets into the pieces of a network that takes them.
        colour: the colour space of real images to optimise in; None: that of the pixels.
        seed: of all random numbers.

    Raises:
        ValueError: something is missing, or does not fit the rest.
    """

    network: InvertibleNetwork
    config: InversionConfig
    _: KW_ONLY
    image_shape: tuple[int, int, int]
    targets: Tensor | None = None
    labels: Tensor | None = None
    contexts: Tensor | None = None
    colour: Colour | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what does not go together."""
        check_given(self.config, self.targets, self.labels, self.contexts)
        check_network(self.network, self.config, self.contexts)

    @property
    def n(self) -> int:
        """Return how many samples there are."""
        given = self.labels if self.targets is None else self.targets
        assert given is not None
        return len(given)


def frozen_network(
    pieces: Sequence[nn.Module],
    head: nn.Module | None,
    config: InversionConfig,
    input_moments: Sequence[Moments] | None = None,
) -> FrozenNetwork:
    """Freeze pieces on their device, in the precision and the direction of ``config``.

    Args:
        pieces: modules whose composition maps images to features; they are copied.
        head: the classifier on top of them, where labels are wanted; it is copied.
        config: the settings.
        input_moments: of the input of every piece, which some starts need.

    Raises:
        ValueError: a piece cannot be traced.
    """
    return FrozenNetwork(
        pieces,
        head,
        direction=config.direction,
        dtype=config.precision,
        device=device_of(pieces),
        input_moments=input_moments,
    )
