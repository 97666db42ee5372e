"""Learn the last task without an image of it (PMI App. I.3).

Features of similar classes are turned as the texts turn, and inverted.

What is known for it comes from the bare CLIP, without the method's modules: Gaussians of the
features of the seen classes and the moments of its layers, both collected task by task. The
released code does it for MoE-Adapters on CIFAR-100 and ImageNet-R. How such a task is trained is in
:class:`pmi_cl.models.clip.task_plan.TaskWithoutImages`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from pmi_cl.backbones.clip_pieces import bare
from pmi_cl.errors import UserError
from pmi_cl.inversion.config import InversionConfig
from pmi_cl.inversion.features.gaussians import ClassGaussians, fit_gaussians
from pmi_cl.inversion.features.projection import projected_features
from pmi_cl.inversion.features.selection import balanced_labels
from pmi_cl.inversion.networks.pieces import in_evaluation_mode
from pmi_cl.inversion.networks.token_statistics import TokenMoments, pool_token_moments
from pmi_cl.inversion.objectives import FeatureMatch, StatisticsMatch
from pmi_cl.inversion.ways.buffer import SyntheticBuffer
from pmi_cl.machine.state_fields import same_form
from pmi_cl.models.clip.map_inversion import MapInverter, Targets, measure_task
from pmi_cl.models.inverting import refuse_unfit, restored
from pmi_cl.options import option
from pmi_cl.seeding import mix, seeded

if TYPE_CHECKING:
    from pmi_cl.datasets.continual_dataset import ContinualDataset
    from pmi_cl.models.clip.clip_model import ClipModel
    from pmi_cl.models.run_outline import RunOutline

BareStatistics = tuple[ClassGaussians, list[TokenMoments]]


@dataclass(frozen=True)
class ProjectedTaskOptions:
    """The flags of that task: the released code's values for CIFAR-100.

    ``models/config`` has those of ImageNet-R.
    """

    synthetic_last_task: bool = option(
        False,
        "1: learn the last task's classes from their texts and the classes before, without an image",
        source="PMI appendix I.3",
        binds="checkpoint",
    )
    projection_samples: int = option(
        20,
        "synthetic samples of each class of that task",
        unit="samples",
        low=1,
        high=100_000,
        source="PMI released code; ImageNet-R: 10",
    )
    projection_top: int = option(
        5, "seen classes whose features are turned for a new one", low=1, high=100_000, source="PMI appendix I.3"
    )
    projection_mix: float = option(
        0.1, "part of the text's own direction in a feature", low=0, high=1, source="PMI appendix I.3: alpha"
    )
    projection_statistics: float = option(
        0.02, "weight of the statistics in that inversion", low=0, source="PMI released code"
    )
    projection_epochs: int = option(
        1, "epochs of that task", unit="epochs", low=1, high=100_000, source="PMI released code; ImageNet-R: 5"
    )
    projection_repeats: int = option(
        10, "times that each sample is seen in an epoch", low=1, high=100_000, source="PMI released code"
    )
    projection_lr: float = option(0.0005, "AdamW's highest rate in that task", above=0, source="PMI released code")
    projection_inv_lr: float = option(0.1, "inv_lr of that inversion", above=0, source="PMI released code")
    projection_hkd: float = option(
        0.1,
        "lambda_hkd of that task",
        low=0,
        source="ours, as lambda_hkd; released for MoE-Adapters: 0, ImageNet-R: 0.05",
    )


class ProjectedTask:
    """The last task of a run, where it comes without images.

    Attributes:
        bare_gaussians: of the bare CLIP's features of every seen class. They and the moments are
            kept only where the last task needs them.
        bare_moments: of the bare CLIP's layers, pooled over the tasks.
        samples: the synthetic samples of the last task's classes.
    """

    def __init__(self, method: ClipModel, inverter: MapInverter) -> None:
        self.method, self.inverter, self.options = method, inverter, inverter.options
        self.bare_gaussians: ClassGaussians | None = None
        self.bare_moments: list[TokenMoments] = []
        self.samples: SyntheticBuffer | None = None

    @classmethod
    def check(cls, args: SimpleNamespace, outline: RunOutline) -> None:
        """Raise UserError for a task without images that has none before it."""
        if args.synthetic_last_task and outline.n_tasks == 1:
            raise UserError("--synthetic_last_task 1 needs tasks before the last: give --n_tasks 2 or more")

    def is_current(self) -> bool:
        """Return whether the current task is learned without its images."""
        method = self.method
        return bool(self.options.synthetic_last_task) and method.current_task == method.dataset.N_TASKS - 1

    def prepare(self) -> None:
        """Project features to the new classes and invert them on the bare CLIP.

        Nothing is done if the samples exist already.
        """
        if self.samples is not None:
            return
        with self.method.host.phase("selection"):
            targets = self._project()
        with bare(self.method.net.blocks):
            network = self.inverter.network(self.bare_moments, unit_features=True)
        new = range(self.method.n_past_classes, self.method.n_seen_classes)
        name, rate = "new classes", "projection_inv_lr"
        self.samples = self.inverter.invert(name, network, self._config(), targets, new, rate)

    def _project(self) -> Targets:
        """Turn features of seen classes into features of the new ones, as their texts turn."""
        o, method, seed = self.options, self.method, self.method.args.seed
        seen = range(method.n_past_classes)
        new = range(method.n_past_classes, method.n_seen_classes)
        labels = balanced_labels(len(new) * o.projection_samples, len(new), seeded(seed, "new labels"))
        labels = labels.to(method.device)
        texts = method.classifier.texts.frozen(seen), method.classifier.texts.frozen(new)
        assert self.bare_gaussians is not None
        features = projected_features(
            self.bare_gaussians,
            *texts,
            labels,
            mix(seed, "projected"),
            top_k=o.projection_top,
            alpha=o.projection_mix,
        )
        return Targets(labels + method.n_past_classes, features)

    def _config(self) -> InversionConfig:
        """Return the settings of the old classes, with other statistics and no smoothness."""
        o, config = self.options, self.inverter.config()
        share = o.pmi_alpha / o.inv_alpha if o.inv_alpha else 1.0
        pmi = replace(config.pmi, alpha=share * o.projection_statistics)
        terms = (FeatureMatch(), StatisticsMatch(o.projection_statistics))
        return replace(config, lr=o.projection_inv_lr, terms=terms, pmi=pmi)

    def measure(self, dataset: ContinualDataset) -> BareStatistics | None:
        """Measure the current task's images by the bare CLIP; None where no task will need it."""
        method = self.method
        if not self.options.synthetic_last_task:
            return None
        with method.host.phase("statistics"), in_evaluation_mode([method.net, method.learned]):
            found = measure_task(method, dataset, self.options.inv_axis, of_bare=True)
        return fit_gaussians(found.features, found.labels, method.cpt), found.moments

    def keep(self, found: BareStatistics | None) -> None:
        """Keep what :meth:`measure` returned."""
        if found is None:
            return
        new, moments = found
        self.bare_gaussians = new if self.bare_gaussians is None else self.bare_gaussians.followed_by(new)
        self.bare_moments = pool_token_moments([self.bare_moments, moments]) if self.bare_moments else moments

    def state(self) -> dict[str, Any]:
        """Return the statistics of the bare CLIP and the samples."""
        return {
            "bare_gaussians": self.bare_gaussians and self.bare_gaussians.state(),
            "bare_moments": [moments.state() for moments in self.bare_moments],
            "new": self.samples and self.samples.state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state` returned; ``state`` may hold further keys."""
        device = self.method.device
        self.bare_gaussians = restored(ClassGaussians, state["bare_gaussians"], device)
        self.bare_moments = [TokenMoments.from_state(entry, device) for entry in state["bare_moments"]]
        self.samples = restored(SyntheticBuffer, state["new"], device)
        refuse_unfit(self.method, self.bare_gaussians, None, self.samples, self.inverter.map_shape)
        if self.bare_moments:
            same_form(state["bare_moments"], self.inverter.form_of_moments(of_bare=True))
