"""A vision transformer made ready for inversion: frozen, statistics compared.

Its pieces are not traced. A block hands what is inside it to its argument ``tap``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pmi_cl.backbones.clip_pieces import select_patches
from pmi_cl.inversion.features.statistics import Axis, Direction, Moments, StatisticsTap
from pmi_cl.inversion.networks.attention import FrozenAttention, class_attention, with_frozen_attention
from pmi_cl.inversion.networks.pieces import cast_floats
from pmi_cl.inversion.networks.token_statistics import TokenMoments

Tap = Callable[[str, Tensor], Tensor]  # (name, values) -> the values to go on with
MULTIPLIES = (nn.Linear, nn.Conv2d, FrozenAttention)  # modules that may have bfloat16 weights
INPUT = "input"  # the name of the input of a block, beside the names that the block gives


class TokenNetwork(nn.Module):
    """A frozen copy of pieces ``piece(x, context, tap)`` with the statistics of real data.

    It follows :class:`~pmi_cl.inversion.networks.protocol.InvertibleNetwork`. Nothing in it is
    trained. With ``dtype`` bfloat16 only products of matrices are in bfloat16: tokens, LayerNorms
    and statistics stay in float32, so that the moments of channels whose mean is far from zero do
    not drown in rounding.

    Attributes:
        pieces: bottom to top. The lowest takes what is optimised: the map of the patch convolution
            (b, width, g, g), or an image.
        input_moments: of the input of every piece; an entry is None where nothing is stored.
        input_prior: whether what is optimised has stored statistics: a map has, an image has not.
        axis: along which the statistics of tokens are kept.
        head: always None: there is no classifier.
    """

    head: None = None
    affine_moments: None = None
    takes_context = True
    drops_patches = True
    statistics_optional = True

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
            pieces: bottom to top; they are copied.
            moments: of every piece (:func:`measure_token_moments`), or none at all: then there are
                no KLs, and starts know nothing of the inputs of the pieces.
            direction: of the KL between the statistics of the batch and the stored ones; "l2":
                DeepInversion's distance in place of the KL.
            dtype: of the products of matrices.
            device: of the copy; None: that of the pieces.
            unit_features: whether features are scaled to length 1, for targets of length 1 (new
                classes without data; texts).

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
        unknown = [TokenMoments(None)] * len(pieces)
        known = [TokenMoments.from_state(piece.state(), device) for piece in moments] or unknown
        self.input_moments: list[Moments | None] = [piece.input for piece in known]
        self.input_prior = known[0].input is not None
        stored = {
            f"{number}_{name}": values
            for number, piece in enumerate(known)
            for name, values in _compared(piece).items()
        }
        self.axis: Axis = next((values.axis for values in stored.values()), "channel")
        self.taps = nn.ModuleDict({key: _tap(values, direction) for key, values in stored.items()})
        wide = torch.promote_types(dtype, torch.float32)
        cast_floats(self, lambda module: dtype if isinstance(module, MULTIPLIES) else wide)
        self.requires_grad_(False).to(device).eval()

    @property
    def device(self) -> torch.device:
        """Return the device of the first parameter."""
        return next(self.parameters()).device

    @property
    def compares_statistics(self) -> bool:
        """Return whether there are moments of any block."""
        return len(self.taps) > 0

    def train(self, mode: bool = True) -> TokenNetwork:
        """Stay in evaluation mode, whatever ``mode`` is."""
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

        Args:
            x: the input of the first.
            first: its number.
            last: the number after the last; None: all that are left.
            context: (b, dq), handed to every piece.
            kept: as in :meth:`forward`.

        Returns:
            Their output, and the KLs of what blocks show inside.
        """
        return self._with_kls(x, range(len(self.pieces))[first:last], context, kept, whole=False)

    def forward(
        self, x: Tensor, context: Tensor | None = None, kept: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Map what is optimised (b, ...) to features (b, d) and the KLs of the inputs of blocks.

        Args:
            x: what is optimised.
            context: (b, dq), handed to every piece.
            kept: (b, k), the patches of each sample that go on once they are tokens, numbered from
                0 row by row; None: all.
        """
        return self._with_kls(x, range(len(self.pieces)), context, kept, whole=True)

    def layer(
        self, number: int, x: Tensor, context: Tensor | None = None, kept: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Run piece ``number`` as :meth:`forward` runs it.

        Returns:
            Its output, and the KL of its input if it is a transformer block.
        """
        return self._with_kls(x, range(number, number + 1), context, kept, whole=True)

    @torch.no_grad()
    def class_attention(self, x: Tensor, context: Tensor | None = None, kept: Tensor | None = None) -> Tensor:
        """Return how much the class token attends to each patch in the highest block (b, patches).

        It is the mean over the heads, of those patches alone that are ``kept``.
        """
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
        # they stand last: after the class token, and after prompts that the block has put there
        return shares[:, -patches:]

    def _with_kls(
        self, x: Tensor, numbers: range, context: Tensor | None, kept: Tensor | None, whole: bool
    ) -> tuple[Tensor, list[Tensor]]:
        kls: list[Tensor] = []
        output = self._through(x, numbers, context, kept, lambda number: self._compare(number, whole, kls))
        return output, kls

    def _through(
        self, x: Tensor, numbers: range, context: Tensor | None, kept: Tensor | None, tap_of: Callable[[int], Tap]
    ) -> Tensor:
        """Return the output of the pieces ``numbers``, in float32 at least."""
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
                    x = select_patches(x, kept)
        top = bool(numbers) and numbers[-1] == len(self.pieces) - 1
        x = x.to(wide)
        return F.normalize(x, dim=-1) if top and self.unit_features else x

    def _compare(self, number: int, whole: bool, kls: list[Tensor]) -> Tap:
        """Return the tap of piece ``number``, which adds KLs to ``kls``.

        In a pass through the ``whole`` network it is the KL of the input of a block, else those of
        what is inside the block.
        """

        def tap(name: str, value: Tensor) -> Tensor:
            key = f"{number}_{name}"
            if (name == INPUT) != whole or key not in self.taps:
                return value
            # moments are summed by products of matrices, which must stay in float32
            with torch.autocast(value.device.type, enabled=False):
                value, kl = self.taps[key](value)
            kls.append(kl)
            return value

        return tap

    def _arithmetic(self, x: Tensor) -> torch.autocast:
        return torch.autocast(x.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16, cache_enabled=False)


def _untouched(name: str, value: Tensor) -> Tensor:
    return value


def _attention_of(piece: nn.Module) -> FrozenAttention | None:
    return next((module for module in piece.modules() if isinstance(module, FrozenAttention)), None)


def _compared(piece: TokenMoments) -> dict[str, Moments]:
    """Return the moments that are compared in a piece, by the name of the tap.

    A piece that shows nothing inside is no transformer block: nothing is compared.
    """
    if not piece.inner:
        return {}
    return {**piece.inner, **({} if piece.input is None else {INPUT: piece.input})}


def _tap(stored: Moments, direction: Direction) -> StatisticsTap:
    return StatisticsTap(stored.mean, stored.floored_var(), direction, stored.axis)
