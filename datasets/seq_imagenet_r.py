"""Present ImageNet-R, class-incremental: renditions of 200 ImageNet classes.

They are paintings, toys, sketches and others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from pmi_cl.datasets.dataset_outline import DataArguments
from pmi_cl.datasets.files import imagenet_r_files as files
from pmi_cl.datasets.files.downloads import Download
from pmi_cl.datasets.files.listed_images import ListedImages, Listing, PublishedSplitOptions, refuse_other_split
from pmi_cl.errors import UserError
from pmi_cl.options import new_default, option, select


@dataclass(frozen=True)
class ImageNetROptions(PublishedSplitOptions):
    """The flags of ``seq-imagenet-r``."""

    class_order: str = new_default(
        "np1993",
        "PROOF, PMI's CLIP track",
        help="np1993, rdfcil0, natural, seed:<n>, or every class id separated by commas",
    )
    split: str = option(
        "coda",
        "coda: CODA-Prompt's lists (and Mammoth's); proof: PROOF's folders, PMI's figures are presumably on these; "
        "rapf: RAPF's list",
        choices=("coda", "proof", "rapf"),
        role="protocol",
        binds="checkpoint",
    )
    class_ids: str = option(
        "folders",
        "what a class id is: its folder's place (PROOF, PMI), or coda: CODA-Prompt's own numbers",
        choices=("folders", "coda"),
        role="protocol",
    )


class SeqImageNetR(ListedImages):
    """ImageNet-R: 200 classes, 30,000 images, 24,000 of them for training; fetched on first use.

    ``--split coda`` and ``--split rapf`` read ``<base_path>/imagenet-r/`` as the official archive
    holds it, with their lists beside it. ``--split proof`` reads it as PROOF's archive holds it. D.
    Hendrycks et al., The Many Faces of Robustness, ICCV 2021.
    """

    NAME = "seq-imagenet-r"
    N_CLASSES = 200
    N_TASKS = 10
    SIZE = (224, 224)
    TEMPLATES = (  # the seven of OpenAI's 80 that did best on ImageNet; PROOF uses them
        "itap of a {}.",
        "a bad photo of the {}.",
        "a origami {}.",
        "a photo of the large {}.",
        "a {} in a video game.",
        "art of the {}.",
        "a photo of the small {}.",
    )
    Options = ImageNetROptions

    @classmethod
    def downloads(cls, args: SimpleNamespace) -> Sequence[Download]:
        """Return the official archive and the lists.

        PROOF's archive cannot be fetched without a browser.
        """
        split, root = _options(args).split, _base_path(args) / files.FOLDER
        if split != "proof" and (root / "train").is_dir():
            raise UserError(
                f"{root} has PROOF's folders train/ and test/, which --split {split} is not for: use --split proof"
            )
        return {"coda": (files.ARCHIVE, *files.CODA_LISTS), "rapf": (files.ARCHIVE, files.RAPF_LIST), "proof": ()}[
            split
        ]

    @classmethod
    def listing(cls, args: SimpleNamespace) -> Listing:
        """Return the files of the split."""
        options, base_path = _options(args), _base_path(args)
        if options.split == "coda":
            return files.coda(base_path, own_ids=options.class_ids == "coda")
        if options.split == "rapf":
            return files.rapf(base_path)
        listing = files.proof(base_path)
        refuse_other_split(listing, files.PROOF_COUNTS, options.allow_other_split)
        return listing

    @property
    def prompt_names(self) -> list[str]:
        """Return the names as they are: published prompts keep the underscores."""
        return self.class_names


def _options(args: SimpleNamespace) -> ImageNetROptions:
    options = select(ImageNetROptions, vars(args))
    if options.class_ids == "coda" and options.split != "coda":
        raise UserError(
            f"--class_ids coda: only CODA-Prompt's lists have its numbers, not --split {options.split}; "
            "use --split coda"
        )
    return options


def _base_path(args: SimpleNamespace) -> Path:
    return Path(select(DataArguments, vars(args)).base_path)
