"""Train PMI + CFS on CODA-Prompt (Tong et al., NeurIPS 2025).

Composed prompts replay inverted maps of the old classes.

The prompts are chosen by each image's query, so a map cannot be inverted without one. A second
Gaussian of every class is kept, of its images' queries. Every target feature comes with a query
drawn from it, which is held fixed while the map is optimised ([INF]). In replay a map
has its own query. ``map_replay.py`` has the replay, ``coda_prompt.py`` the prompts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pmi_cl.inversion.features.gaussians import ClassGaussians, fit_gaussians
from pmi_cl.machine.state_fields import tensor_field
from pmi_cl.models.clip.coda_prompt import CodaPrompt, CodaPromptOptions
from pmi_cl.models.clip.map_inversion import Targets
from pmi_cl.models.clip.map_replay import MapReplay, MapReplayOptions
from pmi_cl.models.inverting import restored
from pmi_cl.models.statistics_classifier import StatisticsClassifier
from pmi_cl.models.storage import bytes_of
from pmi_cl.seeding import seeded


@dataclass(frozen=True)
class PmiCodapOptions(CodaPromptOptions, MapReplayOptions):
    """The flags of CODA-Prompt and of the replay."""


class MapAndQueryReplay(MapReplay):
    """The replay of inverted maps, each inverted with a query of its class.

    Attributes:
        queries: the Gaussians of the queries of every seen class.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.queries: ClassGaussians | None = None

    def sample_targets(self, labels: Tensor) -> Targets:
        """Select a feature for each label (n,) by CFS, and draw a query (n, width)."""
        assert self.queries is not None
        generator = seeded(self.method.args.seed, "queries", self.method.current_task)
        return super().sample_targets(labels)._replace(contexts=self.queries.sample(labels, generator))

    def keep_contexts(self, contexts: Tensor, labels: Tensor) -> None:
        """Fit the Gaussians of the queries of the new classes.

        Args:
            contexts: (n, width), the queries of the task's real images.
            labels: (n,), among the task's classes: from 0.
        """
        new = fit_gaussians(contexts, labels, self.method.cpt)
        self.queries = new if self.queries is None else self.queries.followed_by(new)

    def stored(self) -> dict[str, int]:
        """Return the bytes of the replay of maps; the Gaussians of the queries are statistics."""
        own = super().stored()
        return {**own, "statistics": own["statistics"] + bytes_of(self.queries)}

    def state(self) -> dict[str, Any]:
        """Return the state of the replay of maps, and the Gaussians of the queries."""
        return {**super().state(), "queries": self.queries and self.queries.state()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state` returned."""
        super().load_state(state)
        self.queries = restored(ClassGaussians, state["queries"], self.method.device)
        if self.queries is not None and self.gaussians is not None:
            tensor_field(self.queries.mean, len(self.gaussians), self.method.net.width)


class PmiCodap(StatisticsClassifier, CodaPrompt):
    """CODA-Prompt with PMI + CFS: composed prompts, replay of inverted maps."""

    NAME = "pmi_codap"
    Options = PmiCodapOptions
    REPLAY = MapAndQueryReplay
    options: PmiCodapOptions
