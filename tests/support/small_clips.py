"""Tiny CLIPs for tests, made of open_clip's own classes, and a tokenizer of letters."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pmi_cl.backbones.clip_network import ClipNetwork
from pmi_cl.backbones.open_clip_library import open_clip_module

LETTERS = " abcdefghijklmnopqrstuvwxyz0123456789.,'-"
START, END = len(LETTERS) + 1, len(LETTERS) + 2
VISION = {"image_size": 16, "patch_size": 4, "width": 32, "head_width": 8, "layers": 2}
TEXT = {"context_length": 24, "vocab_size": END + 1, "width": 24, "heads": 3, "layers": 2}


def letter_tokens(texts: list[str], length: int) -> Tensor:
    """Return one token for each letter and 0 after the end.

    Cut longer texts, as open_clip's tokenizer does.
    """
    rows = [[START, *(LETTERS.index(letter) + 1 for letter in text.lower()), END] for text in texts]
    rows = [row if len(row) <= length else [*row[: length - 1], END] for row in rows]
    return torch.tensor([row + [0] * (length - len(row)) for row in rows])


def small_open_clip(seed: int = 0, quick_gelu: bool = False, context_length: int = 24, **vision: Any) -> nn.Module:
    """Return a tiny CLIP of open_clip in evaluation mode.

    Every parameter is drawn, so that nothing cancels.
    """
    torch.manual_seed(seed)
    model: nn.Module = open_clip_module("model").CLIP(
        16, {**VISION, **vision}, {**TEXT, "context_length": context_length}, quick_gelu=quick_gelu
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def small_clip(seed: int = 0, **vision: Any) -> ClipNetwork:
    """Return a :class:`ClipNetwork` for 16-pixel images: 4 x 4 patches, two blocks of width 32, 16
    features.

    Its texts have 22 letters, or ``context_length`` less two.
    """
    return ClipNetwork(small_open_clip(seed, **vision), letter_tokens, name="small-clip").eval()
