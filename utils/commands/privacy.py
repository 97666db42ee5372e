"""Define ``pmi-cl privacy``: what a run's synthetic images and statistics tell of its images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pmi_cl.errors import UserError
from pmi_cl.machine.device import pick_device
from pmi_cl.machine.terminal import show
from pmi_cl.options import option, specs_of
from pmi_cl.registry.catalogue import Catalogue
from pmi_cl.utils.arguments.option_texts import section
from pmi_cl.utils.commands.trained_options import UseOptions, one_run, output_folder, read_command, set_up

if TYPE_CHECKING:
    from pmi_cl.models.continual_model import ContinualModel
    from pmi_cl.utils.trained.privacy import Privacy

TITLE = (
    "pmi-cl privacy RUN: how near synthetic images are to training images and to held-out ones, and how well "
    "training images are told from held-out ones by stored statistics. RUN is the folder of a finished run with its "
    "checkpoint; the images are made anew from it"
)
SCORES = {
    "head": "by the probability of the true class (what the network itself gives away)",
    "statistics": "by the distance to the stored Gaussian of the class",
}


@dataclass(frozen=True)
class PrivacyOptions(UseOptions):
    """The flags of ``pmi-cl privacy``."""

    images: int = option(500, "synthetic images", unit="images", low=2, high=1_000_000)
    seed: int = option(0, "seed of the choices and of the intervals", low=0, high=4294967295)
    output: str | None = option(
        None, "folder for privacy.json and closest_pairs.png; none: they are not written", path=True
    )


def help_text(argv: Sequence[str], catalogue: Catalogue) -> str:
    """Return the flags of the command, as ``--help`` prints them."""
    return section(TITLE, specs_of(PrivacyOptions))


def run_command(argv: Sequence[str], catalogue: Catalogue) -> int:
    """Carry the command out and return the exit code.

    Raises:
        UserError: the run has no checkpoint, its method makes no synthetic images on a ResNet, a
            flag is wrong, or a file cannot be written.
    """
    words, options, _ = read_command(argv, "privacy", PrivacyOptions)
    run = one_run(words, "privacy")
    folder = output_folder(options.output)
    from pmi_cl.utils.trained.privacy import measure_privacy  # imports torch

    set_up(options.num_threads)
    method = _restored(run, options, catalogue)
    least = 2 * method.n_seen_classes
    if options.images < least:
        raise UserError(f"--images {options.images}: give at least {least}, two for each class of the run")
    found = measure_privacy(method, options.images, options.seed)
    if folder is not None:
        _write(folder, found, method, run)
    show(_as_text(found))
    return 0


def _restored(run: str, options: PrivacyOptions, catalogue: Catalogue) -> Any:
    """Return the method of a run with its whole state. Raise UserError if that cannot be."""
    from pmi_cl.models.resnet.controlled_replay import ControlledReplay
    from pmi_cl.utils.trained.loading import UNFIT, find_network, open_checkpoint

    path = find_network(run)
    path = path if path.suffix == ".pt" else path.with_name("checkpoint.pt")
    if not path.is_file():
        raise UserError(f"{path.parent} has no checkpoint.pt, from which images are made: run with --savecheck last")
    method, args, state = open_checkpoint(path, pick_device(options.device), options.base_path, catalogue)
    if not isinstance(method, ControlledReplay):
        raise UserError(f"{args.model} makes no synthetic images on a ResNet: choose a run of rdfcil or pmi_rdfcil")
    task = method.current_task
    try:
        method.load_state(state)
    except UNFIT as error:
        raise UserError(f"{path} does not fit its own method ({type(error).__name__}): it is damaged") from error
    method.current_task = task
    return method


def _as_text(found: Privacy) -> str:
    """Return what was measured, in words."""
    lines = [
        f"{found.synthetic} synthetic images; the nearest of {found.trained} training images against the nearest of "
        f"{found.held_out} held-out ones, as many of each class",
    ]
    for name, (value, low, high) in found.ratios.items():
        meaning = "below 1: nearer to training images"
        lines.append(f"in {name}: ratio of distances {value:.3f} (95 %: {low:.3f} to {high:.3f}; {meaning})")
    for name, (value, low, high) in found.members.items():
        lines.append(f"membership {SCORES[name]}: AUC {value:.3f} (95 %: {low:.3f} to {high:.3f}; 0.5: a guess)")
    return "\n".join(lines) + "\n"


def _write(folder: Path, found: Privacy, method: ContinualModel, run: str) -> None:
    """Write the figures as JSON, and the closest pairs as a picture."""
    from pmi_cl.utils.records.atomic import write_json
    from pmi_cl.utils.reports.pictures import pair_sheet, pixels, save_png

    counts = {name: getattr(found, name) for name in ("synthetic", "trained", "held_out")}
    estimates = {
        name: {key: estimate._asdict() for key, estimate in getattr(found, name).items()}
        for name in ("ratios", "members")
    }
    n, names = len(found.pairs), ("synthetic", "nearest training image", "nearest held-out image")
    flat = found.pairs.flatten(0, 1)
    images = method.dataset.denormalise(flat, found.labels.flatten()).unflatten(0, (n, 3))
    save_png(pixels(pair_sheet(images, names)), folder / "closest_pairs.png", "--output")
    write_json(folder / "privacy.json", {"run": run, **counts, **estimates}, "--output")
