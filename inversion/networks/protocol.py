"""What the engine asks of a network, whatever it is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from pmi_cl.inversion.features.statistics import Axis, Direction, Moments


class InvertibleNetwork(Protocol):
    """A frozen network in pieces, which compares the statistics of its layers with stored ones.

    :class:`~pmi_cl.inversion.networks.frozen.FrozenNetwork` (convolutions and BatchNorm) and
    :class:`~pmi_cl.inversion.networks.token_network.TokenNetwork` (transformers) follow it. The
    engine looks at nothing else, and never at the class. Members are either facts, by which
    ``engine/checks.py`` refuses what a network cannot do, or passes through the network.

    Every pass takes a ``context`` (b, dq), which is handed to every piece, and ``kept`` (b, k), the
    numbers of the patches of each sample that go on once they are tokens (None: all). It raises
    ValueError where the network takes none. It returns its output, in float32 at least, and the
    KLs of what it compared on the way, each a scalar.
    """

    @property
    def pieces(self) -> Any:
        """Return the pieces, bottom to top; their number and order are what is asked."""

    @property
    def head(self) -> Callable[[Tensor], Tensor] | None:
        """Return the map of features (b, d) to logits (b, classes); None without a classifier."""

    @property
    def device(self) -> torch.device:
        """Return the device that all passes run on."""

    @property
    def dtype(self) -> torch.dtype:
        """Return the precision of the arithmetic."""

    @property
    def direction(self) -> Direction:
        """Return the direction of the KLs, or "l2" where moments are compared by distances."""

    @property
    def axis(self) -> Axis:
        """Return the axis along which statistics of tokens are kept; "channel" without tokens."""

    @property
    def input_moments(self) -> Sequence[Moments | None] | None:
        """Return the measured moments of the input of every piece.

        An entry is None where nothing is stored of that input. None in place of the list: nothing
        was measured, and a start that looks at moments is refused.
        """

    @property
    def affine_moments(self) -> Sequence[Moments | None] | None:
        """Return the moments of the input of every piece by the BatchNorm below it.

        None: the network is not made of BatchNorms.
        """

    @property
    def input_prior(self) -> bool:
        """Return whether what is optimised has stored statistics; an image has none."""

    @property
    def takes_context(self) -> bool:
        """Return whether the pieces take a context."""

    @property
    def drops_patches(self) -> bool:
        """Return whether passes take ``kept``, and :meth:`class_attention` is there."""

    @property
    def compares_statistics(self) -> bool:
        """Return whether any layer has stored statistics."""

    @property
    def statistics_optional(self) -> bool:
        """Return whether a network without statistics is made so on purpose.

        Else ``StatisticsMatch``, which would always be 0, is refused.
        """

    def __call__(
        self, x: Tensor, context: Tensor | None = None, kept: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Map what is optimised (b, ...) to features (b, d) and all KLs."""

    def forward(
        self, x: Tensor, context: Tensor | None = None, kept: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Compute what a call computes; this is what ``torch.compile`` takes."""

    def layer(
        self, number: int, x: Tensor, context: Tensor | None = None, kept: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Run piece ``number`` exactly as :meth:`forward` runs it."""

    def run(
        self,
        x: Tensor,
        first: int = 0,
        last: int | None = None,
        context: Tensor | None = None,
        kept: Tensor | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """Run the pieces ``first`` to ``last`` (exclusive), and compare what is inside each."""

    def class_attention(self, x: Tensor, context: Tensor | None = None, kept: Tensor | None = None) -> Tensor:
        """Return how much the class token attends to each patch (b, patches), without gradient."""
