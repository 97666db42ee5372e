"""Present a CLIP as a network of pieces.

open_clip's modules are taken apart, so that inversion, prompts and adapters reach every layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pmi_cl.backbones.clip_outline import ClipOutline, Tokenizer
from pmi_cl.backbones.clip_pieces import BlockPiece, Embed, PatchConv, Project, TextTower, select_patches
from pmi_cl.backbones.open_clip_library import open_clip_module
from pmi_cl.datasets.input_form import InputForm
from pmi_cl.errors import UserError

MEAN = (0.48145466, 0.4578275, 0.40821073)  # of the images that OpenAI trained on
STD = (0.26862954, 0.26130258, 0.27577711)
# The backbone, open_clip's model with its activation, open_clip's name for the weights, the file
# from which they were read, and its digest.
RECORDED = ("name", "model", "tag", "file", "sha256")


class ClipNetwork(nn.Module):
    """The two towers of an open_clip model whose image tower is a plain ViT.

    The pieces hold open_clip's own modules and parameters. Nothing is copied: the model that was
    passed shares them.

    Attributes:
        name: what users call the backbone.
        weights_record: where the weights came from, see :data:`RECORDED`. None where an entry does
            not apply.
        image_size, patch_size: in pixels.
        grid: the number of patches along a side.
        width: the width of the image tower.
        text_width: the width of the text tower.
        feature_dim: the width of the space that images and texts share.
        context_length: the most tokens of a text, its start and end included.
        mean, std: (3,), by which images are normalised.
        image_tower: the pieces, bottom to top.
        text_tower: the text encoder.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Tokenizer,
        *,
        name: str,
        weights_record: Mapping[str, str | None] | None = None,
        mean: Sequence[float] = MEAN,
        std: Sequence[float] = STD,
    ) -> None:
        super().__init__()
        visual, text = plain_towers(model, name)
        self.name = name
        self.weights_record = {**dict.fromkeys(RECORDED), "name": name, **(weights_record or {})}
        self.tokenizer, self.mean, self.std = tokenizer, tuple(mean), tuple(std)
        self.image_size, self.patch_size = int(visual.image_size[0]), int(visual.patch_size[0])
        self.image_tower = nn.ModuleList(
            [
                PatchConv(visual.conv1, self.image_size),
                Embed(visual.class_embedding, visual.positional_embedding, visual.ln_pre),
                *(BlockPiece(block) for block in visual.transformer.resblocks),
                Project(visual.ln_post, visual.proj),
            ]
        )
        self.text_tower = TextTower(text)
        self.logit_scale: nn.Parameter = model.logit_scale
        self.grid, self.width = self.image_size // self.patch_size, int(visual.conv1.out_channels)
        self.feature_dim = int(visual.output_dim)
        self.context_length, self.text_width = (int(size) for size in self.text_tower.positions.shape)

    @property
    def input_form(self) -> InputForm:
        """Return how a data set presents its images to this network."""
        return InputForm(self.image_size, self.mean, self.std)

    @property
    def outline(self) -> ClipOutline:
        """Return what the backbone's file says of this network before it is built."""
        text = (self.context_length, self.tokenizer)
        return ClipOutline(self.name, self.width, *text, self.grid, self.feature_dim, self.image_size)

    @property
    def blocks(self) -> list[BlockPiece]:
        """Return the transformer blocks of the image tower.

        They have the places for prompts, prefixes and adapters.
        """
        return [piece for piece in self.image_tower if isinstance(piece, BlockPiece)]

    @property
    def text_blocks(self) -> list[BlockPiece]:
        """Return the transformer blocks of the text tower. Of their places, ``adapter`` is used."""
        return list(self.text_tower.blocks)  # type: ignore[arg-type]

    def pieces(self) -> list[nn.Module]:
        """Return the image tower bottom to top.

        It is the patch convolution, the embedding, one block each, and the projection (ViT-B/16: 0
        to 14). Each piece takes ``(x, context=None, tap=None)``. Composed, they are open_clip's
        ``encode_image``.
        """
        return list(self.image_tower)

    def features(self, images: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the features (b, d), not normalised, of images (b, 3, h, w).

        ``context`` (b, dq) is what prefixes choose by.
        """
        return self.features_from(images, 0, context)

    def features_from(self, x: Tensor, first: int, context: Tensor | None = None, kept: Tensor | None = None) -> Tensor:
        """Return the features (b, d) of ``x``, the output of piece ``first - 1``.

        Maps of the patch convolution (b, width, g, g) enter at piece 1.

        Args:
            x: the input of piece ``first``.
            first: the number of the first piece that is run.
            context: as in :meth:`features`.
            kept: (b, k), the patches of each map that go on, for ``first`` 1. None: all.
        """
        for piece in self.image_tower[first:]:
            x = piece(x, context)
            if kept is not None and isinstance(piece, Embed):
                x = select_patches(x, kept)
        return x

    def forward(self, images: Tensor, context: Tensor | None = None) -> Tensor:
        """Return :meth:`features`."""
        return self.features(images, context)

    @torch.no_grad()
    def query_from(self, maps: Tensor, kept: Tensor | None = None) -> Tensor:
        """Return the class token (b, width) above the last LayerNorm of the bare tower.

        It is CODA-Prompt's query. Nothing that a method adds to the tower has a part in it.

        Args:
            maps: of the patch convolution (b, width, g, g).
            kept: (b, k), the patches that go on. None: all.
        """
        x = self.image_tower[1](maps)
        x = x if kept is None else select_patches(x, kept)
        for piece in self.blocks:
            x = piece.block(x)
        project: Any = self.image_tower[-1]
        return project.norm(x[:, 0])

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Return the token numbers (n, context_length), int64, of texts, on the network's device.

        Raises:
            UserError: a text has more tokens than the context.
        """
        return self.outline.tokenize(texts).to(self.logit_scale.device)

    def without_padding(self, tokens: Tensor) -> Tensor:
        """Return the columns (n, m) of token numbers in which texts stand.

        The features of the texts are the same, because no token sees a later one. They take a
        fraction of the time: a prompt has some ten tokens, OpenAI's context has 77.
        """
        ends = tokens.argmax(dim=1)  # the end-of-text token has the highest number of all
        return tokens if self.text_tower.mask is None else tokens[:, : int(ends.max()) + 1]

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Return the features (n, d), not normalised and differentiable, of token numbers.

        They are (n, context_length), or shorter, as :meth:`without_padding` returns them.
        """
        return self.text_tower(tokens)

    def scale(self) -> Tensor:
        """Return what cosines are multiplied with to be logits."""
        return self.logit_scale.exp()


def plain_towers(model: Any, name: str) -> tuple[Any, Any]:
    """Return the image and the text tower of an open_clip model.

    Raises:
        UserError: a tower cannot be taken apart into pieces. The message names backbones that can.
    """
    transformer = open_clip_module("transformer")
    visual, text = model.visual, getattr(model, "text", model)
    pool = getattr(text, "pool_type", getattr(text, "text_pool_type", "argmax"))
    checks = {
        "its image tower is no ViT of open_clip's own": isinstance(visual, transformer.VisionTransformer),
        "its image tower pools by attention": getattr(visual, "attn_pool", None) is None,
        "its image tower does not end at the class token": getattr(visual, "pool_type", "tok") == "tok",
        "it takes images that are not square": _is_square(getattr(visual, "image_size", 0)),
        "its text tower is not open_clip's own": hasattr(text, "token_embedding")
        and getattr(text, "cls_emb", None) is None,
        "its text tower does not end at the end-of-text token": pool == "argmax",
        "its transformer blocks are changed ones": _has_plain_blocks(visual, transformer)
        and _has_plain_blocks(text, transformer),
    }
    wrong = next((reason for reason, fits in checks.items() if not fits), None)
    if wrong is not None:
        raise UserError(
            f"{name} cannot be taken apart: {wrong}; choose clip-vit-b-16, clip-vit-b-32, clip-vit-l-14 or clip-tiny"
        )
    return visual, text


def _is_square(size: Any) -> bool:
    return not isinstance(size, tuple) or size[0] == size[1]


def _has_plain_blocks(tower: nn.Module, transformer: Any) -> bool:
    blocks = getattr(getattr(tower, "transformer", None), "resblocks", [])
    return all(type(block) is transformer.ResidualAttentionBlock and block.attn.batch_first for block in blocks)
