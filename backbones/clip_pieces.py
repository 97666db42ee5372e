"""Define the layers of a CLIP's towers as pieces around open_clip's own modules.

Prompts, prefixes and adapters of the methods have places in them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pmi_cl.errors import UserError

Tap = Callable[[str, Tensor], Tensor]  # ("attn" or "mlp", its input) -> the input that it gets instead


class PatchConv(nn.Module):
    """The patch convolution, the lowest piece.

    The inversion never takes a synthetic image below it.
    """

    def __init__(self, conv: nn.Conv2d, image_size: int) -> None:
        super().__init__()
        self.conv, self.image_size = conv, image_size

    def forward(self, x: Tensor, context: Tensor | None = None, tap: Tap | None = None) -> Tensor:
        """Return the maps (b, width, g, g) of images (b, 3, h, w), h = w = ``image_size``.

        Raises:
            UserError: the images have another size.
        """
        size = self.image_size
        if tuple(x.shape[1:]) != (3, size, size):
            given = " x ".join(str(side) for side in x.shape[1:])
            raise UserError(
                f"this CLIP takes images of 3 x {size} x {size}, not {given}: present the data set in its input form"
            )
        return self.conv(x)

    @torch.no_grad()
    def nearest_images(self, maps: Tensor) -> Tensor:
        """Return the normalised images (b, 3, h, w) nearest to maps (b, width, g, g).

        They are the images whose maps are nearest: each patch is solved for by least squares.
        """
        weight = self.conv.weight.float().flatten(1)
        patches = torch.einsum("pw,bwij->bpij", torch.linalg.pinv(weight), maps.float())
        return F.fold(patches.flatten(2), self.image_size, kernel_size=self.conv.kernel_size, stride=self.conv.stride)


class Embed(nn.Module):
    """Turn maps into tokens, put the class token first, add positions, apply the first LayerNorm.

    open_clip's patch dropout, which regularises its pre-training, has no part here.
    """

    def __init__(self, class_token: nn.Parameter, positions: nn.Parameter, norm: nn.Module) -> None:
        super().__init__()
        self.class_token, self.positions, self.norm = class_token, positions, norm

    def forward(self, x: Tensor, context: Tensor | None = None, tap: Tap | None = None) -> Tensor:
        """Return the tokens (b, 1 + g * g, width) of maps (b, width, g, g)."""
        patches = x.flatten(2).transpose(1, 2)
        first = self.class_token.to(x.dtype).expand(len(x), 1, -1)
        return self.norm(torch.cat([first, patches], dim=1) + self.positions.to(x.dtype))


class BlockPiece(nn.Module):
    """One transformer block of open_clip, and what methods add to it.

    With nothing added it is the block.

    Attributes:
        block: open_clip's ``ResidualAttentionBlock``.
        prompt: called without arguments, returns tokens (p, width). They stand between the class
            token and the others in this block, and are removed after it (deep visual prompts).
        prefix: returns keys and values, each (b, m, width), for a context (b, d). They are put
            before the projected keys and values of the attention.
        adapter: returns tokens (b, n, width) for tokens of that shape. They are added in parallel
            to the MLP. Its input is the input of the MLP's LayerNorm.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block: Any = block
        self.prompt: nn.Module | None = None
        self.prefix: nn.Module | None = None
        self.adapter: nn.Module | None = None

    def forward(
        self, x: Tensor, context: Tensor | None = None, tap: Tap | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Return the tokens (b, n, width) above the block, of tokens of that shape below it.

        Args:
            context: (b, d), the query by which ``prefix`` chooses.
            tap: called with the inputs of the attention and of the MLP, prompts included. It
                returns what is used in their place.
            mask: (n, n), added to the logits of the attention. Only the text tower has one.
        """
        if tap is None and self.prompt is None and self.prefix is None and self.adapter is None:
            return self.block(x, attn_mask=mask)
        if self.prompt is None:
            return self._run(x, context, tap, mask)
        prompts = self.prompt().to(x.dtype).expand(len(x), -1, -1)
        out = self._run(torch.cat([x[:, :1], prompts, x[:, 1:]], dim=1), context, tap, mask)
        return torch.cat([out[:, :1], out[:, 1 + prompts.shape[1] :]], dim=1)

    def _run(self, x: Tensor, context: Tensor | None, tap: Tap | None, mask: Tensor | None) -> Tensor:
        block = self.block
        inner = block.ln_1(x)
        inner = inner if tap is None else tap("attn", inner)
        x = x + block.ls_1(self._attention(inner, context, mask))
        inner = block.ln_2(x)
        inner = inner if tap is None else tap("mlp", inner)
        out = x + block.ls_2(block.mlp(inner))
        return out if self.adapter is None else out + self.adapter(x)

    def _attention(self, x: Tensor, context: Tensor | None, mask: Tensor | None) -> Tensor:
        if self.prefix is None:
            return self.block.attention(x, attn_mask=mask)
        keys, values = self.prefix(context)
        return prefixed_attention(self.block.attn, x, keys, values)


def select_patches(tokens: Tensor, kept: Tensor) -> Tensor:
    """Return the class token and the patches ``kept`` (b, k) of tokens (b, 1 + n, width).

    The result is (b, 1 + k, width).
    """
    rows = torch.cat([kept.new_zeros(len(kept), 1), kept + 1], dim=1)
    return tokens.gather(1, rows[:, :, None].expand(-1, -1, tokens.shape[2]))


@contextlib.contextmanager
def bare(blocks: Sequence[BlockPiece]) -> Iterator[None]:
    """Take off what was added to the blocks while the context is entered, and put it back after."""
    added = [(block.prompt, block.prefix, block.adapter) for block in blocks]
    for block in blocks:
        block.prompt = block.prefix = block.adapter = None
    try:
        yield
    finally:
        for block, (prompt, prefix, adapter) in zip(blocks, added, strict=True):
            block.prompt, block.prefix, block.adapter = prompt, prefix, adapter


def prefixed_attention(attention: nn.MultiheadAttention, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Return the self-attention of tokens (b, n, width) that also see ``keys`` and ``values``.

    ``keys`` and ``values`` (b, m, width) are not projected. This is prefix tuning as CODA-Prompt
    uses it. The queries are those of the tokens alone.
    """
    query, key, value = F.linear(x, attention.in_proj_weight, attention.in_proj_bias).chunk(3, dim=-1)
    key = torch.cat([keys.to(key.dtype), key], dim=1)
    value = torch.cat([values.to(value.dtype), value], dim=1)
    heads = [part.unflatten(2, (attention.num_heads, -1)).transpose(1, 2) for part in (query, key, value)]
    out = F.scaled_dot_product_attention(*heads)
    return attention.out_proj(out.transpose(1, 2).flatten(2))


class Project(nn.Module):
    """The last LayerNorm on the class token, then the projection.

    It leads to the space that images and texts share.
    """

    def __init__(self, norm: nn.Module, projection: nn.Parameter | None) -> None:
        super().__init__()
        self.norm, self.projection = norm, projection

    def forward(self, x: Tensor, context: Tensor | None = None, tap: Tap | None = None) -> Tensor:
        """Return the features (b, d), not normalised, of tokens (b, n, width)."""
        out = self.norm(x[:, 0])
        return out if self.projection is None else out @ self.projection


class TextTower(nn.Module):
    """A CLIP's text encoder: embeddings, causal transformer blocks, projection.

    The state of the end-of-text token is projected.
    """

    def __init__(self, text: Any) -> None:
        """Take the parts of ``text`` by open_clip's names.

        ``text`` is its ``TextTransformer``, or its ``CLIP``, which carries the same parts.
        """
        super().__init__()
        self.embedding: nn.Embedding = text.token_embedding
        self.positions: nn.Parameter = text.positional_embedding
        self.blocks = nn.ModuleList(BlockPiece(block) for block in text.transformer.resblocks)
        self.norm: nn.Module = text.ln_final
        self.projection: nn.Module | nn.Parameter | None = text.text_projection
        self.mask: Tensor | None
        self.register_buffer("mask", text.attn_mask, persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the features (n, d), not normalised, of token numbers (n, m).

        m is the length of the context. It may be shorter if :attr:`mask` is causal.
        """
        dtype, length = self.positions.dtype, tokens.shape[1]
        x = self.embedding(tokens).to(dtype) + self.positions[:length]
        mask = None if self.mask is None else self.mask[:length, :length]
        for block in self.blocks:
            x = block(x, mask=mask)
        # the end-of-text token has the highest number of all
        out = self.norm(x)[torch.arange(len(x), device=x.device), tokens.argmax(dim=1)]
        if self.projection is None:
            return out
        return self.projection(out) if isinstance(self.projection, nn.Module) else out @ self.projection
