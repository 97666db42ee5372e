"""PMI + CFS on CODA-Prompt (Tong et al., NeurIPS 2025): composed prompts that replay inverted maps of the old classes.

The prompts are chosen by each image's query, so a map cannot be inverted without one. A second Gaussian of every class is kept, of its
images' queries, and every target feature comes with a query drawn from it, which is held fixed while the map is optimised ([INF], spec
3.10). In replay a map has its own query. See ``pmi_clip.py`` for the replay and ``coda_prompt.py`` for the prompts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pmi_cl.inversion.features.gaussians import ClassGaussians, fit_gaussians
from pmi_cl.models.clip.coda_prompt import CodaPrompt, CodaPromptOptions
from pmi_cl.models.clip.projected_task import ProjectedTask, ProjectedTaskOptions
from pmi_cl.models.inverting import taken_up
from pmi_cl.seeding import seeded


@dataclass(frozen=True)
class PmiCodapOptions(CodaPromptOptions, ProjectedTaskOptions):
    """CODA-Prompt's and the replay's."""


class PmiCodap(ProjectedTask, CodaPrompt):
    """CODA-Prompt with PMI + CFS: composed prompts, replay of inverted maps.

    Attributes:
        queries: the Gaussians of every seen class's queries.
    """

    NAME = "pmi_codap"
    Options = PmiCodapOptions
    options: PmiCodapOptions

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.queries: ClassGaussians | None = None

    def sample_targets(self, labels: Tensor) -> tuple[Tensor, Tensor | None]:
        """Draw a feature (n, d) and a query (n, width) for each label (n,)."""
        assert self.queries is not None
        features, _ = super().sample_targets(labels)
        return features, self.queries.sample(labels, seeded(self.args.seed, "queries", self.current_task))

    def keep_contexts(self, contexts: Tensor, labels: Tensor) -> None:
        """Fit the Gaussians of the new classes' queries."""
        new = fit_gaussians(contexts, labels, self.cpt)
        self.queries = new if self.queries is None else self.queries.followed_by(new)

    def state(self) -> dict[str, Any]:
        """Give the replay's, and the Gaussians of the queries."""
        return {**super().state(), "queries": self.queries and self.queries.state()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up :meth:`state`."""
        super().load_state(state)
        self.queries = taken_up(ClassGaussians, state["queries"], self.device)
