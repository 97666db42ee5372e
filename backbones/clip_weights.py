"""Build a CLIP backbone with the weights that were asked for, and record which they are."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from pmi_cl.backbones.clip_fit import NOT_WEIGHTS, as_open_clip, check_fit, configuration, new_model
from pmi_cl.backbones.clip_outline import ClipOutline
from pmi_cl.backbones.clip_plan import MODELS, QUICK, Plan, decide_activation, plan_of, published
from pmi_cl.backbones.clip_sources import Source, check_reachable, fetch, find_source
from pmi_cl.backbones.open_clip_library import tokenizer_of
from pmi_cl.backbones.weight_files import check_file, read_state
from pmi_cl.machine.digests import digest_of

if TYPE_CHECKING:
    from pmi_cl.backbones.clip_network import ClipNetwork

RANDOM = "random"


def check_weights(args: SimpleNamespace, names: Mapping[str, str]) -> bool:
    """Refuse weights that cannot be used, before any work.

    They may be missing and impossible to fetch, damaged, unsafe, not finite, or made for another
    network or activation. A file that is here is read as the run will read it: whatever the run
    would refuse is refused now.

    Args:
        args: with ``backbone``, ``clip_weights``, ``clip_gelu``, ``base_path`` and ``offline``.
        names: backbone -> open_clip's model, for all backbones.

    Returns:
        Whether the network will be built with QuickGELU.

    Raises:
        UserError: the first thing that is wrong.
    """
    plan = plan_of(args)
    if plan.weights == RANDOM:
        return plan.quick_gelu is not False
    if plan.path is not None and not plan.path.is_dir():
        check_file(plan.path, published_by_openai)  # before open_clip is imported: that takes seconds
    source = find_source(plan, args)
    if source.path is not None:
        shapes = check_file(source.path, published_by_openai)
        if shapes is not None:  # of a header: what does not fit is refused before a large file is read
            check_fit(shapes, plan.model, source.path, names)
        state = read_state(source.path, published_by_openai)
        check_fit({name: tuple(value.shape) for name, value in state.items()}, plan.model, source.path, names)
    quick = decide_activation(plan, source.quick_gelu, _name_of(source))
    check_reachable(plan, source, args)
    return quick


def outline_of(args: SimpleNamespace) -> ClipOutline:
    """Return what is known of the network that ``args.backbone`` names before it is built.

    Raises:
        UserError: open_clip does not have it.
    """
    plan = plan_of(args)
    return ClipOutline.of(plan.backbone, configuration(plan.model), tokenizer_of(plan.model))


def load(args: SimpleNamespace, names: Mapping[str, str]) -> ClipNetwork:
    """Return the network that ``args.backbone`` names, with its weights, in evaluation mode.

    Random weights are drawn from torch's global numbers. Arguments and errors are those of
    :func:`check_weights`.
    """
    plan = plan_of(args)
    if plan.weights == RANDOM:
        return _network(
            plan, new_model(plan.model, plan.quick_gelu is not False), plan.quick_gelu is not False, {"tag": RANDOM}, {}
        )
    source = find_source(plan, args)
    path = source.path or fetch(plan, source, args)
    state = {
        as_open_clip(name): value
        for name, value in read_state(path, published_by_openai).items()
        if name not in NOT_WEIGHTS
    }
    check_fit({name: tuple(value.shape) for name, value in state.items()}, plan.model, path, names)
    quick = decide_activation(plan, source.quick_gelu, _name_of(source))
    model = new_model(plan.model, quick)
    state["logit_scale"] = state["logit_scale"].reshape(model.logit_scale.shape)
    model.load_state_dict(state)
    return _network(plan, model, quick, {"tag": source.tag, "file": path.name, "sha256": digest_of(path)}, source.entry)


def _network(
    plan: Plan, model: Any, quick: bool, record: Mapping[str, str | None], entry: Mapping[str, Any]
) -> ClipNetwork:
    from pmi_cl.backbones.clip_network import ClipNetwork

    whole = {**record, "model": plan.model + (QUICK if quick else "")}
    form = {key: entry[key] for key in ("mean", "std") if key in entry}
    return ClipNetwork(model, tokenizer_of(plan.model), name=plan.backbone, weights_record=whole, **form).eval()


def published_by_openai(digest: str) -> bool:
    """Return whether a file with this sha256 is an archive that OpenAI published.

    open_clip lists them.
    """
    urls = [published(model).get("openai", {}).get("url", "") for model in (*MODELS.values(), "ViT-L-14-336")]
    return any(digest in url.split("/") for url in urls)


def _name_of(source: Source) -> str:
    return f"the weights '{source.tag}'" if source.tag else f"the weights in {source.path}"
