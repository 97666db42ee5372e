"""Invert the image tower of a CLIP down to maps of the patch convolution.

The statistics that this needs are measured here, too.

The maps stand for images: the convolution itself loses too much (PMI App. C.3). PMI goes layer by
layer and then through the whole tower; ``full`` and ``smi`` are what it is compared with (App. F).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from pmi_cl.backbones.clip_pieces import PatchConv, bare
from pmi_cl.inversion.config import InversionConfig, Schedule, inversion_dtype
from pmi_cl.inversion.engine.engine import Inversion
from pmi_cl.inversion.engine.problem import Problem
from pmi_cl.inversion.networks.token_network import TokenNetwork
from pmi_cl.inversion.networks.token_statistics import TokenMoments, measure_token_moments
from pmi_cl.inversion.objectives import DirectionalTV, FeatureMatch, StatisticsMatch
from pmi_cl.inversion.ways.buffer import SyntheticBuffer
from pmi_cl.inversion.ways.pmi import PmiConfig
from pmi_cl.inversion.ways.sparse import pruning_of
from pmi_cl.models.inverting import InversionRunner
from pmi_cl.options import option
from pmi_cl.seeding import mix

if TYPE_CHECKING:
    from pmi_cl.datasets.continual_dataset import ContinualDataset
    from pmi_cl.models.clip.clip_model import ClipModel


@dataclass(frozen=True)
class MapInversionOptions:
    """The flags of the inversion. The values are the appendix's (App. I.2).

    ``code`` in ``models/config`` has the released ones where they differ (docs/provenance.md).
    """

    inversion: str = option(
        "pmi",
        "pmi: layer by layer, then the whole model; full: the whole model from noise; "
        "smi: as full, patches are dropped on the way",
        choices=("pmi", "full", "smi"),
        source="PMI appendix F",
    )
    inv_batch: int = option(
        20,
        "samples that are inverted together",
        unit="samples",
        low=1,
        high=10_000_000,
        source="PMI released code (PMI: 40)",
        memory="inversion",
    )
    pmi_steps: int = option(200, "steps of each layer", unit="steps", low=1, high=1_000_000, source="PMI appendix I.2")
    pmi_lowest_steps: int | None = option(
        None,
        "steps of the lowest layer; none: as many",
        unit="steps",
        low=1,
        high=1_000_000,
        source="PMI appendix I.2; code: 1200",
    )
    pmi_grids: tuple[int, ...] = option(
        (), "resolutions of the lowest layer's map, one after the other", low=1, high=64, source="code: 2, 4, 8, 14"
    )
    pmi_lr: float = option(0.1, "Adam's rate of each layer", above=0, source="PMI appendix I.2")
    pmi_alpha: float = option(
        0.002, "weight of the statistics of each layer", low=0, source="PMI appendix I.2; code: 15 times as much"
    )
    inv_steps: int = option(
        600, "steps of the whole model after PMI", unit="steps", low=1, high=1_000_000, source="PMI appendix I.2"
    )
    full_steps: int = option(
        3400, "steps of the inversion full", unit="steps", low=1, high=1_000_000, source="PMI appendix F"
    )
    smi_steps: int = option(
        4000, "steps of the inversion smi", unit="steps", low=5, high=1_000_000, source="PMI appendix F"
    )
    full_start: str = option(
        "noise",
        "where full and smi start: white noise, or noise with the moments of real maps, a control",
        choices=("noise", "stats"),
        source="PMI appendix F",
    )
    inv_lr: float = option(
        0.1, "Adam's rate through the whole model", above=0, source="PMI appendix I.2; code: 0.01, CUB-200: 0.02"
    )
    inv_schedule: str = option(
        "constant", "course of inv_lr", choices=("constant", "cosine"), source="PMI appendix I.2; code: cosine"
    )
    inv_schedule_steps: int | None = option(
        None,
        "steps of the whole inv_schedule; none: those that are taken",
        unit="steps",
        low=1,
        high=1_000_000,
        source="code: 2000",
    )
    inv_alpha: float = option(
        0.002, "weight of the statistics through the whole model", low=0, source="PMI appendix I.2; CUB-200: 0.2"
    )
    inv_tv: float = option(0.005, "weight of the total variation of the map", low=0, source="PMI appendix C.3, I.2")
    inv_axis: str = option(
        "channel",
        "statistics are of each channel, or each token",
        choices=("channel", "token"),
        source="code: token",
        binds="checkpoint",
    )


class Targets(NamedTuple):
    """What is to be inverted.

    Attributes:
        labels: (n,), the class of each sample, global.
        features: (n, d), the features that the samples should have.
        contexts: (n, dq), what goes with each feature into the network, if anything does.
    """

    labels: Tensor
    features: Tensor
    contexts: Tensor | None = None


class MapInverter:
    """Makes synthetic maps for a method on a CLIP.

    Attributes:
        method: gives the towers, the options and the host.
        runner: carries out the inversions.
    """

    def __init__(self, method: ClipModel) -> None:
        self.method, self.options = method, cast(Any, method.options)
        self.runner = InversionRunner(method)

    def config(self) -> InversionConfig:
        """Return the engine's settings from the options."""
        o, args = self.options, self.method.args
        steps = {"pmi": o.inv_steps, "full": o.full_steps, "smi": o.smi_steps}[o.inversion]
        return InversionConfig(
            start="pmi" if o.inversion == "pmi" else cast(Any, o.full_start),
            steps=steps,
            lr=o.inv_lr,
            schedule=cast(Schedule, o.inv_schedule),
            schedule_steps=o.inv_schedule_steps if o.inversion == "pmi" else None,
            terms=(FeatureMatch(), StatisticsMatch(o.inv_alpha), DirectionalTV(o.inv_tv)),
            batch=o.inv_batch,
            pmi=PmiConfig(
                o.pmi_steps,
                o.pmi_lr,
                o.pmi_alpha,
                last_at_lowest=True,
                lowest_steps=o.pmi_lowest_steps,
                grids=tuple(o.pmi_grids),
            ),
            pruning=pruning_of(steps) if o.inversion == "smi" else None,
            precision=inversion_dtype(args.precision, self.method.device),
            compiled=args.compile,
        )

    def network(self, moments: list[TokenMoments], unit_features: bool = False) -> TokenNetwork:
        """Return a frozen copy of the image tower as it is now, above the patch convolution.

        Args:
            moments: of what enters each piece of it.
            unit_features: whether features are normalised before they are compared.
        """
        dtype = inversion_dtype(self.method.args.precision, self.method.device)
        pieces = self.method.net.pieces()[1:]
        return TokenNetwork(pieces, moments, dtype=dtype, device=self.method.device, unit_features=unit_features)

    @property
    def map_shape(self) -> tuple[int, int, int]:
        """Return the shape (width, g, g) of a sample."""
        net = self.method.net
        return net.width, net.grid, net.grid

    @torch.no_grad()
    def form_of_moments(self, of_bare: bool = False) -> list[dict[str, Any]]:
        """Return the state of moments of this network, of one map of zeros: an example of its form.

        Args:
            of_bare: whether they are those of the image tower without the modules of the method.
        """
        method = self.method
        maps = torch.zeros(1, *self.map_shape, device=method.device)
        with bare(method.net.blocks) if of_bare else nullcontext():
            batch = (maps, None if of_bare else method.context(maps))
            moments = measure_token_moments(method.net.pieces()[1:], [batch], cast(Any, self.options.inv_axis))
        return [piece.state() for piece in moments]

    def invert(
        self,
        name: str,
        network: TokenNetwork,
        config: InversionConfig,
        targets: Targets,
        classes: range,
        rate: str = "inv_lr",
    ) -> SyntheticBuffer:
        """Invert targets through ``network``, or go on with the inversion that was saved.

        Args:
            name: what progress and records call it; it seeds the random numbers, too.
            network: see :meth:`network`.
            config: see :meth:`config`.
            targets: the features to invert.
            classes: the classes whose logits are kept with the samples.
            rate: the option that sets the rate of the full-model stage.
        """
        labels = targets.labels
        problem = Problem(
            network,
            config,
            image_shape=self.map_shape,
            targets=targets.features,
            labels=labels,
            contexts=targets.contexts,
            seed=mix(self.method.args.seed, name),
        )
        inversion = Inversion(problem)
        with self.method.host.phase("inversion"):
            maps = self.runner.run(name, inversion, rate)
            samples = self._as_samples(maps, labels, inversion.kept(), classes)
        self.runner.end(name, lambda rows: self._nearest_images(maps[rows]), labels)
        return samples

    @torch.no_grad()
    def _as_samples(self, maps: Tensor, labels: Tensor, kept: Tensor | None, classes: range) -> SyntheticBuffer:
        """Keep maps (n, width, g, g) with the logits of ``classes`` by the model as it is.

        If the maps have contexts of their own, these are kept, too: they do not change in a task.
        """
        method, logits, contexts = self.method, [], []
        with method.classifier.held(classes):
            for rows in torch.arange(len(maps), device=maps.device).split(method.EVALUATION_BATCH):
                some, looked_at = maps[rows], None if kept is None else kept[rows]
                context = method.context(some, looked_at)
                logits.append(method.class_logits(method.features_of_maps(some, context, looked_at), classes))
                contexts += [] if context is None else [context]
        return SyntheticBuffer(maps, labels, torch.cat(logits), torch.cat(contexts) if contexts else None, kept)

    def _nearest_images(self, maps: Tensor) -> Tensor:
        """Return the images (n, 3, h, w) whose maps are nearest to maps (n, width, g, g)."""
        patches = self.method.net.pieces()[0]
        assert isinstance(patches, PatchConv)
        return patches.nearest_images(maps)

    def features_of(self, samples: SyntheticBuffer) -> Tensor:
        """Return the features (b, d) of synthetic samples.

        Each is read with its own context; patches that were not inverted are not looked at.
        """
        return self.method.features_of_maps(samples.images, samples.contexts, samples.kept)


