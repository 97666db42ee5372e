"""PMI + CFS on a CLIP (Tong et al., NeurIPS 2025, Alg. 4): what ``pmi_vpt``, ``pmi_codap`` and ``pmi_moe`` add to their baselines.

After each task the image features of its classes are kept as diagonal Gaussians, a contrastive network per class learns to spread them,
and the moments of every layer's input are pooled with those of the tasks before. Before the next task a few features of every old class
are selected (CFS) and the frozen image tower is inverted from them, layer by layer (PMI) and then as a whole, down to the output of the
patch convolution (the convolution itself loses too much, App. C.3). These maps are replayed beside the new images, with the logits that
the model of the task before gives them.

What deviates from the released code, and why (``docs/provenance.md``): statistics are per channel (theirs: per token; ``--inv_axis``);
CFS's correction of the moments ends at the stored mean; the teacher's logits are computed once, with the old texts and no gradient. The
maps are made before a task rather than after the one before: it is the same network, and none are made after the last.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from pmi_cl.backbones.clip_pieces import PatchConv, bare
from pmi_cl.errors import UserError
from pmi_cl.inversion.config import InversionConfig, Schedule, inversion_dtype
from pmi_cl.inversion.engine.engine import Inversion
from pmi_cl.inversion.engine.problem import Problem
from pmi_cl.inversion.features.gaussians import fit_gaussians
from pmi_cl.inversion.features.selection import SelectionConfig, balanced_labels, sample_few
from pmi_cl.inversion.networks.pieces import in_evaluation_mode
from pmi_cl.inversion.networks.token_network import TokenNetwork
from pmi_cl.inversion.networks.token_statistics import TokenMoments, measure_token_moments, pool_token_moments
from pmi_cl.inversion.objectives import DirectionalTV, FeatureMatch, StatisticsMatch
from pmi_cl.inversion.ways.buffer import SyntheticBuffer
from pmi_cl.inversion.ways.pmi import PmiConfig
from pmi_cl.inversion.ways.sparse import pruning_of
from pmi_cl.models.clip.clip_model import ClipModel, ClipTrainingOptions
from pmi_cl.models.continual_model import RunOutline
from pmi_cl.models.inverting import InversionMixin, SelectionOptions
from pmi_cl.models.training.losses import Factors, hard_distillation, loss_factors
from pmi_cl.options import option
from pmi_cl.seeding import mix, seeded

if TYPE_CHECKING:
    from pmi_cl.datasets.continual_dataset import ContinualDataset

MAP_VALUES = {
    "clip-tiny": 128 * 4 * 4,
    "clip-vit-b-32": 768 * 7 * 7,
    "clip-vit-b-16": 768 * 14 * 14,
    "clip-vit-l-14": 1024 * 16 * 16,
}
LARGEST_MAP = 1280 * 27 * 27  # ViT-H/14's at 378 pixels
FEATURES = {"clip-tiny": 128, "clip-vit-b-32": 512, "clip-vit-b-16": 512, "clip-vit-l-14": 768}
LARGEST_FEATURE = 1280


@dataclass(frozen=True)
class PmiClipOptions(SelectionOptions, ClipTrainingOptions):
    """The appendix's values (App. I.2); ``code`` in ``models/config`` has the released ones where they differ (docs/provenance.md).

    A method names its baseline's options before these: the baseline's values are the ones that count.
    """

    samples_per_class: int = option(
        5,
        "synthetic samples of each old class",
        unit="samples",
        low=1,
        high=100_000,
        source="PMI appendix I.2",
        memory="samples",
    )
    replay_batch: int = option(
        64,
        "synthetic samples of a step",
        unit="samples",
        low=1,
        high=1_000_000,
        source="PMI released code",
        memory="training",
    )
    lambda_ce: float = option(
        1.0,
        "weight of the local cross-entropy of later tasks, scaled task by task; the first task's is plain",
        low=0,
        source="PMI released code",
    )
    lambda_hkd: float = option(
        0.1, "weight of hard distillation on synthetic samples, scaled task by task", low=0, source="PMI appendix I.2"
    )

    task_factors: bool = option(
        True,
        "1: R-DFCIL's factors on those weights, by the numbers of classes; 0: none",
        source="PMI Eq. 23; 0: ours",
    )

    inversion: str = option(
        "pmi",
        "pmi: layer by layer, then the whole model; full: the whole model from noise; smi: as full, patches are dropped on the way",
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

    cfs_steps: int = option(5, "rounds of the selection", unit="rounds", low=1, high=100_000, source="PMI appendix I.2")
    cfs_boost: int = option(
        20, "select so many times the samples, keep some at random", low=1, high=100_000, source="PMI released code"
    )


class Recorder(nn.Module):
    """A piece on top of the others that keeps what reaches it."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Tensor] = []

    def forward(self, x: Tensor, context: Tensor | None = None, tap: object = None) -> Tensor:
        """``x`` as it is."""
        self.kept.append(x)
        return x


