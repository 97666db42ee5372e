"""Write and find the folder of a run, with its arguments and results."""

from __future__ import annotations

import contextlib
import difflib
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pmi_cl.errors import UserError, unknown_name
from pmi_cl.machine.user_paths import path_text
from pmi_cl.utils.records.atomic import write_json
from pmi_cl.utils.records.record_shape import SCHEMA, read_json
from pmi_cl.utils.records.surroundings import surroundings

_FEW = 3  # runs in an error message
# The cost of inversion:
# - images: synthetic images that were kept;
# - steps: steps of any kind over all batches;
# - step_equivalents: the same, counted in full forward plus backward passes to the input;
# - forward_passes, backward_passes: one each a step, through the part that was optimised.
_INVERSION = {"images": 0, "steps": 0, "step_equivalents": 0.0, "forward_passes": 0, "backward_passes": 0}


class RunRecord:
    """Name the files of a run's folder, ``<results_path>/<model>/<dataset>/<name>``.

    Attributes:
        folder: the folder itself, also of TensorBoard's events.
        checkpoint: the path of its checkpoint.
        model: the path of its trained network.
        pictures: the folder of its PNGs. The first picture creates it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._made: tuple[Path, ...] = ()
        self.checkpoint = folder / "checkpoint.pt"
        self.model = folder / "model.safetensors"
        self.pictures = folder / "pictures"

    @classmethod
    def create(
        cls,
        results_path: str | Path,
        model: str,
        dataset: str,
        seed: int,
        run_name: str | None = None,
        n_tasks: int | None = None,
    ) -> RunRecord:
        """Create a new folder. A name that exists gets -2, -3 ..., so that nothing is overwritten.

        Args:
            run_name: the folder's name. None means the tasks, the seed and the local time:
                TensorBoard names a run by the folder and those above it.
            n_tasks: the number of tasks, for that name.

        Raises:
            UserError: the name is no folder name, or the folder cannot be created.
        """
        tasks = "" if n_tasks is None else f"{n_tasks}-tasks-"
        name = f"{tasks}seed{seed}-" + time.strftime("%Y%m%d-%H%M%S") if run_name is None else run_name
        _check_name(name)
        parent = Path(results_path) / model / dataset
        missing = tuple(path for path in (parent, *parent.parents) if not path.exists())
        try:
            parent.mkdir(parents=True, exist_ok=True)
            record = cls(_make_new_folder(parent, path_text(name)))
        except OSError as error:
            raise UserError(
                f"cannot make a folder in {parent} ({error.strerror}): choose another --results_path"
            ) from error
        record._made = (record.folder, *missing)
        return record

    def discard(self) -> None:
        """Remove the folders that :meth:`create` made, as far as they are empty."""
        for folder in self._made:
            with contextlib.suppress(OSError):
                folder.rmdir()

    def write_args(
        self, values: Mapping[str, Any], sources: Mapping[str, str], weights: Mapping[str, Any] | None = None
    ) -> None:
        """Write ``args.json``.

        It holds each value with its source, the weights of the backbone, the command line,
        versions, commit and hardware.
        """
        args = {name: {"value": value, "source": sources[name]} for name, value in values.items()}
        content = {"schema": SCHEMA, "args": args, "backbone_weights": weights, "command": sys.argv}
        write_json(self.folder / "args.json", {**content, **surroundings()})

    def write_results(self, results: Mapping[str, Any]) -> None:
        """Write ``results.json`` (see :func:`build_results`) atomically."""
        write_json(self.folder / "results.json", results)

    def read_results(self) -> dict[str, Any]:
        """Return the content of ``results.json``. Raise as :func:`read_json`."""
        return read_json(self.folder / "results.json")

    def status(self) -> str | None:
        """Return how the run stands ("finished", ...); None where no record says it."""
        try:
            return str(self.read_results()["status"])
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            return None


def find_run(results_path: str | Path, run: str, word: str = "--resume") -> RunRecord:
    """Return the run that ``--resume RUN`` names.

    Args:
        word: what the run is named by, for error messages.
        run: the name of a folder below ``results_path``, its path from there, or any path.

    Raises:
        UserError: there is no such run, or several have the name.
    """
    root = Path(results_path)
    for folder in (root / run, Path(run)):
        if (folder / "args.json").is_file():
            return RunRecord(folder)
    folders = [file.parent for file in root.glob("*/*/*/args.json")]
    named = [folder for folder in folders if folder.name == run]
    if len(named) > 1:
        places = " or ".join(str(folder.relative_to(root)) for folder in sorted(named))
        raise UserError(f"several runs are called '{run}': say {word} {places}")
    if not folders:
        elsewhere = "say where it is with --results_path, or " if word == "--resume" else ""
        advice = f"{elsewhere}give {word} the path of its folder"
        raise UserError(f"there is no run below {root}, nor '{run}': {advice}")
    if not named:
        raise _unknown_run(run, root, folders)
    return RunRecord(named[0])


def _unknown_run(run: str, root: Path, folders: Sequence[Path]) -> UserError:
    """Return the error for an unknown run.

    It names the runs with the nearest paths or names, or else the newest ones: there may be
        hundreds.
    """
    places = {str(folder.relative_to(root)): folder for folder in folders}
    named = {folder.name: place for place, folder in places.items()}
    near = difflib.get_close_matches(run, named, n=_FEW, cutoff=0.5)
    if difflib.get_close_matches(run, places, n=1, cutoff=0.5):
        return unknown_name("run", run, places)
    if near:
        return UserError(f"unknown run '{run}': did you mean {' or '.join(named[name] for name in near)}?")
    newest = sorted(places, key=lambda place: places[place].stat().st_mtime, reverse=True)[:_FEW]
    count = f"the newest of {len(places)} are" if len(places) > _FEW else "choose from"
    return UserError(f"unknown run '{run}': {count} {', '.join(newest)}")


def build_results(
    *,
    model: str,
    dataset: str,
    seed: int,
    status: str,
    precision: str,
    class_il: Mapping[str, Any],
    task_il: Mapping[str, Any],
    seconds: Mapping[str, float],
    peak_memory_mib: Mapping[str, float],
    inversion: Mapping[str, Any],
    classes_per_task: Sequence[int],
    over_images: bool = False,
    images: Mapping[str, int] | None = None,
    without_effect: Sequence[str] = (),
    backbone_weights: Mapping[str, Any] | None = None,
    everywhere: Mapping[str, Any] | None = None,
    skipped_images: Mapping[str, str] | None = None,
    by_class: Mapping[str, Any] | None = None,
    stored: Mapping[str, Any] | None = None,
    classifiers: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the content of ``results.json``.

    Args:
        status: "running", "finished", "interrupted" or "failed".
        precision: the precision of inversion, "float32" or "bfloat16".
        class_il: the class-incremental figures of :func:`pmi_cl.utils.records.metrics.summary`.
        task_il: the task-incremental ones.
        seconds: by phase, see :class:`pmi_cl.utils.records.resources.Phases`.
        peak_memory_mib: by phase.
        inversion: the figures of :func:`inversion_figures`.
        classes_per_task: the number of classes of each task.
        backbone_weights: the origin of a pre-trained backbone: name, model, tag, file, sha256.
        images: the number of training images ("train") and of test images ("test") of the run.
        without_effect: the options that were to make the run smaller, and took nothing away.
        over_images: whether the headline is over all images, not a mean over tasks.
        everywhere: the figures on all tasks, learned or not, by setting, of
            :func:`pmi_cl.utils.records.metrics.square_summary`. None if they were not asked for.
        skipped_images: why image files were left out, by their names (``--on_bad_image skip``).
        by_class: the figures of :func:`pmi_cl.utils.records.confusion.summary`.
        stored: the bytes beside the network, by kind, "after_task" and "while_training", by task.
        classifiers: the class-IL figures by each classifier of the method, where it has several.
    """
    named = {"model": model, "dataset": dataset, "seed": seed, "backbone_weights": backbone_weights}
    named |= {"status": status, "precision": precision, "classes_per_task": list(classes_per_task)}
    if skipped_images:
        named["skipped_images"] = {"count": len(skipped_images), "files": dict(skipped_images)}
    named["headline_over"] = "images" if over_images else "tasks"
    named |= {"images": dict(images or {}), "without_effect": list(without_effect)}
    figures = {"class_il": class_il, "task_il": task_il}
    optional = {"everywhere": everywhere, "by_class": by_class, "classifiers": classifiers}
    figures |= {name: part for name, part in optional.items() if part}
    costs = {"seconds": seconds, "peak_memory_mib": peak_memory_mib, "inversion": inversion}
    return {"schema": SCHEMA, **named, **figures, **costs, "stored": dict(stored or {}), **surroundings()}


def inversion_figures(costs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the cost of inversion over a whole run.

    Args:
        costs: the figures of a method, as its own ``inversion_figures`` returns them. Figures that
            it lacks are zero.

    Returns:
        The figures for ``results.json``. ``seconds_per_image`` is None without images.
    """
    figures = {name: costs.get(name, zero) for name, zero in _INVERSION.items()}
    images = figures["images"]
    return {**figures, "seconds_per_image": costs.get("seconds", 0.0) / images if images else None}


def _check_name(name: str) -> None:
    """Raise UserError unless the name is that of a folder."""
    if not name or name in {".", ".."} or any(mark in name for mark in "/\\\0\n"):
        raise UserError(f"--run_name {name!r} is not the name of a folder: use letters, digits, blanks and . - _ + = @")


def _make_new_folder(parent: Path, name: str) -> Path:
    """Create ``name``, or ``name-2``, ``name-3`` ... where it exists."""
    attempt = 1
    while True:
        folder = parent / (name if attempt == 1 else f"{name}-{attempt}")
        try:
            folder.mkdir()  # no exist_ok: two runs of the same second must not share a folder
            return folder
        except FileExistsError:
            attempt += 1
