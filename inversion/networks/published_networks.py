"""Takes networks of torchvision and timm apart whose children in order are not the network."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class _Tokens(nn.Module):
    """The lowest piece: images (b, c, h, w) to the class token and the patches (b, 1 + p, d)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.conv_proj, self.dropout = model.conv_proj, model.encoder.dropout
        self.class_token, self.pos_embedding = model.class_token, model.encoder.pos_embedding

    def forward(self, images: Tensor) -> Tensor:
        patches = self.conv_proj(images).flatten(2).transpose(1, 2)
        token = self.class_token.expand(patches.shape[0], -1, -1)
        return self.dropout(torch.cat([token, patches], dim=1) + self.pos_embedding)


class _ClassToken(nn.Module):
    """Tokens (b, t, d) to the class token (b, d)."""

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens[:, 0]


def transformer_cut(model: nn.Module) -> tuple[list[nn.Module], nn.Module] | None:
    """Return the pieces and the classifier of a network built as torchvision's ``vit_b_16``.

    They are the tokens, the blocks, and the last norm with the class token. Return None where the
    network has not the parts of one.
    """
    network: Any = model
    encoder: Any = getattr(network, "encoder", None)
    heads = getattr(network, "heads", None)
    parts = (network, "conv_proj"), (network, "class_token"), (encoder, "pos_embedding"), (encoder, "dropout")
    blocks = getattr(encoder, "layers", None)
    if not all(hasattr(owner, name) for owner, name in (*parts, (encoder, "ln"))):
        return None
    if not isinstance(blocks, nn.Sequential) or not isinstance(heads, nn.Sequential) or len(heads) == 0:
        return None
    top = nn.Sequential(encoder.ln, _ClassToken(), *list(heads)[:-1])
    return [_Tokens(network), *blocks, top], heads[-1]


class _TimmFeatures(nn.Module):
    """All of a network of timm below its classifier: images (b, c, h, w) to features (b, d)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        network: Any = self.model
        return network.forward_head(network.forward_features(images), pre_logits=True)


def timm_cut(model: nn.Module) -> tuple[list[nn.Module], nn.Module] | None:
    """Return a single piece and the classifier of a network with the methods of timm's.

    Return None where it has them not.
    """
    network: Any = model
    if not all(callable(getattr(model, name, None)) for name in ("forward_features", "forward_head", "get_classifier")):
        return None
    head = network.get_classifier()
    return ([_TimmFeatures(model)], head) if isinstance(head, nn.Linear) else None
