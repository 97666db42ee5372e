"""Whole runs small enough for tests: any registered method on a few digits, by the real loop."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pmi_cl.backbones.resnet_cifar import ResNetCifar
from pmi_cl.datasets.continual_dataset import ContinualDataset
from pmi_cl.datasets.input_form import InputForm
from pmi_cl.models.continual_model import ContinualModel
from pmi_cl.models.host import NullHost
from pmi_cl.registry import catalogue
from pmi_cl.seeding import global_seed
from pmi_cl.utils.arguments.command_line import all_specs, resolve
from pmi_cl.utils.arguments.presets import presets_of
from pmi_cl.utils.records import checkpoints
from pmi_cl.utils.run.training import Training
from tests.support.small_clips import small_clip

METHODS = [entry.name for entry in catalogue.entries("model")]
CLIP_METHODS = [entry.name for entry in catalogue.entries("model") if entry.constants.get("BACKBONE_KIND") == "clip"]
RESNET_METHODS = [name for name in METHODS if name not in CLIP_METHODS]
# The smallest that users can name.
BACKBONE = {method: "clip-tiny" if method in CLIP_METHODS else "resnet20" for method in METHODS}

DATA = {"n_classes": 6, "n_tasks": 3, "train_per_class": 24}
# Whatever pmi_rdfcil can do besides.
EXTRAS = {
    "replay_augment": 1,
    "lambda_all": 0.5,
    "joint_batches": 1,
    "pmi_boost": 1,
    "pmi_prior": "bn_affine",
    "pmi_batch": 18,
    "inv_keep_best": 1,
    "inv_boost": 1,
    "feature_augment": 1,
    "train_stem": 0,
    "first_count": 1,
    "inv_colour": 1,
    "inv_roll": 1,
    "inv_noise": 0.1,
    "cont_optimizer": "adam",
    "cont_keep_best": 1,
}
# One set for all methods: what a method does not have is left out.
SIZES = {
    **DATA,
    "batch_size": 16,
    "n_epochs": 4,
    "classifier_part": 0.25,
    "buffer_images": 24,
    "buffer_size": 24,
    "inv_batch": 12,
    "inv_steps": 3,
    "pmi_steps": 2,
    "stem_steps": 2,
    "cont_epochs": 4,
    "generator_steps": 5,
    "generator_batch": 8,
    "generator_epochs": 1,
    "generator_critic_steps": 1,
    "generator_critic_width": 4,
    "prompt_template": "a {}.",
    "pool_size": 6,
    "samples_per_class": 3,
    "replay_batch": 8,
    "precision": "fp32",
    "num_threads": 1,
}
CLOCK = {"seconds", "seconds_per_image", "peak_memory_mib"}
CPU = torch.device("cpu")
HANDED = {"dataset", "transform", "args", "host"}

Place = tuple[int, str, int]  # task, phase, epoch


class Stopped(Exception):
    """A run was stopped at a safe point."""


class StoppingHost(NullHost):
    """A host that counts the safe points of each place of a run, and stops at chosen ones, each
    once.

    Attributes:
        passed: how many safe points of each place were passed.
        stops: (place, number of its safe point) to stop at.
    """

    def __init__(self, stops: set[tuple[Place, int]] | None = None) -> None:
        self.passed: Counter[Place] = Counter()
        self.stops = stops or set()
        self.training: Training | None = None

    def safe_point(self) -> None:
        """Count the safe point, and raise :class:`Stopped` if the run is to stop here."""
        assert self.training is not None
        position = self.training.position
        place = (position.task, position.phase, position.epoch)
        self.passed[place] += 1
        here = (place, self.passed[place])
        if here in self.stops:
            self.stops.remove(here)
            raise Stopped


def options_of(method: str) -> set[str]:
    """Return every flag that a run of the method on the digits takes."""
    return {spec.name for spec in all_specs(catalogue.find("model", method), catalogue.find("dataset", "seq-digits"))}


def words_of(method: str, dataset: str = "seq-digits", **flags: Any) -> list[str]:
    """Return the command line of a small run. Leave out flags that the method does not have."""
    known = options_of(method)
    smoke = {"model_config": "smoke"} if "smoke" in presets_of(method, catalogue.INSTALLED).presets else {}
    typed = {name: value for name, value in {**smoke, **SIZES, **flags}.items() if name in known}
    return [
        "--model",
        method,
        "--dataset",
        dataset,
        *(word for name, value in typed.items() for word in (f"--{name}", str(value))),
    ]


def start(
    method: str,
    host: NullHost | None = None,
    after_task: Callable[[], None] = lambda: None,
    device: torch.device = CPU,
    **flags: Any,
) -> Training:
    """Return a run that has not begun, with the smallest network that has every kind of block."""
    run = resolve(words_of(method, **flags))
    dataset = catalogue.load("dataset", run.dataset.name)(run.args, device)
    with global_seed(run.args.seed, "network"):
        network = new_network(method, dataset)
        model: ContinualModel = catalogue.load("model", method)(
            network, F.cross_entropy, run.args, dataset.augment, dataset
        )
    model.host = host or NullHost()
    training = Training(model, dataset, run.args, model.host, after_task)  # type: ignore[arg-type]
    if isinstance(host, StoppingHost):
        host.training = training
    return training


@functools.cache
def untouched(method: str) -> Training:
    """Return a run that has not begun, kept for all tests of a process. Do not change it."""
    return start(method)


def new_network(method: str, dataset: ContinualDataset) -> nn.Module:
    """Return the smallest network of the method's kind. Give the data set its form."""
    if method in RESNET_METHODS:
        return ResNetCifar((1, 1, 1, 1))
    network = small_clip()
    dataset.present_as(InputForm(network.image_size, network.mean, network.std))
    return network


