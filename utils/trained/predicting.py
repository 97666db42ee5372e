"""Predict all images of files and folders, with their true classes where folders name them."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pmi_cl.datasets.files.decoding import BadFile
from pmi_cl.datasets.files.file_names import shown_name
from pmi_cl.datasets.files.find_images import ENDINGS
from pmi_cl.datasets.files.skipping import skipped_note
from pmi_cl.errors import UserError
from pmi_cl.machine.terminal import tell
from pmi_cl.utils.records.atomic import write_bytes, write_json
from pmi_cl.utils.trained.prediction_texts import as_csv, as_json
from pmi_cl.utils.trained.trained_model import Prediction, TrainedModel
from pmi_cl.utils.trained.typed_images import files_of


@dataclass(frozen=True)
class Predicted:
    """Predictions and the true classes.

    Attributes:
        predictions: one for each image, in the order of the words that were typed, then sorted.
        truth: the true class of each image; None: no folder names a class of the run.
        learned: the classes that the network tells apart.
        skipped: files that cannot be read, each once. They have no prediction.
        seconds: from the first file to the last prediction.
    """

    predictions: list[Prediction]
    truth: list[str | None]
    learned: Sequence[str]
    skipped: list[BadFile]
    seconds: float

    @property
    def labelled(self) -> int:
        """Return the number of images that are of a learned class, by their folders."""
        return sum(name in self.learned for name in self.truth)

    @property
    def unlearned(self) -> int:
        """Return the number of images that are of a class of a later task, by their folders."""
        return sum(name is not None for name in self.truth) - self.labelled

    @property
    def right(self) -> int:
        """Return how many of them were classified rightly."""
        return sum(each.class_name == name for each, name in zip(self.predictions, self.truth, strict=True))

    @property
    def accuracy(self) -> float | None:
        """Return the accuracy in % on the images of learned classes."""
        return 100.0 * self.right / self.labelled if self.labelled else None


def predict_all(model: TrainedModel, words: Sequence[Path], top: int, batch_size: int | None, skip: bool) -> Predicted:
    """Predict the images that the words name: files, or folders with all that is below them.

    Args:
        model: the network.
        words: the paths that were typed.
        top, batch_size: as in :meth:`TrainedModel.predict`.
        skip: leave out files that cannot be read, instead of refusing them.

    Raises:
        UserError: there is no such image, a file is none, or none of the files can be read.
    """
    skipped: list[BadFile] = []
    files = [(file, word) for word in words for file in files_of(word, skipped if skip else None, skippable=True)]
    start = time.perf_counter()
    on_bad = skipped.append if skip else _refuse
    predictions = list(model.predictions([file for file, _ in files], top, batch_size, on_bad))
    skipped = list(dict.fromkeys(skipped))
    if not predictions:
        raise UserError(f"no image is left: {skipped_note(skipped)[0]}")
    for note in model.notes:
        tell(note)
    gone = {file.path for file in skipped}
    truth = [_true_class(file, word, model.record.class_names) for file, word in files if file not in gone]
    seconds = time.perf_counter() - start
    return Predicted(predictions, truth, model.class_names, skipped, seconds)


def _refuse(file: BadFile) -> None:
    file.refuse(skippable=True)


def _true_class(file: Path, word: Path, class_names: Sequence[str]) -> str | None:
    """Return the class that a folder between the typed word and the file names, the nearest one."""
    between = [] if file == word else [shown_name(part) for part in file.relative_to(word).parent.parts]
    return next((name for name in reversed(between) if name in class_names), None)


def check_files(written: Mapping[str, Path]) -> None:
    """Raise UserError before any work if a file cannot be written, or is not meant."""
    for form, path in written.items():
        if not path.parent.is_dir():
            raise UserError(f"--{form} {path}: there is no folder {path.parent}; make it, or name another")
        if path.is_dir():
            raise UserError(f"--{form} {path} is a folder: give the name of a file in it")
        if path.suffix.lower() in ENDINGS:  # as in --csv *.png
            raise UserError(f"--{form} {path} has the name of an image: name another file, then the images")
    if len({path.resolve() for path in written.values()}) < len(written):
        raise UserError("--csv and --json name one file: give each its own")


def write_files(written: Mapping[str, Path], model: TrainedModel, found: Predicted) -> None:
    """Write the predictions as "csv" or "json", atomically. Raise UserError if that fails."""
    for form, path in written.items():
        if form == "json":
            write_json(path, as_json(model, found), "--json")
        else:
            text = io.StringIO(newline="")
            as_csv(text, found)
            write_bytes(path, text.getvalue().encode("utf-8", "surrogateescape"), "--csv")
