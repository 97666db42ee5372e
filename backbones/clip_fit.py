"""Check whether weights belong to a CLIP.

Names and shapes are compared with those of open_clip's model. If they differ, the models that the
weights would fit are searched.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pmi_cl.backbones.open_clip_library import open_clip_module
from pmi_cl.errors import UserError

Shapes = Mapping[str, tuple[int, ...]]
NOT_WEIGHTS = {"input_resolution", "context_length", "vocab_size"}  # numbers in OpenAI's archives


def configuration(model: str) -> dict[str, Any]:
    """Return the configuration from which open_clip builds a model.

    Raises:
        UserError: the installed version of open_clip does not have the model.
    """
    config: dict[str, Any] | None = open_clip_module("factory").get_model_config(model)
    if config is None:
        version = open_clip_module().__version__
        raise UserError(f"open_clip {version} has no model {model}: choose another, or install a version that has it")
    return config


def new_model(model: str, quick_gelu: bool) -> Any:
    """Return open_clip's CLIP of that name with random weights.

    Raises:
        UserError: as :func:`configuration`.
    """
    return open_clip_module("model").CLIP(**{**configuration(model), "quick_gelu": quick_gelu})


def expected_shapes(model: str) -> dict[str, tuple[int, ...]]:
    """Return the shape of each parameter of open_clip's model. Nothing is allocated."""
    import torch

    with torch.device("meta"):
        return {name: tuple(value.shape) for name, value in new_model(model, False).state_dict().items()}


def as_open_clip(name: str) -> str:
    """Return a parameter's name in open_clip's CLIP.

    Models with a separate text tower write "text." before the names of that tower.
    """
    return name.removeprefix("text.")


def check_fit(shapes: Shapes, model: str, path: Path, others: Mapping[str, str]) -> None:
    """Refuse the tensors in ``path`` if they are not those of ``model``.

    Args:
        shapes: the shape of each tensor, by name.
        model: open_clip's name of the model.
        path: the file, for the error message.
        others: backbone -> its model. The message names the one that the weights fit.

    Raises:
        UserError: says what differs.
    """
    expected = expected_shapes(model)
    found = {as_open_clip(name): shape for name, shape in shapes.items() if name not in NOT_WEIGHTS}
    found |= {"logit_scale": expected["logit_scale"]} if "logit_scale" in found else {}  # a number, or a vector of one
    if found == expected:
        return
    if any(name.startswith("vision_model.") for name in found):
        raise UserError(
            f"{path} is in the form of the library transformers: give open_clip's file, open_clip_model.safetensors"
        )
    both = [name for name in expected if found.get(name, expected[name]) != expected[name]]
    differing = [f"{name} is {_shape_text(found[name])}, not {_shape_text(expected[name])}" for name in both]
    lacking = [f"it lacks {name}" for name in expected if name not in found]
    beyond = [f"it has {name}" for name in found if name not in expected]
    reasons = [*differing, *lacking, *beyond]
    more = f" and {len(reasons) - 1} more" if len(reasons) > 1 else ""
    fitting = next((other for other, name in others.items() if expected_shapes(name) == found), None)
    advice = f"its weights are those of --backbone {fitting}" if fitting else f"give weights of open_clip's {model}"
    prefix = _prefix_of(found, expected)
    if prefix is not None:
        advice = f"its names begin with '{prefix}': save the state dict of that part alone"
    raise UserError(f"{path} does not fit {model} ({reasons[0]}{more}); {advice}")


def _prefix_of(found: Iterable[str], expected: Iterable[str]) -> str | None:
    """Return what stands before the names of a network's parameters; None if they are not there.

    It is enough that one parameter of the image tower is found by the end of its name. Those of the
    text tower end as others do.
    """
    ends = ((name, own) for own in expected if own.startswith("visual.") for name in found)
    return next((name.removesuffix(own) for name, own in ends if name.endswith(f".{own}")), None)


def _shape_text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a number"