class PmiClip(InversionMixin, ClipModel):
    """The replay of inverted maps, on top of any CLIP method that trains modules of the image tower.

    Attributes:
        moments: of what enters each piece above the patch convolution, and of what its blocks show, pooled over the tasks.
    """

    options: PmiClipOptions

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.moments: list[TokenMoments] = []

    @classmethod
    def check(cls, args: SimpleNamespace, outline: RunOutline) -> None:
        """SMI needs statistics that do not depend on which tokens there are; grids become finer. Raises UserError."""
        super().check(args, outline)
        if list(args.pmi_grids) != sorted(set(args.pmi_grids)):
            raise UserError(
                f"--pmi_grids {','.join(map(str, args.pmi_grids))}: give them from the coarsest to the finest"
            )
        side = getattr(outline.network, "grid", 0)
        if side and args.pmi_grids and args.pmi_grids[-1] > side:
            fitting = ",".join(str(grid) for grid in args.pmi_grids if grid <= side) or "none"
            typed = ",".join(map(str, args.pmi_grids))
            raise UserError(
                f"--pmi_grids {typed}: the map of {args.backbone} is {side} x {side}: say --pmi_grids {fitting}"
            )
        if args.inversion == "smi" and args.inv_axis == "token":
            raise UserError(
                "--inversion smi drops tokens, and --inv_axis token keeps statistics of each: say --inv_axis channel"
            )

    @classmethod
    def samples_mib(cls, args: SimpleNamespace, dataset: type[ContinualDataset]) -> float:
        """The most that synthetic samples, finished and under way, will take, in MiB.

        They are the last task's maps; for the batch under way its iterate, the best one, Adam's two moments, start and target; and the
        classes' contrastive models.
        """
        n = args.samples_per_class * dataset.n_classes(args)
        models = 2 * FEATURES.get(args.backbone, LARGEST_FEATURE) ** 2 * dataset.n_classes(args) * args.cfs
        return 4 * (MAP_VALUES.get(args.backbone, LARGEST_MAP) * (n + 6 * min(n, args.inv_batch)) + models) / 2**20

    # Before a task: select features of the old classes, invert them.

    def begin_task(self, dataset: ContinualDataset) -> None:
        """Make synthetic maps of the old classes by the model of the task before; then extend it, and make a new optimiser."""
        with in_evaluation_mode([self.net, self.learned]):
            self.prepare()
        super().begin_task(dataset)

    def prepare(self) -> None:
        """Make what the task is replayed from, in evaluation mode. Goes on where a run was stopped."""
        if self.current_task > 0 and self.buffer is None and self.replays():
            self.prepare_replay()

    def replays(self) -> bool:
        """Whether any loss of the current task looks at synthetic samples of old classes."""
        return True

    def sample_labels(self) -> Tensor:
        """Give every old class ``samples_per_class`` times (n,), shuffled, so that a batch mixes classes."""
        n = self.n_past_classes * self.options.samples_per_class
        return balanced_labels(n, self.n_past_classes, seeded(self.args.seed, "labels", self.current_task)).to(
            self.device
        )

    def sample_targets(self, labels: Tensor) -> tuple[Tensor, Tensor | None]:
        """Select a feature (n, d) for each label (n,), and what the network needs beside it (n, dq), if anything."""
        o = self.options
        assert self.gaussians is not None
        config = SelectionConfig(o.cfs_ratio, o.cfs_steps, smallest=1)
        return sample_few(
            self.gaussians, labels, mix(self.args.seed, "replay", self.current_task), self.bank, config, o.cfs_boost
        ), None

    def inversion_config(self) -> InversionConfig:
        """Make the engine's settings from the options."""
        o = self.options
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
            precision=inversion_dtype(self.args.precision, self.device),
            compiled=self.args.compile,
        )

    def invertible(self, moments: list[TokenMoments], unit_features: bool = False) -> TokenNetwork:
        """Make a frozen copy of the image tower as it now is, above the patch convolution."""
        dtype = inversion_dtype(self.args.precision, self.device)
        return TokenNetwork(
            self.net.pieces()[1:], moments, dtype=dtype, device=self.device, unit_features=unit_features
        )

    def new_inversion(self, name: str, labels: Tensor, targets: Tensor, contexts: Tensor | None) -> Inversion:
        """Make the inversion of the image tower, down to maps (n, width, g, g), by the method that ``--inversion`` names."""
        return self.map_inversion(
            self.invertible(self.moments), self.inversion_config(), name, labels, targets, contexts
        )

    def map_inversion(
        self,
        network: TokenNetwork,
        config: InversionConfig,
        name: str,
        labels: Tensor,
        targets: Tensor,
        contexts: Tensor | None = None,
    ) -> Inversion:
        """Make an inversion down to maps of the patch convolution."""
        shape, seed = (self.net.width, self.net.grid, self.net.grid), mix(self.args.seed, name)
        return Inversion(
            Problem(network, config, image_shape=shape, targets=targets, labels=labels, contexts=contexts, seed=seed)
        )

    @torch.no_grad()
    def as_buffer(self, samples: Tensor, labels: Tensor, kept: Tensor | None, classes: range) -> SyntheticBuffer:
        """Keep maps (n, width, g, g) with what goes with them: contexts of their own, which do not change in the task, and the logits of
        ``classes`` by the model as it is."""
        logits, contexts = [], []
        with self.texts_held(classes):
            for rows in torch.arange(len(samples), device=samples.device).split(self.EVALUATION_BATCH):
                maps, looked_at = samples[rows], None if kept is None else kept[rows]
                context = self.context(maps, looked_at)
                logits.append(self.class_logits(self.features_of_maps(maps, context, looked_at), classes))
                contexts += [] if context is None else [context]
        return SyntheticBuffer(samples, labels, torch.cat(logits), torch.cat(contexts) if contexts else None, kept)

    def features_of_samples(self, samples: SyntheticBuffer) -> Tensor:
        """Features (b, d) of synthetic samples, each with its own context and the patches that were inverted."""
        return self.features_of_maps(samples.images, samples.contexts, samples.kept)

    def pictures(self, samples: Tensor) -> Tensor:
        """The images whose maps are nearest to the synthetic ones."""
        patches = self.net.pieces()[0]
        assert isinstance(patches, PatchConv)
        return patches.nearest_images(samples)

    # During a task.

    def distillation_weights(self) -> tuple[float, float]:
        """The base weights of the distillation of samples and of that of texts, in the current task."""
        return self.options.lambda_hkd, 0.0

    def factors(self) -> Factors:
        """The weights of the losses in the current task, by R-DFCIL's scheme or as they are; ``rkd`` is that of the texts' distillation."""
        o, (hkd, tkd) = self.options, self.distillation_weights()
        if not o.task_factors and self.n_past_classes:
            return Factors(o.lambda_ce, hkd, tkd, 0.0)
        return loss_factors(self.cpt, self.n_past_classes, o.lambda_ce, hkd, tkd, 0.0)

    def ce_factor(self) -> float:
        """Weigh the local cross-entropy: the less, the more old classes there are."""
        return self.factors().ce

    def extra_losses(self, features: Tensor, labels: Tensor, epoch: int, step: int) -> dict[str, Tensor]:
        """Give hard distillation on synthetic maps of the old classes, and what a method does with their features."""
        if self.buffer is None:
            return {}
        rows = self.buffer.rows(
            self.options.replay_batch, seeded(self.args.seed, "draw", self.current_task, epoch, step)
        )
        old = self.buffer.part(rows)
        old_features = self.features_of_samples(old)
        student = self.class_logits(old_features, range(self.n_past_classes))
        hkd = self.factors().hkd * hard_distillation(student, old.logits)
        return {"hkd": hkd, **self.text_losses(torch.cat([features, old_features]), torch.cat([labels, old.labels]))}

    def text_losses(self, features: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Give what a method with a trained text tower adds; ``features`` (n, d) and ``labels`` (n,) are of real and synthetic samples."""
        return {}

    # After a task: Gaussians and contrastive models of the new classes, statistics of all layers.

    def end_task(self, dataset: ContinualDataset) -> None:
        """Measure the task's real images by the model as it now is; what is known of older classes stays as it is (Alg. 4)."""
        with self.host.phase("statistics"), in_evaluation_mode([self.net, self.learned]):
            moments, features, labels, contexts = self.measured(dataset)
            new = fit_gaussians(features, labels, self.cpt)
            bank = self.contrastive_models(features, labels, self.cpt)
        if contexts is not None:
            self.keep_contexts(contexts, labels)
        self.moments = pool_token_moments([self.moments, moments]) if self.moments else moments
        self.gaussians = new if self.gaussians is None else self.gaussians.followed_by(new)
        self.bank = bank if self.bank is None or bank is None else self.bank.followed_by(bank, self.n_past_classes)
        self.buffer = None
        super().end_task(dataset)

    def keep_contexts(self, contexts: Tensor, labels: Tensor) -> None:
        """Keep what a method learns from the contexts (n, dq) of the task's real images, with their labels among the task's (n,)."""

    def measured(
        self, dataset: ContinualDataset, of_bare: bool = False
    ) -> tuple[list[TokenMoments], Tensor, Tensor, Tensor | None]:
        """Measure the task's real images in one pass: the moments of every piece above the patch convolution, features (n, d), labels among
        the task's (n,), contexts (n, dq) where there are any.

        Args:
            of_bare: by the image tower as it was before the method put anything into it, which needs no contexts.
        """
        labels: list[Tensor] = []
        contexts: list[Tensor] = []
        recorder = Recorder()

        def samples() -> Iterator[tuple[Tensor, Tensor | None]]:
            for maps, numbers in self.maps(dataset):
                context = None if of_bare else self.context(maps)
                labels.append(numbers)
                contexts.extend([] if context is None else [context])
                yield maps, context

        with bare(self.net.blocks) if of_bare else nullcontext():
            moments = measure_token_moments(
                [*self.net.pieces()[1:], recorder], samples(), cast(Any, self.options.inv_axis)
            )
        return moments[:-1], torch.cat(recorder.kept), torch.cat(labels), torch.cat(contexts) if contexts else None

    @torch.no_grad()
    def maps(self, dataset: ContinualDataset) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (maps (b, width, g, g), labels among the task's (b,)) of the task's real images."""
        for images, labels in dataset.plain_batches(self.current_task, batch_size=self.EVALUATION_BATCH):
            yield self.net.pieces()[0](images), labels - self.n_past_classes
            self.host.safe_point()

    # What a checkpoint holds.

    def state(self) -> dict[str, Any]:
        """Give the bases', and the moments of all layers."""
        return {**super().state(), "moments": [moments.state() for moments in self.moments]}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up :meth:`state`."""
        super().load_state(state)
        self.moments = [TokenMoments.from_state(entry, self.device) for entry in state["moments"]]
