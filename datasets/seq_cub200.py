"""Present CUB-200-2011, class-incremental: 200 species of birds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from pmi_cl.datasets.dataset_outline import DataArguments
from pmi_cl.datasets.files import cub_files
from pmi_cl.datasets.files.downloads import Download
from pmi_cl.datasets.files.listed_images import ListedImages, Listing, PublishedSplitOptions, refuse_other_split
from pmi_cl.options import new_default, option, select

ARCHIVE = Download(cub_files.URL, "md5:97eceeb196236b17998738112f37df78", "CUB_200_2011.tgz", cub_files.FOLDER)


@dataclass(frozen=True)
class CubOptions(PublishedSplitOptions):
    """The flags of ``seq-cub200``."""

    class_order: str = new_default(
        "np1993",
        "PROOF, PMI's CLIP track",
        help="np1993, rdfcil0, natural, seed:<n>, or every class id separated by commas",
    )
    split: str = option(
        "official",
        "official: 5,994 training images; proof: the folders cub/train and cub/test of PROOF, 9,430 training images",
        choices=("official", "proof"),
        role="protocol",
        binds="checkpoint",
    )


class SeqCub200(ListedImages):
    """CUB-200-2011: 200 species of birds, 11,788 images; fetched on first use.

    ``--split official`` reads ``<base_path>/CUB_200_2011/`` as the archive holds it. ``--split
    proof`` reads ``<base_path>/cub/{train,test}/``. Class ids are the numbers of the class folders
    less one. C. Wah, S. Branson, P. Welinder, P. Perona, S. Belongie, The Caltech-UCSD
    Birds-200-2011 Dataset, CNS-TR-2011-001.
    """

    NAME = "seq-cub200"
    N_TASKS = 10
    SIZE = (224, 224)
    TEMPLATES = ("a photo of a {}, a type of bird.",)  # OpenAI and PROOF use it for birds
    Options = CubOptions

    @classmethod
    def downloads(cls, args: SimpleNamespace) -> Sequence[Download]:
        """Return the official archive. PROOF's archive cannot be fetched without a browser."""
        return () if _is_proof(args) else (ARCHIVE,)

    @classmethod
    def total_classes(cls, args: SimpleNamespace) -> int:
        """Return the number of classes of the files, or the official 200 before a download."""
        root = _root(args)
        if _is_proof(args):
            return cub_files.proof_classes(root) if (root / "train").is_dir() else 200
        return len(cub_files.class_names(root)) if root.is_dir() else 200

    @classmethod
    def listing(cls, args: SimpleNamespace) -> Listing:
        """Return the files of the split."""
        if not _is_proof(args):
            return cub_files.official(_root(args))
        listing = cub_files.proof(_root(args))
        refuse_other_split(listing, cub_files.PROOF_COUNTS, select(CubOptions, vars(args)).allow_other_split)
        return listing


def _is_proof(args: SimpleNamespace) -> bool:
    return select(CubOptions, vars(args)).split == "proof"


def _root(args: SimpleNamespace) -> Path:
    return Path(select(DataArguments, vars(args)).base_path) / (
        cub_files.PROOF_FOLDER if _is_proof(args) else cub_files.FOLDER
    )
