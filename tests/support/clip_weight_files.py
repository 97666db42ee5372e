"""Files of CLIP weights for tests: tiny models that open_clip is made to know, and what loading
says.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from pmi_cl.backbones import clip_fit, clip_weights
from pmi_cl.backbones.clip_network import ClipNetwork
from pmi_cl.backbones.clip_weights import check_weights
from pmi_cl.errors import UserError
from tests.support.small_clips import TEXT, VISION

ROOT = Path(__file__).resolve().parents[2]
TINY, OTHER, PLAIN, TWIN = "Tiny-Test", "Other-Test", "Plain-Test", "Twin-Test"  # open_clip has TWIN-quickgelu, too
NAMED = {f"clip:{name}": name for name in (OTHER, TINY, PLAIN, TWIN)}
CONFIGS: dict[str, Any] = {
    TINY: {"embed_dim": 16, "vision_cfg": VISION, "text_cfg": TEXT},
    OTHER: {"embed_dim": 16, "vision_cfg": {**VISION, "patch_size": 8, "layers": 3}, "text_cfg": TEXT},
    PLAIN: {"embed_dim": 8, "vision_cfg": VISION, "text_cfg": TEXT},
    TWIN: {"embed_dim": 24, "vision_cfg": VISION, "text_cfg": TEXT},
    f"{TWIN}-quickgelu": {"embed_dim": 24, "vision_cfg": VISION, "text_cfg": TEXT, "quick_gelu": True},
}
TAGS = {
    "openai": {"url": f"http://127.0.0.1:9/{'0' * 64}/tiny.pt", "hf_hub": "someone/tiny.openai/", "quick_gelu": True},
    "laion_e1": {"url": "http://127.0.0.1:9/tiny-laion_e1.pt", "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)},
}


def args_of(weights: str | Path | None, backbone: str = "clip-tiny-test", **changes: Any) -> SimpleNamespace:
    """Return the arguments of a run with these weights."""
    given = {
        "backbone": backbone,
        "clip_weights": weights and str(weights),
        "clip_gelu": "auto",
        "base_path": "data",
        "offline": True,
    }
    return SimpleNamespace(**given | changes)


def state_of(model: str = TINY, seed: int = 1) -> dict[str, Tensor]:
    """Return the state dict of a model with random weights."""
    torch.manual_seed(seed)
    return clip_fit.new_model(model, False).state_dict()


def written(path: Path, content: Any = None, model: str = TINY) -> Path:
    """Write a file of weights, as safetensors or by torch.save after its ending.

    Without content, write random weights.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    content = state_of(model) if content is None else content
    if path.suffix == ".safetensors":
        save_file(content, path)
    else:
        torch.save(content, path)
    return path


def loaded(args: SimpleNamespace) -> ClipNetwork:
    """Check the weights of a run and load them."""
    check_weights(args, NAMED)
    return clip_weights.load(args, NAMED)


def refusal(args: SimpleNamespace) -> str:
    """Return the error of a run that is refused before any work."""
    with pytest.raises(UserError) as caught:
        check_weights(args, NAMED)
    return str(caught.value)


def late_refusal(args: SimpleNamespace) -> str:
    """Return the error of a run whose weights have to be read before they can be refused."""
    with pytest.raises(UserError) as caught:
        loaded(args)
    return str(caught.value)


def is_quick(network: ClipNetwork) -> bool:
    """Return whether all blocks of both towers have the activation QuickGELU."""
    return all(type(block.block.mlp.gelu).__name__ == "QuickGELU" for block in [*network.blocks, *network.text_blocks])


def holds(network: ClipNetwork, state: dict[str, Tensor]) -> bool:
    """Return whether the first and the last parameters are those of the state dict."""
    conv, projection = network.image_tower[0].conv.weight, network.text_tower.projection  # type: ignore[union-attr]
    return torch.equal(conv, state["visual.conv1.weight"].float()) and torch.equal(
        projection, state["text_projection"].float()
    )  # type: ignore[arg-type]
