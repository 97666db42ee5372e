"""Train PMI + CFS on VPT (Tong et al., NeurIPS 2025).

Deep visual prompts replay inverted maps of the old classes.

Hard distillation on the maps is all that is done against forgetting; the text tower is frozen.
``map_replay.py`` has the replay, ``vpt.py`` the prompts.
"""

from __future__ import annotations

from dataclasses import dataclass

from pmi_cl.models.clip.map_replay import MapReplay, MapReplayOptions
from pmi_cl.models.clip.vpt import Vpt, VptOptions
from pmi_cl.models.statistics_classifier import StatisticsClassifier


@dataclass(frozen=True)
class PmiVptOptions(VptOptions, MapReplayOptions):
    """The flags of VPT and of the replay."""


class PmiVpt(StatisticsClassifier, Vpt):
    """VPT with PMI + CFS: deep visual prompts, replay of inverted maps."""

    NAME = "pmi_vpt"
    Options = PmiVptOptions
    REPLAY = MapReplay
    options: PmiVptOptions
