"""List the CLIP backbones that a user can name.

They are OpenAI's three ViTs and every other plain ViT of open_clip.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

from pmi_cl.backbones.clip_options import ClipOptions

if TYPE_CHECKING:
    from pmi_cl.backbones.clip_network import ClipNetwork
    from pmi_cl.backbones.clip_outline import ClipOutline

BACKBONES = {
    "clip-vit-b-16": "clip_vit_b_16",
    "clip-vit-b-32": "clip_vit_b_32",
    "clip-vit-l-14": "clip_vit_l_14",
    "clip:NAME": "open_clip_vit",
}
KIND = "clip"
# What NAME can be: open_clip's models whose image tower can be taken apart into pieces and whose
# tokenizer comes with open_clip.
NAMES = (
    "ViT-S-32",
    "ViT-S-32-alt",
    "ViT-S-16",
    "ViT-S-16-alt",
    "ViT-M-32",
    "ViT-M-32-alt",
    "ViT-M-16",
    "ViT-M-16-alt",
    "ViT-B-32",
    "ViT-B-32-quickgelu",
    "ViT-B-32-256",
    "ViT-B-32-plus-256",
    "ViT-B-16",
    "ViT-B-16-quickgelu",
    "ViT-B-16-plus",
    "ViT-B-16-plus-240",
    "ViT-L-16",
    "ViT-L-16-320",
    "ViT-L-14",
    "ViT-L-14-quickgelu",
    "ViT-L-14-280",
    "ViT-L-14-336",
    "ViT-L-14-336-quickgelu",
    "ViT-H-16",
    "ViT-H-14",
    "ViT-H-14-quickgelu",
    "ViT-H-14-378",
    "ViT-H-14-378-quickgelu",
    "ViT-g-14",
    "ViT-bigG-14",
    "ViT-bigG-14-quickgelu",
    "ViT-e-14",
)
Options = ClipOptions


def clip_vit_b_16(args: SimpleNamespace) -> ClipNetwork:
    """CLIP ViT-B/16, the paper's: OpenAI's weights by default; images of 224 pixels."""
    return _load(args)


def clip_vit_b_32(args: SimpleNamespace) -> ClipNetwork:
    """CLIP ViT-B/32: a quarter of the tokens, OpenAI's weights by default."""
    return _load(args)


def clip_vit_l_14(args: SimpleNamespace) -> ClipNetwork:
    """CLIP ViT-L/14: 428 million parameters, OpenAI's weights by default."""
    return _load(args)


def open_clip_vit(args: SimpleNamespace) -> ClipNetwork:
    """Another plain ViT by open_clip's name for it, such as clip:ViT-B-16-plus-240."""
    return _load(args)


def check(args: SimpleNamespace) -> dict[str, str]:
    """Refuse weights before any work. Return the activation that the weights decide.

    Raises:
        UserError: they are missing and cannot be fetched, damaged, unsafe or not of this network.
    """
    from pmi_cl.backbones.clip_weights import check_weights

    return {"clip_gelu": "quick" if check_weights(args, _models()) else "exact"}


def outline(args: SimpleNamespace) -> ClipOutline:
    """Return what is known of the network before it is built.

    Raises:
        UserError: open_clip does not have it.
    """
    from pmi_cl.backbones.clip_weights import outline_of

    return outline_of(args)


def _load(args: SimpleNamespace) -> ClipNetwork:
    from pmi_cl.backbones.clip_weights import load

    return load(args, _models())


def _models() -> dict[str, str]:
    """Return open_clip's model of each backbone, those with names of their own first."""
    from pmi_cl.backbones.clip_plan import MODELS

    return {**MODELS, **{f"clip:{name}": name for name in NAMES}}