class Recorder(nn.Module):
    """A piece on top of the others that keeps what reaches it."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Tensor] = []

    def forward(self, x: Tensor, context: Tensor | None = None, tap: object = None) -> Tensor:
        """Keep and return ``x``."""
        self.kept.append(x)
        return x


class Measured(NamedTuple):
    """What one pass over the real images of a task measures.

    Attributes:
        moments: of the input of every piece above the patch convolution, and inside its blocks.
        features: (n, d), not normalised.
        labels: (n,), among the task's classes: from 0.
        contexts: (n, dq), where the method has them.
    """

    moments: list[TokenMoments]
    features: Tensor
    labels: Tensor
    contexts: Tensor | None


def measure_task(method: ClipModel, dataset: ContinualDataset, axis: str, of_bare: bool = False) -> Measured:
    """Measure the current task's real images in one pass.

    Args:
        method: in evaluation mode.
        dataset: gives the images.
        axis: "channel" or "token": statistics are per channel or per token.
        of_bare: whether to measure by the image tower without the modules of the method. It has no
            contexts.
    """
    labels: list[Tensor] = []
    contexts: list[Tensor] = []
    recorder = Recorder()

    def samples() -> Iterator[tuple[Tensor, Tensor | None]]:
        for maps, numbers in _real_maps(method, dataset):
            context = None if of_bare else method.context(maps)
            labels.append(numbers)
            contexts.extend([] if context is None else [context])
            yield maps, context

    with bare(method.net.blocks) if of_bare else nullcontext():
        moments = measure_token_moments([*method.net.pieces()[1:], recorder], samples(), cast(Any, axis))
    features = torch.cat(recorder.kept)
    return Measured(moments[:-1], features, torch.cat(labels), torch.cat(contexts) if contexts else None)


@torch.no_grad()
def _real_maps(method: ClipModel, dataset: ContinualDataset) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (maps (b, width, g, g), labels among the task's (b,)) of the task's real images."""
    for images, labels in dataset.plain_batches(method.current_task, batch_size=method.EVALUATION_BATCH):
        yield method.net.pieces()[0](images), labels - method.n_past_classes
        method.host.safe_point()
