"""Present a sequence of data sets that the user chooses, one task each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace

from pmi_cl.datasets.files.file_options import FileOptions
from pmi_cl.datasets.multi_domain import MultiDomain
from pmi_cl.options import new_default, option, select


@dataclass(frozen=True)
class MultiOptions(FileOptions):
    """The flags of ``seq-multi``."""

    class_order: str = new_default("natural", "", help="of the classes of each domain: natural, np1993, seed:<n> ...")
    domains: tuple[str, ...] = option(
        (),
        "data sets in the order of the tasks, separated by commas; seq-folder:DIR for a folder of images; required",
        role="protocol",
    )
    image_size: int | None = option(
        None,
        "side of the images as they are read; none: that of a CLIP, or the largest of the domains (a folder has 32)",
        unit="pixels",
        low=8,
        high=512,
        role="protocol",
        binds="checkpoint",
        memory="pixels",
    )


class SeqMulti(MultiDomain):
    """Data sets in a row, one task each: --domains seq-digits,seq-folder:DIR.

    Each brings its own images, size, class names, templates, normalisation and test images.
    """

    NAME = "seq-multi"
    Options = MultiOptions

    @classmethod
    def words(cls, args: SimpleNamespace) -> Sequence[str]:
        """Return the data sets that were typed."""
        return select(MultiOptions, vars(args)).domains
