"""The moments of a transformer over real data.

They are those of the input of every piece, and of what enters attention and MLP in every block.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pmi_cl.inversion.features.statistics import Axis, Moments, as_rows, pool_moments, power_sums
from pmi_cl.inversion.networks.pieces import in_evaluation_mode

Sample = Tensor | tuple[Tensor, Tensor | None]


@dataclass(frozen=True)
class TokenMoments:
    """The moments of one piece.

    Attributes:
        input: of its input; None where that is an image, of which nothing is kept.
        inner: of what it shows to its tap, by name: "attn" and "mlp" of a transformer block,
            nothing of other pieces.
    """

    input: Moments | None
    inner: dict[str, Moments] = field(default_factory=dict)

    def state(self) -> dict[str, Any]:
        """Return plain data for a checkpoint."""
        inner = {name: moments.state() for name, moments in self.inner.items()}
        return {"input": None if self.input is None else self.input.state(), "inner": inner}

    @classmethod
    def from_state(cls, state: dict[str, Any], device: torch.device | None = None) -> TokenMoments:
        """Return the moments that :meth:`state` describes."""
        own = None if state["input"] is None else Moments.from_state(state["input"], device)
        return cls(own, {name: Moments.from_state(moments, device) for name, moments in state["inner"].items()})


class _Sums:
    """Sums and sums of squares, added up in float64."""

    def __init__(self, axis: Axis) -> None:
        self.axis, self.count = axis, 0
        self.total: Tensor | None = None
        self.squares: Tensor | None = None

    def add(self, x: Tensor) -> None:
        """Add a map (b, c, h, w), always per channel, tokens (b, t, c) or features (b, c)."""
        rows = as_rows(x, self.axis).double()
        total, squares = power_sums(rows)
        self.total = total if self.total is None else self.total + total
        self.squares = squares if self.squares is None else self.squares + squares
        self.count += rows.shape[0] * rows.shape[1]
        self.axis = self.axis if x.dim() == 3 else "channel"

    def moments(self) -> Moments:
        """Return the moments of all that was added. Raise ValueError if nothing was."""
        if self.total is None or self.squares is None:
            raise ValueError("there are no data to measure")
        mean = self.total / self.count
        return Moments(
            mean.float(), (self.squares / self.count - mean * mean).clamp_min(0).float(), self.count, self.axis
        )


def measure_token_moments(
    pieces: Sequence[nn.Module], batches: Iterable[Sample], axis: Axis = "channel"
) -> list[TokenMoments]:
    """Return the moments of every piece over all batches together.

    The pieces run in evaluation mode, without gradients, and are left in the mode they were in.

    Args:
        pieces: bottom to top, each ``piece(x, context, tap)``.
        batches: inputs of the lowest piece, each alone or with its context: (b, ...) or
            ((b, ...), (b, dq)).
        axis: "channel", or "token" for moments by position (those of a map stay by channel).

    Raises:
        ValueError: there are no batches.
    """
    inputs = [_Sums(axis) for _ in pieces]
    inner: list[dict[str, _Sums]] = [{} for _ in pieces]
    with torch.no_grad(), in_evaluation_mode(pieces):
        for batch in batches:
            value, context = batch if isinstance(batch, tuple) else (batch, None)
            for number, piece in enumerate(pieces):

                def tap(name: str, inside: Tensor, number: int = number) -> Tensor:
                    inner[number].setdefault(name, _Sums(axis)).add(inside)
                    return inside

                inputs[number].add(value)
                value = piece(value, context, tap)
    return [
        TokenMoments(own.moments(), {name: sums.moments() for name, sums in taps.items()})
        for own, taps in zip(inputs, inner, strict=True)
    ]


def pool_token_moments(parts: Iterable[Sequence[TokenMoments]]) -> list[TokenMoments]:
    """Return the exact moments of the union of what the parts were measured on, task after task.

    Raises:
        ValueError: the parts are not of the same network and axis, or there are none.
    """
    return [_pooled(pieces) for pieces in zip(*parts, strict=True)]


def _pooled(pieces: Sequence[TokenMoments]) -> TokenMoments:
    names = list(pieces[0].inner)
    if any(list(piece.inner) != names for piece in pieces):
        raise ValueError("statistics of different networks do not pool")
    known = [piece.input for piece in pieces if piece.input is not None]
    inner = {name: pool_moments([piece.inner[name] for piece in pieces]) for name in names}
    return TokenMoments(pool_moments(known) if known else None, inner)
