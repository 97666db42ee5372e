"""Say what a CLIP's configuration tells before the network is built.

It is enough to refuse prompts and texts that do not fit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pmi_cl.backbones.open_clip_library import open_clip_module
from pmi_cl.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

Tokenizer = Callable[[list[str], int], "Tensor"]  # (texts, length) -> token numbers (n, length), longer texts cut


@dataclass(frozen=True)
class ClipOutline:
    """A CLIP without its weights.

    Attributes:
        name: what users call the backbone.
        width: the width of the image tower.
        context_length: the most tokens of a text, its start and end included.
        tokenizer: makes token numbers of texts.
        grid: the side of the map of patches, in patches.
        feature_dim: the width of the space that images and texts share.
        image_size: the side of an image, in pixels.
    """

    name: str
    width: int
    context_length: int
    tokenizer: Tokenizer = field(compare=False)
    grid: int
    feature_dim: int
    image_size: int

    @classmethod
    def of(cls, name: str, config: Mapping[str, Any], tokenizer: Tokenizer) -> ClipOutline:
        """Return the outline of an open_clip model.

        ``config`` is its configuration in open_clip's own form.
        """
        parts = open_clip_module("model")
        vision, text = parts.CLIPVisionCfg(**config["vision_cfg"]), parts.CLIPTextCfg(**config["text_cfg"])
        sides = [size[0] if isinstance(size, tuple | list) else size for size in (vision.image_size, vision.patch_size)]
        grid, feature_dim = sides[0] // sides[1], int(config["embed_dim"])
        return cls(name, int(vision.width), int(text.context_length), tokenizer, grid, feature_dim, sides[0])

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Return the token numbers (n, context_length), int64, of texts.

        Raises:
            UserError: a text has more tokens than the context.
        """
        tokens = self.tokenizer([*texts, ""], self.context_length + 1)
        padding = tokens[-1, -1]  # the token after the end of a text
        for text, last in zip(texts, tokens[:-1, -1], strict=True):
            if last != padding:
                shown = text if len(text) <= 60 else f"{text[:57]}..."
                raise UserError(
                    f"the text '{shown}' is longer than the {self.context_length} tokens that {self.name} reads: "
                    "shorten it"
                )
        return tokens[:-1, :-1].long()
