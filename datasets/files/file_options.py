"""Declare the flags of data sets whose images are files."""

from __future__ import annotations

from dataclasses import dataclass

from pmi_cl.datasets.dataset_outline import DatasetOptions
from pmi_cl.options import option


@dataclass(frozen=True)
class FileOptions(DatasetOptions):
    """The flags of data sets whose images are files."""

    background: str | None = option(
        None,
        "colour that transparent images are laid on: a name, or #rrggbb; none: white",
        source="ours",
        role="protocol",
        binds="checkpoint",
    )
    on_bad_image: str = option(
        "refuse",
        "what an image that cannot be read does: refuse ends the run, skip leaves it out and lists it in results.json",
        source="ours",
        choices=("refuse", "skip"),
    )
