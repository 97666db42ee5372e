"""A vision transformer made ready for inversion: a frozen copy of its pieces, statistics tapped where the pieces show them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pmi_cl.backbones.clip_pieces import of_patches
from pmi_cl.inversion.features.statistics import Direction, Moments
from pmi_cl.inversion.features.token_statistics import TokenMoments
from pmi_cl.inversion.networks.attention import FrozenAttention, class_attention, with_frozen_attention
from pmi_cl.inversion.networks.frozen import FrozenNetwork, StatisticsTap, cast_floats

Tap = Callable[[str, Tensor], Tensor]  # (what it is, values) -> the values to go on with
MULTIPLIES = (nn.Linear, nn.Conv2d, FrozenAttention)  # what is worth bfloat16 weights
INPUT = "input"  # of a transformer block, beside what the block shows itself


class TokenNetwork(nn.Module):
    """A frozen copy of pieces ``piece(x, context, tap)`` with the statistics of real data; nothing in it can be trained.

    In bfloat16 only products of matrices are: tokens, LayerNorms and statistics stay in float32, so that the moments of channels whose
    mean is far from zero do not drown in rounding.

    Attributes:
        pieces: bottom to top. The lowest takes what is optimised: the map of the patch convolution (b, width, g, g), or an image.
        input_moments: of every piece's input; None where nothing is stored.
        input_prior: whether what is optimised has stored statistics: a map has, an image has not.
        axis: along which the statistics of tokens are kept.
        head: always None, there is no classifier.
        takes_context: whether its pieces take a context.
    """

    head: None = None
    takes_context = True

    def __init__(
        self,
        pieces: Sequence[nn.Module],
        moments: Sequence[TokenMoments] = (),
        *,
        direction: Direction = "synthetic_to_real",
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
        unit_features: bool = False,
    ) -> None:
        """
        Args:
            device: None: the pieces' own.
            moments: of every piece (:func:`measure_token_moments`), or none at all: then there are no KLs and no priors.
            direction: of the KL between the batch's and the stored statistics.
            unit_features: the features are scaled to length 1, for targets that are (new classes without data; texts).

        Raises:
            ValueError: there are moments, but not one for each piece.
        """
        super().__init__()
        if moments and len(moments) != len(pieces):
            raise ValueError(f"{len(moments)} moments for {len(pieces)} pieces: give one for each")
        self.direction: Direction = direction
        self.dtype, self.unit_features = dtype, unit_features
        self.pieces = copy.deepcopy(nn.ModuleList(pieces))
        with_frozen_attention(self.pieces)
        device = next(self.pieces.parameters()).device if device is None else torch.device(device)
        known = [TokenMoments.from_state(piece.state(), device) for piece in moments] or [TokenMoments(None)] * len(
            pieces
        )
        self.input_moments: list[Moments | None] = [piece.input for piece in known]
        self.input_prior = known[0].input is not None
        stored = {
            f"{number}_{name}": values
            for number, piece in enumerate(known)
            for name, values in _compared(piece).items()
        }
        self.axis = next((values.axis for values in stored.values()), "channel")
        self.taps = nn.ModuleDict({key: _tap(values, direction) for key, values in stored.items()})
        wide = torch.promote_types(dtype, torch.float32)
        cast_floats(self, lambda module: dtype if isinstance(module, MULTIPLIES) else wide)
        self.requires_grad_(False).to(device).eval()

    def train(self, mode: bool = True) -> TokenNetwork:
        """The network stays in evaluation mode whatever ``mode`` is."""
        return super().train(False)

    def run(
        self,
        x: Tensor,
        first: int = 0,
        last: int | None = None,
        context: Tensor | None = None,
        kept: Tensor | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """Pieces ``first`` to ``last`` (exclusive) of ``x``: their output and the KLs of what blocks show inside.

        Args:
            context: (b, dq), handed to every piece.
            kept: as in :meth:`forward`.
        """
        return self._with_kls(x, range(len(self.pieces))[first:last], context, kept, whole=False)

    def forward(
        self, x: Tensor, context: Tensor | None = None, kept: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """What is optimised (b, ...) to features (b, d) and the KLs of the transformer blocks' inputs.

        Args:
            kept: (b, k), the patches of each sample that go on once they are tokens, numbered from 0 row by row; None: all.
        """
        return self._with_kls(x, range(len(self.pieces)), context, kept, whole=True)

    def layer(
        self, number: int, x: Tensor, context: Tensor | None = None, kept: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Piece ``number`` as :meth:`forward` runs it: its output, and the KL of its input if it is a transformer block."""
        return self._with_kls(x, range(number, number + 1), context, kept, whole=True)

    @torch.no_grad()
    def class_attention(self, x: Tensor, context: Tensor | None = None, kept: Tensor | None = None) -> Tensor:
        """How much the class token attends to each patch (of those ``kept``) in the highest block, mean over the heads: (b, patches)."""
        highest = max(number for number, piece in enumerate(self.pieces) if _attention_of(piece) is not None)
        attention = _attention_of(self.pieces[highest])
        assert attention is not None
        entered: list[Tensor] = []

        def record(name: str, value: Tensor) -> Tensor:
            entered.extend([value] if name == "attn" else [])
            return value

        tokens = self._through(x, range(highest), context, kept, lambda _: _untouched)
        with self._arithmetic(x):
            self.pieces[highest](tokens, context, record)
            prefix = getattr(self.pieces[highest], "prefix", None)
            shares = class_attention(attention, entered[0], None if prefix is None else prefix(context)[0])
        patches = tokens.shape[1] - 1
        return shares[
            :, -patches:
        ]  # they stand last: behind the class token, and behind prompts that the block has put after it

    def _with_kls(
        self, x: Tensor, numbers: range, context: Tensor | None, kept: Tensor | None, whole: bool
    ) -> tuple[Tensor, list[Tensor]]:
        kls: list[Tensor] = []
        output = self._through(x, numbers, context, kept, lambda number: self._compare(number, whole, kls))
        return output, kls

    def _through(
        self, x: Tensor, numbers: range, context: Tensor | None, kept: Tensor | None, tap_of: Callable[[int], Tap]
    ) -> Tensor:
        """The output of the pieces ``numbers``, in float32 at least."""
        wide = torch.promote_types(self.dtype, torch.float32)
        x = x.to(wide)
        if x.dim() == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        with self._arithmetic(x):
            for number in numbers:
                tap = tap_of(number)
                below = x.dim()
                x = self.pieces[number](tap(INPUT, x), context, tap)
                if kept is not None and below == 4 and x.dim() == 3:
                    x = of_patches(x, kept)
        top = bool(numbers) and numbers[-1] == len(self.pieces) - 1
        x = x.to(wide)
        return F.normalize(x, dim=-1) if top and self.unit_features else x

    def _compare(self, number: int, whole: bool, kls: list[Tensor]) -> Tap:
        """Adds to ``kls``: of a pass through the whole network the KL of a block's input, else those of what is inside."""

        def tap(name: str, value: Tensor) -> Tensor:
            key = f"{number}_{name}"
            if (name == INPUT) != whole or key not in self.taps:
                return value
            with torch.autocast(
                value.device.type, enabled=False
            ):  # moments are summed by products, which must stay in float32
                value, kl = self.taps[key](value)
            kls.append(kl)
            return value

        return tap

    def _arithmetic(self, x: Tensor) -> torch.autocast:
        return torch.autocast(x.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16, cache_enabled=False)


Invertible = FrozenNetwork | TokenNetwork


def _untouched(name: str, value: Tensor) -> Tensor:
    return value


def _attention_of(piece: nn.Module) -> FrozenAttention | None:
    return next((module for module in piece.modules() if isinstance(module, FrozenAttention)), None)


def _compared(piece: TokenMoments) -> dict[str, Moments]:
    """What is compared of a piece, by the tap's name; a piece that shows nothing inside is no transformer block."""
    if not piece.inner:
        return {}
    return {**piece.inner, **({} if piece.input is None else {INPUT: piece.input})}


def _tap(stored: Moments, direction: Direction) -> StatisticsTap:
    return StatisticsTap(stored.mean, stored.floored_var(), direction, stored.axis)
