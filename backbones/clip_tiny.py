"""Build clip-tiny: a small CLIP for 16x16 pictures of digits and letters.

Its weights come with the package.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from pmi_cl.backbones.clip_network import ClipNetwork
from pmi_cl.backbones.clip_outline import ClipOutline
from pmi_cl.backbones.open_clip_library import open_clip_module
from pmi_cl.errors import UserError
from pmi_cl.machine.digests import digest_of
from pmi_cl.seeding import global_seed, seeded

BACKBONES = {"clip-tiny": "clip_tiny"}
KIND = "clip"
LACKS = {  # flags of other CLIP backbones, and why it does not have them
    "clip_weights": "the weights of clip-tiny come with the package; clip-vit-b-16 and the others take the flag",
    "clip_gelu": "the activation of clip-tiny is that of its weights, which come with the package",
}
CONFIG = Path(__file__).with_name("clip_tiny.json")  # open_clip's own form: model_cfg and preprocess_cfg
WEIGHTS = CONFIG.with_suffix(".safetensors")
SEED = 0  # of the parameters before training
TOKENS = "token_embedding"  # stored as .rows (k, width) and .numbers (k,), for the trained tokens only
TOKEN_STD = 0.02  # open_clip's initialisation of its token embedding


def clip_tiny(args: SimpleNamespace) -> ClipNetwork:
    """Small CLIP: 16x16 pixels, 4 layers of width 128, text width 64; no download.

    It learned from glyphs. The text tower has 2 layers.
    """
    model = open_clip_model()
    record = {"tag": "clip-tiny", "file": WEIGHTS.name, "sha256": digest_of(WEIGHTS)}
    form = read_config()["preprocess_cfg"]
    return ClipNetwork(model, _tokenizer(), name="clip-tiny", weights_record=record, mean=form["mean"], std=form["std"])


def outline(args: SimpleNamespace) -> ClipOutline:
    """Return what is known of the network before it is built."""
    return ClipOutline.of("clip-tiny", read_config()["model_cfg"], _tokenizer())


def _tokenizer() -> Any:
    """Return open_clip's tokenizer, which has OpenAI's vocabulary."""
    return open_clip_module("tokenizer").tokenize


def open_clip_model() -> Any:
    """Return open_clip's CLIP with the shipped weights, in evaluation mode.

    Raises:
        UserError: they are missing or damaged.
    """
    model = build(read_config())
    if not WEIGHTS.is_file():
        raise UserError(f"{WEIGHTS} is missing: install pmi-cl again")
    model.load_state_dict(_stored_parameters(model))
    return model.eval()


def read_config() -> dict[str, Any]:
    """Return the shipped configuration.

    Raises:
        UserError: it is missing.
    """
    if not CONFIG.is_file():
        raise UserError(f"{CONFIG} is missing: install pmi-cl again")
    config: dict[str, Any] = json.loads(CONFIG.read_text())
    return config


def build(config: dict[str, Any]) -> Any:
    """Return open_clip's CLIP of a configuration with its first parameters, in training mode.

    The parameters are the same each time.
    """
    with global_seed(SEED, "clip-tiny"):
        model: Any = open_clip_module("model").CLIP(**config["model_cfg"])
    table = model.token_embedding.weight
    with torch.no_grad():
        table.copy_(TOKEN_STD * torch.randn(table.shape, generator=seeded(SEED, TOKENS)))
    return model


def _stored_parameters(model: Any) -> dict[str, Tensor]:
    """Return the shipped parameters as float32.

    Tokens that training never saw keep the row with which they were drawn.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        stored = {
            name: value.float() if value.is_floating_point() else value for name, value in load_file(WEIGHTS).items()
        }
    except SafetensorError as error:
        raise UserError(f"{WEIGHTS} is damaged ({error}): install pmi-cl again") from error
    table: Tensor = model.token_embedding.weight.detach().clone()
    table[stored.pop(f"{TOKENS}.numbers").long()] = stored.pop(f"{TOKENS}.rows")
    return {**stored, f"{TOKENS}.weight": table}
