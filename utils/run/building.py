"""Prepare torch, and build a method with its network, from the arguments of a run."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from pmi_cl.machine.device import pick_device
from pmi_cl.machine.process_settings import for_training
from pmi_cl.seeding import global_seed

if TYPE_CHECKING:
    import torch

    from pmi_cl.datasets.continual_dataset import ContinualDataset
    from pmi_cl.models.continual_model import ContinualModel
    from pmi_cl.registry.catalogue import Entry
    from pmi_cl.utils.arguments.command_line import Resolved


def build_model(resolved: Resolved, dataset: ContinualDataset) -> ContinualModel:
    """Return the method with its network, initialised from the run's seed alone.

    Raises:
        UserError: the method cannot learn from the training images.
    """
    model = build_method(resolved, dataset)
    model.check_data(dataset)
    return model


def build_method(resolved: Resolved, dataset: ContinualDataset) -> ContinualModel:
    """Return what :func:`build_model` does, also where there is no training image."""
    import torch

    with global_seed(resolved.args.seed, "network"):
        backbone = build_backbone(resolved.backbone, resolved.args)
        if hasattr(backbone, "input_form"):
            dataset.present_as(backbone.input_form)
        loss = torch.nn.functional.cross_entropy
        model: ContinualModel = resolved.model.load()(backbone, loss, resolved.args, dataset.augment, dataset)
    return model


def build_backbone(entry: Entry, args: SimpleNamespace) -> Any:
    """Return the network of a catalogue's entry, initialised from torch's own generator.

    If it has options, it gets them.
    """
    factory = entry.load()
    return factory(args) if inspect.signature(factory).parameters else factory()


def prepare_torch(args: SimpleNamespace) -> torch.device:
    """Set memory, threads and, on a GPU, TF32 for what stays in float32.

    Return the device of the run.
    """
    import torch

    device = pick_device(args.device)
    for_training(args.compile)
    if args.num_threads:
        torch.set_num_threads(args.num_threads)
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = args.precision != "fp32"
    return device
