"""Makes pictures of a text by inverting a CLIP: PMI and then the whole model, beside the whole model alone for as much work (App. H)."""

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
class Arm:
    """One way to the pictures.

    Attributes:
        shots: (full-model steps done, images in [0, 1] (n, 3, h, w)), the first before the first step.
        work, losses: of every full-model step: step-equivalents spent up to it, PMI's counted in, and the loss.
        layers: PMI's losses, layer by layer.
        cosine: of the finished pictures' features and the text's, the mean, in float32 and without transforms.
    """

    name: str
    shots: list[tuple[int, Tensor]] = field(default_factory=list)
    work: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    layers: dict[str, list[float]] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    cosine: float = 0.0


class Studio:
    """The network, its statistics and the text: all that both arms share."""

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
        if batches:  # an image has no prior: it is not what a layer computes
            moments = [TokenMoments(None), *measure_token_moments(self.network.pieces(), batches)[1:]]
        self.precision = inversion_dtype(args.precision, device)
        self.tower = TokenNetwork(
            self.network.pieces(), moments, dtype=self.precision, device=device, unit_features=True
        )

    @property
    def config(self) -> InversionConfig:
        """The settings of the arm that starts with PMI."""
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

    def run(self, name: str, config: InversionConfig) -> Arm:
        """One arm from its start to its end."""
        side, arm = self.network.image_size, Arm(name)
        shape = (3, side, side)
        inversion = Inversion(
            Problem(
                self.tower, config, image_shape=shape, targets=self.targets, colour=self.colour, seed=self.args.seed
            )
        )
        wanted = set(torch.linspace(0, config.steps, self.args.pictures).round().int().tolist())
        for step in inversion.run():
            self.display.update(name, step.done, step.total, loss=step.loss)
            if step.stage == "full model":
                arm.work.append(inversion.report.step_equivalents)
                _note(arm, step, wanted, self)
        arm.layers = {entry["stage"]: entry["losses"].tolist() for entry in inversion.report.losses[:-1]}
        arm.losses = inversion.report.losses[-1]["losses"].tolist()
        arm.figures = inversion.report.summary()
        with torch.no_grad():
            features = F.normalize(self.network.features(inversion.images()), dim=-1)
        arm.cosine = float((features * self.targets).sum(1).mean())
        return arm

    def visible(self, images: Tensor) -> Tensor:
        """Normalised images as pictures in [0, 1]; only here they are clamped."""
        mean, std = (images.new_tensor(values).view(3, 1, 1) for values in (self.network.mean, self.network.std))
        return (images.detach() * std + mean).clamp(0, 1).cpu()


def _note(arm: Arm, step: InversionStep, wanted: set[int], studio: Studio) -> None:
    """Keeps the pictures of a full-model step that is ``wanted``, and what stood before the first."""
    if step.number == 1:
        arm.shots.append((0, studio.visible(step.first_images())))
    if step.number in wanted:
        arm.shots.append((step.number, studio.visible(step.images())))


def arms(studio: Studio) -> Iterator[Arm]:
    """PMI and then the whole model; the whole model alone from noise, for as many step-equivalents (a PMI sweep costs one)."""
    config = studio.config
    yield studio.run("PMI + full model", config)
    yield studio.run("full model alone", replace(config, start="noise", steps=config.steps + config.pmi.steps))


def check_machine(args: SimpleNamespace, catalogue: Catalogue) -> None:
    """Refuses what would stop the command before its first step. Raises UserError."""
    check_writable(Path(args.output).expanduser(), ROOM_MIB, flag="--output")
    pick_device(args.device)
    check_backbone(catalogue.find("backbone", args.backbone).load_module(), args)
    check_images(args, catalogue)


def text_to_image(args: SimpleNamespace, catalogue: Catalogue) -> None:
    """Writes ``pmi.png``, ``full.png``, ``losses.png`` and ``invert.json`` (the record, with the curves) into ``args.output``.

    Raises:
        UserError: the folder cannot be written to, the text is too long, weights or data are missing.
    """
    check_machine(args, catalogue)
    folder, device, display = Path(args.output).expanduser(), pick_device(args.device), Progress(args.progress)
    if args.num_threads:
        torch.set_num_threads(args.num_threads)
    studio = Studio(args, catalogue, device, display)
    if not studio.tower.taps:
        show("no statistics: without --data_dir or --dataset, the text and smoothness alone decide\n")
    done = list(arms(studio))
    folder.mkdir(parents=True, exist_ok=True)
    for arm, name in zip(done, ("pmi", "full"), strict=True):
        step_pictures.save_steps(folder / f"{name}.png", arm.shots, f'{arm.name}: "{args.prompt}"')
    curves = {arm.name: (arm.work, arm.losses) for arm in done}
    step_pictures.save_curves(
        folder / "losses.png", curves, "step-equivalents (PMI's counted in)", "loss through the whole model"
    )
    write_json(folder / RECORD, _record(args, studio, done), step_pictures.FLAG)
    for arm in done:
        work = arm.figures["step_equivalents"]
        show(
            f"{arm.name}: cosine {arm.cosine:.3f} with the text after {work:.0f} step-equivalents, {arm.figures['seconds']:.1f} s\n"
        )
    shown = f" (the first {MOST_ROWS} of {args.images} are shown)" if args.images > MOST_ROWS else ""
    show(f"pictures: {folder}{shown}\n")


def _record(args: SimpleNamespace, studio: Studio, done: list[Arm]) -> dict[str, Any]:
    told = [
        {
            "name": arm.name,
            "cosine": arm.cosine,
            "inversion": arm.figures,
            "shown_steps": [step for step, _ in arm.shots],
            "step_equivalents": arm.work,
            "losses": arm.losses,
            "pmi_losses": arm.layers,
        }
        for arm in done
    ]
    return {"schema": 1, "args": vars(args), "weights": studio.network.weights_record, "arms": told, **surroundings()}
