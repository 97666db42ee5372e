"""Decide which network and which weights the name of a CLIP backbone means.

The activation of the weights must be that of the network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pmi_cl.backbones.open_clip_library import open_clip_module
from pmi_cl.backbones.weight_files import EXTENSIONS
from pmi_cl.errors import UserError, unknown_name

MODELS = {"clip-vit-b-16": "ViT-B-16", "clip-vit-b-32": "ViT-B-32", "clip-vit-l-14": "ViT-L-14"}
QUICK = "-quickgelu"  # the ending of open_clip's models with QuickGELU
ACTIVATIONS = {True: "QuickGELU", False: "the exact GELU"}


@dataclass(frozen=True)
class Plan:
    """The network and the weights that were asked for.

    Attributes:
        backbone: its name as users type it.
        model: open_clip's name, without its ending for the activation.
        quick_gelu: whether the backbone's name or ``--clip_gelu`` demands QuickGELU. None: the
            activation of the weights is used.
        told: whether ``--clip_gelu`` or the ending of the name says so. A name without the ending
            may be a slip where open_clip has both networks.
        weights: as typed. None: the weights that belong to the backbone.
    """

    backbone: str
    model: str
    quick_gelu: bool | None
    told: bool
    weights: str | None

    @property
    def path(self) -> Path | None:
        """Return the file or folder that ``weights`` names, or None if they are a tag."""
        text = self.weights or ""
        path = Path(text)
        return path if text and (text.endswith(EXTENSIONS) or "/" in text or path.exists()) else None


def plan_of(args: SimpleNamespace) -> Plan:
    """Return the plan of a run.

    Raises:
        UserError: ``--clip_gelu`` contradicts the backbone's name.
    """
    named = args.backbone.removeprefix("clip:")
    model = MODELS.get(args.backbone, named.removesuffix(QUICK))
    demanded = None if args.backbone in MODELS else named.endswith(QUICK)
    asked = {"auto": None, "quick": True, "exact": False}[args.clip_gelu]
    if asked is not None and demanded is not None and asked != demanded:
        other = f"clip:{model}{QUICK if asked else ''}"
        raise UserError(
            f"--clip_gelu {args.clip_gelu}: {args.backbone} has {ACTIVATIONS[demanded]}; say --backbone {other}"
        )
    told = asked is not None or demanded is True
    return Plan(args.backbone, model, demanded if asked is None else asked, told, args.clip_weights)


def published(model: str) -> dict[str, Mapping[str, Any]]:
    """Return the weights that open_clip knows for a model.

    Each tag has its entry (url, hf_hub, mean, std, quick_gelu).
    """
    table = open_clip_module("pretrained")
    return {tag: table.get_pretrained_cfg(model, tag) for tag in table.list_pretrained_tags_by_model(model)}


def tag_of(plan: Plan) -> str:
    """Return the checked tag of the weights.

    If none was typed, it is that of OpenAI, if OpenAI trained the model.

    Raises:
        UserError: the model has no such tag, or none was typed and there are several.
    """
    tags = published(plan.model)
    if plan.weights is not None:
        tag = plan.weights.lower().replace("-", "_")
        if tag not in tags:
            raise unknown_name(f"weights of {plan.model}", plan.weights, [*tags, "random"])
        return tag
    fitting = [tag for tag, entry in tags.items() if plan.quick_gelu in (None, bool(entry.get("quick_gelu")))]
    if "openai" in fitting or len(fitting) == 1:
        return "openai" if "openai" in fitting else fitting[0]
    raise UserError(
        f"{plan.backbone} has no weights of its own: say --clip_weights with one of "
        f"{', '.join([*fitting, 'random'])} or a FILE"
    )


def decide_activation(plan: Plan, trained_with: bool | None, weights: str) -> bool:
    """Return whether the network is built with QuickGELU.

    OpenAI's weights, and some others, were trained with it. They load into a network with the exact
    GELU without an error, but its features are then wrong.

    Args:
        plan: what was asked for.
        trained_with: whether it was QuickGELU. None: unknown.
        weights: the name of the weights in an error message.

    Raises:
        UserError: the network that was asked for has another activation, or it is unknown which one
            it should have.
    """
    if trained_with is None and not plan.told and (plan.quick_gelu is None or _has_twin(plan.model)):
        whose = "(OpenAI's, MetaCLIP's, DFN's)"
        advice = f"add --clip_gelu quick {whose} or --clip_gelu exact"
        if plan.quick_gelu is not None:
            advice = f"say --backbone clip:{plan.model}{QUICK} {whose} or add --clip_gelu exact"
        raise UserError(f"{weights} do not say their activation: {advice}")
    if trained_with is None:
        return bool(plan.quick_gelu)
    if plan.quick_gelu is not None and plan.quick_gelu != trained_with:
        own = next((name for name, model in MODELS.items() if model == plan.model), None)
        right = " or ".join(filter(None, (f"clip:{plan.model}{QUICK if trained_with else ''}", own)))
        advice = "leave --clip_gelu out" if plan.backbone in MODELS else f"say --backbone {right}"
        both = (ACTIVATIONS[trained_with], ACTIVATIONS[plan.quick_gelu])
        raise UserError(f"{weights} were trained with {both[0]}, and the network asked for has {both[1]}: {advice}")
    return trained_with


def _has_twin(model: str) -> bool:
    """Return whether open_clip has the network with QuickGELU, too, under a name of its own."""
    return open_clip_module("factory").get_model_config(model + QUICK) is not None
