"""Lay out predictions: as a table for the terminal, as CSV and as JSON."""

from __future__ import annotations

import csv
from typing import IO, TYPE_CHECKING, Any

from pmi_cl.datasets.files.file_names import shown_name
from pmi_cl.datasets.files.skipping import skipped_note

if TYPE_CHECKING:
    from pmi_cl.utils.trained.predicting import Predicted
    from pmi_cl.utils.trained.trained_model import TrainedModel

FEW = 20  # rows that are shown if a file has them all
SHOWN = 3  # classes of a row


def table(found: Predicted, whole: bool) -> str:
    """Return a row for each image: probability, class, other classes, and the file.

    Args:
        whole: show all rows, not only the first ones.
    """
    shown = found.predictions if whole else found.predictions[:FEW]
    width = max([5, *(len(each.class_name) for each in shown)])
    lines = [f"{'class':<{width}}  probability  next, and the image"]
    for each, truth in zip(shown, found.truth, strict=False):
        others = ", ".join(f"{name} {100 * value:.1f} %" for name, value in each.top[1:SHOWN])
        wrong = "" if truth in (None, each.class_name) else f"  (it is {truth})"
        row = f"{each.class_name:<{width}}  {100 * each.probability:9.2f} %"
        lines.append("  ".join(filter(None, (row, others and f"[{others}]", f"{each.image}{wrong}"))))
    left = len(found.predictions) - len(shown)
    return "\n".join([*lines, *([f"... and {left} more"] if left else [])]) + "\n"


def closing_lines(found: Predicted) -> str:
    """Return how many images there were, how fast it went, what was skipped, and the accuracy."""
    count, unlearned = len(found.predictions), found.unlearned
    unknown = count - found.labelled - unlearned
    pace = f"{count} image{'s' * (count != 1)} in {found.seconds:.2f} s"
    pace += f" ({count / found.seconds:.0f} a second)\n" if count > 1 else "\n"
    pace += "".join(f"{line}\n" for line in skipped_note(found.skipped))
    later = f"{unlearned} images are of classes that the run has not learned" if unlearned else ""
    if found.accuracy is None:
        return pace + (f"{later}\n" if later else "")
    known = f"{found.right} of {found.labelled} labelled by their folders"
    told = [known, later, f"of {unknown} images the class is not known" if unknown else ""]
    return f"{pace}accuracy {found.accuracy:.2f} % ({'; '.join(filter(None, told))})\n"


def as_csv(file: IO[str], found: Predicted) -> None:
    """Write a line for each image, below one with the names of the columns.

    Files that were skipped come last, with the reason in a column of their own.
    """
    tops = max((len(each.top) for each in found.predictions), default=1)
    further = [f"{name}_{place}" for place in range(2, tops + 1) for name in ("class", "probability")]
    labelled = any(name is not None for name in found.truth)
    columns = ["image", "class", "probability", *further]
    columns += ["true_class"] * labelled + ["skipped"] * bool(found.skipped)
    writer = csv.DictWriter(file, columns, restval="")
    writer.writeheader()
    for each, truth in zip(found.predictions, found.truth, strict=True):
        pairs = [value for name, probability in each.top for value in (name, f"{probability:.6f}")]
        row = dict(zip(columns, [each.image, *pairs], strict=False))
        writer.writerow(row | ({"true_class": truth or ""} if labelled else {}))
    for bad in found.skipped:
        writer.writerow({"image": shown_name(bad.path), "skipped": bad.reason})


def as_json(model: TrainedModel, found: Predicted) -> dict[str, Any]:
    """Return all predictions, with the classes that the network tells apart."""
    images = [
        {
            "image": each.image,
            "class": each.class_name,
            "probability": each.probability,
            "top": [{"class": name, "probability": value} for name, value in each.top],
            **({} if truth is None else {"true_class": truth}),
        }
        for each, truth in zip(found.predictions, found.truth, strict=True)
    ]
    named = {name: getattr(model.method.args, name) for name in ("model", "dataset", "backbone", "seed")}
    content = {**named, "classes": list(model.class_names), "accuracy": found.accuracy, "images": images}
    if found.skipped:
        reasons = {shown_name(file.path): file.reason for file in found.skipped}
        content["skipped_images"] = {"count": len(reasons), "files": reasons}
    return content
