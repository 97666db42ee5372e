"""Make pictures of a text by inverting a CLIP in two ways (App. H).

One way is PMI followed by the whole model. The other is the whole model alone, for as much work.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pmi_cl.backbones.clip_network import ClipNetwork
from pmi_cl.inversion.config import InversionConfig, inversion_dtype
from pmi_cl.inversion.engine.engine import Inversion
from pmi_cl.inversion.engine.problem import Problem
from pmi_cl.inversion.engine.stages import InversionStep
from pmi_cl.inversion.networks.token_network import TokenNetwork
from pmi_cl.inversion.networks.token_statistics import TokenMoments, measure_token_moments
from pmi_cl.inversion.objectives import DirectionalTV, DirectionMatch, StatisticsMatch
from pmi_cl.inversion.parts.colour import Colour, channel_covariance
from pmi_cl.inversion.transforms import Transforms
from pmi_cl.inversion.ways.pmi import PmiConfig
from pmi_cl.machine.device import pick_device
from pmi_cl.machine.disk import check_writable
from pmi_cl.machine.terminal import show
from pmi_cl.models.inverting import state_of
from pmi_cl.registry.catalogue import Catalogue
from pmi_cl.seeding import global_seed
from pmi_cl.utils.commands.invert import step_pictures
from pmi_cl.utils.commands.invert.measured_images import check_images, measured_images
from pmi_cl.utils.commands.invert.options import MOST_ROWS, RECORD
from pmi_cl.utils.records.atomic import write_json
from pmi_cl.utils.records.surroundings import surroundings
from pmi_cl.utils.run.preflight import check_backbone
from pmi_cl.utils.run.progress import Progress

ROOM_MIB = 16


@dataclass
class TextPictures:
    """The pictures that one of the two ways makes, and what they cost.

    Attributes:
        name: the name of the way.
        shots: (full-model steps done, images in [0, 1] (n, 3, h, w)). The first is before any step.
        work: step-equivalents up to each full-model step, those of PMI included.
        losses: the loss of each full-model step.
        layers: the losses of PMI by layer.
        figures: the summary of the inversion.
        cosine: mean cosine of the features of the finished pictures and of the text, in float32 and
            without transforms.
    """

    name: str
    shots: list[tuple[int, Tensor]] = field(default_factory=list)
    work: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    layers: dict[str, list[float]] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    cosine: float = 0.0


class TextInverter:
    """The network, its statistics and the text. Both ways share them."""

    def __init__(self, args: SimpleNamespace, catalogue: Catalogue, device: torch.device, display: Progress) -> None:
        self.args, self.display = args, display
        with global_seed(args.seed, "network"):
            self.network: ClipNetwork = (
                catalogue.load("backbone", args.backbone)(args).to(device).eval().requires_grad_(False)
            )
        with torch.no_grad():
            text = F.normalize(self.network.encode_text(self.network.tokenize([args.prompt])), dim=-1)
        self.targets = text.expand(args.images, -1)
        batches = list(measured_images(args, catalogue, self.network.input_form, device, display.update))
        self.colour = Colour.of(channel_covariance(batches)[0]) if batches else None
        moments: list[TokenMoments] = []
        if batches:  # an image has no prior, because no layer computes it
            moments = [TokenMoments(None), *measure_token_moments(self.network.pieces(), batches)[1:]]
        self.precision = inversion_dtype(args.precision, device)
        self.tower = TokenNetwork(
            self.network.pieces(), moments, dtype=self.precision, device=device, unit_features=True
        )

    @property
    def config(self) -> InversionConfig:
        """Return the settings of the way that starts with PMI."""
        args, side = self.args, self.network.image_size
        roll = side // 16 if args.roll is None else args.roll
        return InversionConfig(
            start="pmi",
            steps=args.steps,
            lr=args.lr,
            terms=(DirectionMatch(1.0), StatisticsMatch(args.statistics_weight), DirectionalTV(args.smoothness_weight)),
            transforms=Transforms(roll=roll, noise=args.noise),
            spectrum=args.spectrum,
            batch=args.images,
            pmi=PmiConfig(steps=args.pmi_steps, lr=args.lr, alpha=args.statistics_weight),
            precision=self.precision,
        )

    def run(self, name: str, config: InversionConfig) -> TextPictures:
        """Invert the text in one way, from start to end."""
        side, made = self.network.image_size, TextPictures(name)
        shape = (3, side, side)
        inversion = Inversion(
            Problem(
                self.tower, config, image_shape=shape, targets=self.targets, colour=self.colour, seed=self.args.seed
            )
        )
        wanted = set(torch.linspace(0, config.steps, self.args.pictures).round().int().tolist())
        for step in inversion.run():
            self.display.show(name, state_of(step))
            if step.stage == "full model":
                made.work.append(inversion.report.step_equivalents)
                _keep_pictures(made, step, wanted, self)
        made.layers = {entry["stage"]: entry["losses"].tolist() for entry in inversion.report.losses[:-1]}
        made.losses = inversion.report.losses[-1]["losses"].tolist()
        made.figures = inversion.report.summary()
        with torch.no_grad():
            features = F.normalize(self.network.features(inversion.images()), dim=-1)
        made.cosine = float((features * self.targets).sum(1).mean())
        return made

    def visible(self, images: Tensor) -> Tensor:
        """Return normalised images as pictures in [0, 1], the only place where they are clamped."""
        mean, std = (images.new_tensor(values).view(3, 1, 1) for values in (self.network.mean, self.network.std))
        return (images.detach() * std + mean).clamp(0, 1).cpu()


def _keep_pictures(made: TextPictures, step: InversionStep, wanted: set[int], inverter: TextInverter) -> None:
    """Keep the pictures before the first full-model step, and after each one in ``wanted``."""
    if step.number == 1:
        made.shots.append((0, inverter.visible(step.first_images())))
    if step.number in wanted:
        made.shots.append((step.number, inverter.visible(step.images())))


def both_ways(inverter: TextInverter) -> Iterator[TextPictures]:
    """Yield the pictures of PMI and the whole model, then those of the whole model from noise.

    Both take as many step-equivalents: a sweep of PMI costs one.
    """
    config = inverter.config
    yield inverter.run("PMI + full model", config)
    yield inverter.run("full model alone", replace(config, start="noise", steps=config.steps + config.pmi.steps))


def check_machine(args: SimpleNamespace, catalogue: Catalogue) -> dict[str, Any]:
    """Refuse what would stop the command before its first step.

    Return the values of options that the backbone's weights decide.

    Raises:
        UserError: says what is wrong.
    """
    check_writable(Path(args.output), ROOM_MIB, flag="--output")
    pick_device(args.device)
    decided = check_backbone(catalogue.find("backbone", args.backbone).load_module(), args)
    check_images(args, catalogue)
    return decided


def text_to_image(args: SimpleNamespace, catalogue: Catalogue) -> None:
    """Write ``pmi.png``, ``full.png``, ``losses.png`` and ``invert.json`` into ``args.output``.

    ``invert.json`` is the record, with the curves.

    Raises:
        UserError: the folder cannot be written to, the text is too long, or weights or data are
            missing.
    """
    check_machine(args, catalogue)
    folder, device, display = Path(args.output), pick_device(args.device), Progress(args.progress)
    if args.num_threads:
        torch.set_num_threads(args.num_threads)
    inverter = TextInverter(args, catalogue, device, display)
    if not inverter.tower.taps:
        show("no statistics: without --data_dir or --dataset, the text and smoothness alone decide\n")
    done = list(both_ways(inverter))
    folder.mkdir(parents=True, exist_ok=True)
    for made, name in zip(done, ("pmi", "full"), strict=True):
        step_pictures.save_steps(folder / f"{name}.png", made.shots, f'{made.name}: "{args.prompt}"')
    curves = {made.name: (made.work, made.losses) for made in done}
    step_pictures.save_curves(
        folder / "losses.png", curves, "step-equivalents (PMI's counted in)", "loss through the whole model"
    )
    write_json(folder / RECORD, _record(args, inverter, done), step_pictures.FLAG)
    for made in done:
        cost = f"{made.figures['step_equivalents']:.0f} step-equivalents, {made.figures['seconds']:.1f} s"
        show(f"{made.name}: cosine {made.cosine:.3f} with the text after {cost}\n")
    shown = f" (the first {MOST_ROWS} of {args.images} are shown)" if args.images > MOST_ROWS else ""
    show(f"pictures: {folder}{shown}\n")


def _record(args: SimpleNamespace, inverter: TextInverter, done: list[TextPictures]) -> dict[str, Any]:
    entries = [
        {
            "name": made.name,
            "cosine": made.cosine,
            "inversion": made.figures,
            "shown_steps": [step for step, _ in made.shots],
            "step_equivalents": made.work,
            "losses": made.losses,
            "pmi_losses": made.layers,
        }
        for made in done
    ]
    return {
        "schema": 1,
        "args": vars(args),
        "weights": inverter.network.weights_record,
        "arms": entries,
        **surroundings(),
    }