def finished(method: str, **flags: Any) -> Training:
    """Return a run that has come to its end."""
    training = start(method, **flags)
    training.run()
    return training


def finished_in_pieces(
    method: str, folder: Path, stops: set[tuple[Place, int]], device: torch.device = CPU, **flags: Any
) -> tuple[Training, int]:
    """Stop a run at each of ``stops``, write it to a file, and go on with new objects.

    Return the finished run and how often it was stopped.
    """
    training = start(method, StoppingHost(set(stops)), device=device, **flags)
    pieces = 0
    while True:
        try:
            training.run()
            return training, pieces
        except Stopped:
            pieces += 1
            left = training.host.stops  # type: ignore[attr-defined]
            checkpoints.save(folder / "checkpoint.pt", {"training": training.state()})
            training = start(method, StoppingHost(left), device=device, **flags)
            training.load_state(checkpoints.load(folder / "checkpoint.pt", {})["training"])


def begin(training: Training, task: int) -> ContinualModel:
    """Begin a task by hand, as the loop does: the method stands before its first epoch."""
    model = training.model
    model.current_task = task
    model.grow()
    model.begin_task(training.shown)
    return model


def epochs(training: Training, task: int) -> Iterator[int]:
    """Train the epochs of a task by hand, as the loop does.

    The body runs before the end of each epoch.
    """
    model, dataset = training.model, training.shown
    for epoch in range(model.n_epochs()):
        model.begin_epoch(epoch, dataset)
        model.set_modes()
        for step, batch in enumerate(dataset.train_batches(task, epoch, model.options.batch_size)):
            model.observe(*batch, epoch=epoch, step=step)
        yield epoch
        model.end_epoch(epoch, dataset)


def train_task(training: Training, task: int) -> ContinualModel:
    """Begin a task and train it by hand, up to but not including ``end_task``."""
    model = begin(training, task)
    for _ in epochs(training, task):
        pass
    return model


def differences(one: Any, other: Any, where: str = "state") -> list[str]:
    """Return the places where two nested states differ, bit for bit. Ignore times and memory."""
    if isinstance(one, dict) and isinstance(other, dict):
        if one.keys() != other.keys():
            return [f"{where}: {sorted(map(str, one.keys() ^ other.keys()))}"]
        return [
            found for key in one if key not in CLOCK for found in differences(one[key], other[key], f"{where}.{key}")
        ]
    if isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        return [
            found
            for index, pair in enumerate(zip(one, other, strict=True))
            for found in differences(*pair, f"{where}[{index}]")
        ]
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return [] if one.dtype == other.dtype and torch.equal(one, other) else [where]
    return [] if type(one) is type(other) and one == other else [where]


def tensors_in(value: Any, seen: set[int] | None = None) -> Iterator[Tensor]:
    """Yield every tensor that can be reached from a state or an object.

    Follow the attributes of torch's and the package's objects, but leave out what a method is
    handed by the program that runs it: the data set, the host.
    """
    seen = set() if seen is None else seen
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_in(item, seen)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item, seen)
    elif type(value).__module__.startswith(("torch.", "pmi_cl.")) and hasattr(value, "__dict__"):
        yield from tensors_in({name: item for name, item in vars(value).items() if name not in HANDED}, seen)


def in_the_third_task(method: str, **flags: Any) -> tuple[Training, Any]:
    """Learn two tasks. The third stands in its first epoch.

    The network stands apart from its teacher.
    """
    training = start(method, **flags)
    for task in (0, 1):
        train_task(training, task).end_task(training.shown)
    model: Any = begin(training, 2)
    with torch.no_grad(), global_seed(0, "apart"):
        for parameter in model.net.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.begin_epoch(0, training.shown)
    model.set_modes()
    return training, model
