"""A convolutional network made ready for inversion: frozen, folded, statistics compared."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pmi_cl.inversion.features.statistics import Axis, Direction, Moments, StatisticsTap
from pmi_cl.inversion.networks.folding import freeze_piece
from pmi_cl.inversion.networks.pieces import cast_floats, frozen_copy


class FrozenNetwork(nn.Module):
    """Pieces that map an image to features, and the classifier on top; nothing in it is trained.

    It follows :class:`~pmi_cl.inversion.networks.protocol.InvertibleNetwork`.

    Attributes:
        pieces: bottom to top; each maps its input to (output, KLs of the BatchNorms inside).
        head: maps features (b, d) to logits (b, classes), in float32; None where only features
            are wanted.
        input_moments: of the input of every piece; None where none were given.
        affine_moments: of the input of every piece by the last BatchNorm of the piece below
            (:func:`bn_affine_moments`); of the image those that were measured, if any were.
    """

    input_prior = False
    takes_context = False
    drops_patches = False
    statistics_optional = False
    axis: Axis = "channel"

    def __init__(
        self,
        pieces: Sequence[nn.Module],
        head: nn.Module | None = None,
        *,
        direction: Direction = "synthetic_to_real",
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
        input_moments: Sequence[Moments] | None = None,
    ) -> None:
        """
        Args:
            pieces: modules whose composition maps images to features; they are copied.
            head: the classifier on top of them, if there is one; it is copied.
            direction: of the KL between the statistics of the batch and the stored ones; "l2":
                DeepInversion's distance in place of the KL.
            dtype: of the arithmetic. Statistics are compared in float32 at least.
            device: of the copy; None: that of the pieces.
            input_moments: of the input of every piece, which some starts need
                (:func:`pmi_cl.inversion.networks.pieces.measure_input_moments`).

        Raises:
            ValueError: a piece cannot be traced.
        """
        super().__init__()
        self.dtype, self.direction = dtype, direction
        frozen = [freeze_piece(piece, direction) for piece in pieces]
        self.pieces = nn.ModuleList(frozen).to(device)
        self.pieces.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        wide = torch.promote_types(dtype, torch.float32)  # statistics are compared in it
        cast_floats(self.pieces, lambda module: wide if isinstance(module, StatisticsTap) else dtype)
        self.head = None if head is None else frozen_copy(head).float().to(device)
        self.input_moments = None if input_moments is None else list(input_moments)
        self.affine_moments = [
            input_moments[0] if input_moments else None,
            *[bn_affine_moments(piece) for piece in pieces[:-1]],
        ]

    @property
    def device(self) -> torch.device:
        """Return the device of the first parameter."""
        return next(self.parameters()).device

    @property
    def compares_statistics(self) -> bool:
        """Return whether there is a BatchNorm with running statistics in it."""
        return any(isinstance(part, StatisticsTap) for part in self.modules())

    def train(self, mode: bool = True) -> FrozenNetwork:
        """Stay in evaluation mode: batch statistics are compared, never used for normalising."""
        return super().train(False)

    def run(
        self,
        x: Tensor,
        first: int = 0,
        last: int | None = None,
        context: Tensor | None = None,
        kept: Tensor | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """Run the pieces ``first`` to ``last`` (exclusive).

        Returns:
            Their output, in float32 at least, and the KLs of the BatchNorms in them.

        Raises:
            ValueError: there is a ``context`` or ``kept``, which other networks take.
        """
        if context is not None:
            raise ValueError("the pieces of this network take no context")
        if kept is not None:
            raise ValueError("this network has no patches to drop")
        x = x.to(self.dtype)
        if x.dim() == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        kls: list[Tensor] = []
        for piece in self.pieces[first:last]:
            x, inside = piece(x)
            kls.extend(inside)
        return x.to(torch.promote_types(self.dtype, torch.float32)), kls

    def forward(
        self, x: Tensor, context: Tensor | None = None, kept: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Map images (b, c, h, w) to features (b, d) and all KLs."""
        return self.run(x, context=context, kept=kept)

    def layer(
        self, number: int, x: Tensor, context: Tensor | None = None, kept: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Run piece ``number`` as :meth:`forward` runs it."""
        return self.run(x, number, number + 1, context, kept)

    def class_attention(self, x: Tensor, context: Tensor | None = None, kept: Tensor | None = None) -> Tensor:
        """Raise ValueError: there is no class token."""
        raise ValueError("this network has no class token")


def bn_affine_moments(piece: nn.Module) -> Moments | None:
    """Return (beta, gamma^2) of the last BatchNorm in a piece; None where there is none.

    The released code takes them for the moments of the input of the next piece.
    """
    norms = [m for m in piece.modules() if isinstance(m, nn.BatchNorm2d) and m.affine]
    if not norms:
        return None
    return Moments(norms[-1].bias.detach().clone(), norms[-1].weight.detach() ** 2 + 1e-8, 1)
