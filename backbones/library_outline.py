"""Say what is known of a network of torchvision or timm: the sizes of its maps, its norms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pmi_cl.errors import UserError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, eq=False)
class LibraryOutline:
    """A network of a library, without its weights.

    Attributes:
        name: what users call the backbone.
        feature_dim: the width of the features.
        keeps_statistics: whether a BatchNorm has running statistics.
        pieces: the pieces on the device "meta", which has shapes but no values.
    """

    name: str
    feature_dim: int
    keeps_statistics: bool
    pieces: tuple[nn.Module, ...]

    def input_shapes(self, side: int) -> list[tuple[int, int, int]]:
        """Return the shape (c, h, w) of every piece's input, bottom to top.

        Args:
            side: of the images in pixels.

        Raises:
            UserError: the network does not take such images.
        """
        import torch

        value: Any = torch.zeros(2, 3, side, side, device="meta")
        shapes: list[Any] = []
        for piece in self.pieces:
            shapes.append(tuple(value.shape[1:]))
            try:
                value = piece(value)
            except (RuntimeError, ValueError, AssertionError) as error:
                why = str(error).strip().partition("\n")[0]
                larger = f"--backbone {self.name} does not take images of {side} pixels ({why})"
                raise UserError(f"{larger}: choose another, or larger images (--image_size)") from error
        return shapes

    def largest_input(self, side: int) -> int:
        """Return the number of values of a piece's largest input, for images of ``side`` pixels."""
        return max(channels * height * width for channels, height, width in self.input_shapes(side))
