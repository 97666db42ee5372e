"""Evaluate CLIP without training (Radford et al., ICML 2021).

Classes are recognised by their names. This is the lower line of every CLIP table. The evaluation
takes the training prompt of the other methods by default, so that all rows of a table differ by
training alone. ``--eval_templates ensemble`` is usual for zero-shot results: PROOF's tables, which
PMI quotes, use the ensemble of the data set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pmi_cl.models.clip.clip_model import ClipModel
from pmi_cl.models.clip.clip_training_options import ClipOptions

if TYPE_CHECKING:
    from pmi_cl.datasets.continual_dataset import ContinualDataset


class ZsClip(ClipModel):
    """Zero-shot CLIP: classes are recognised by their names; nothing is trained."""

    NAME = "zsclip"
    Options = ClipOptions

    def n_epochs(self) -> int:
        """Train for no epoch: a task is only evaluated."""
        return 0

    def begin_task(self, dataset: ContinualDataset) -> None:
        """Make no optimiser: there is nothing to optimise."""
