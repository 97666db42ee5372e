"""Say what is known of a ResNet before it is built: the sizes of its maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ResNetOutline:
    """A ResNet for small images, without its weights.

    Attributes:
        name: what users call the backbone.
        maps: of each map between two pieces, bottom to top: its channels, and what the side of the
            image is divided by to give its side. The first map is the stem's output.
        feature_dim: the width of the features.
    """

    name: str
    maps: tuple[tuple[int, int], ...]
    feature_dim: int

    @classmethod
    def of_stages(cls, name: str, stages: Sequence[tuple[int, int, int]]) -> ResNetOutline:
        """Return the outline of a stem with the first stage's channels, then stages of blocks.

        Args:
            name: what users call the backbone.
            stages: of each stage its channels, its blocks and the stride of its first block.
        """
        maps, divisor = [(stages[0][0], 1)], 1
        for channels, blocks, stride in stages:
            divisor *= stride
            maps += [(channels, divisor)] * blocks
        return cls(name, tuple(maps[:-1]), stages[-1][0])  # the last block is pooled to features

    def input_shapes(self, side: int) -> list[tuple[int, int, int]]:
        """Return the shape (c, h, w) of every piece's input, bottom to top.

        Args:
            side: of the images in pixels. An odd side is rounded up where it is halved.
        """
        sides = [(channels, -(-side // divisor)) for channels, divisor in self.maps]
        return [(3, side, side), *((channels, own, own) for channels, own in sides)]

    def largest_input(self, side: int) -> int:
        """Return the number of values of a piece's largest input, for images of ``side`` pixels."""
        return max(channels * height * width for channels, height, width in self.input_shapes(side))
