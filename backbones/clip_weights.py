"""Gives a CLIP its weights."""

from __future__ import annotations

from types import SimpleNamespace

from pmi_cl.backbones.clip_network import ClipNetwork
from pmi_cl.backbones.open_clip_library import open_clip_module
from pmi_cl.errors import UserError

MODELS = {"clip-vit-b-16": "ViT-B-16-quickgelu", "clip-vit-b-32": "ViT-B-32-quickgelu", "clip-vit-l-14": "ViT-L-14-quickgelu"}


def load(args: SimpleNamespace) -> ClipNetwork:
    """The network that ``args.backbone`` names, with the weights that ``args.clip_weights`` names."""
    if args.clip_weights != "random":
        raise UserError("only --clip_weights random is there yet")
    library, model = open_clip_module(), MODELS.get(args.backbone, args.backbone.removeprefix("clip:"))
    network = library.create_model(model, pretrained=None)
    record = {"name": args.backbone, "tag": "random", "file": None, "sha256": None}
    return ClipNetwork(network, library.get_tokenizer(model), name=args.backbone, weights_record=record)
