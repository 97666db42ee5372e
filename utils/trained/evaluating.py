"""Measure the network of a run on test images: its own data set's, or another one's."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch

from pmi_cl.datasets.input_form import InputForm
from pmi_cl.errors import UserError
from pmi_cl.machine.plain_text import few, printable
from pmi_cl.machine.terminal import tell
from pmi_cl.registry.catalogue import Catalogue, Entry
from pmi_cl.utils.arguments.command_line import recorded_run
from pmi_cl.utils.arguments.known_options import run_specs
from pmi_cl.utils.arguments.option_values import convert
from pmi_cl.utils.records.atomic import write_bytes, write_json
from pmi_cl.utils.records.confusion import by_class
from pmi_cl.utils.records.metrics import headline
from pmi_cl.utils.reports.class_pictures import confusion_matrix
from pmi_cl.utils.reports.pictures import pixels, save_png
from pmi_cl.utils.run.evaluation import evaluate
from pmi_cl.utils.run.training import DEBUG_STEPS
from pmi_cl.utils.trained.loading import open_dataset, take_base_path

if TYPE_CHECKING:
    from torch import Tensor

    from pmi_cl.datasets.continual_dataset import ContinualDataset
    from pmi_cl.utils.trained.trained_model import TrainedModel


@dataclass(frozen=True)
class Evaluation:
    """What a network reaches on test images.

    Attributes:
        run: method, data set and seed.
        on: the data set whose images were taken.
        class_names: the classes that the network tells apart.
        ends: for each task, the number of classes up to it.
        class_il: accuracy in % on each task, among all classes; None: no image of it.
        task_il: the same among the task's own classes.
        last: the headline, as the run has it; None: on another data set.
        confusion: row i holds how many images of class i were taken for each class.
    """

    run: str
    on: str
    class_names: tuple[str, ...]
    ends: tuple[int, ...]
    class_il: list[float | None]
    task_il: list[float | None]
    last: float | None
    confusion: list[list[int]]

    @property
    def images(self) -> int:
        """Return the number of images."""
        return sum(map(sum, self.confusion))

    @property
    def over_images(self) -> float:
        """Return the accuracy in % over all images, among all classes."""
        return 100.0 * sum(row[label] for label, row in enumerate(self.confusion)) / self.images

    @property
    def by_class(self) -> list[float | None]:
        """Return the accuracy in % on each class; None: no image of it."""
        accuracies = by_class(self.confusion)
        return [value if sum(row) else None for value, row in zip(accuracies, self.confusion, strict=True)]


def evaluate_own(model: TrainedModel, base_path: str | None, catalogue: Catalogue) -> Evaluation:
    """Evaluate as the run itself did after its last task: the figures are the same.

    Raises:
        UserError: the data set is not there any more.
    """
    record, method = model.record, model.method
    resolved = recorded_run(record.args, Path("the record of the run"), catalogue)
    args = resolved.args
    take_base_path(args, base_path)
    dataset = open_dataset(resolved, model.device)
    if record.data and dataset.fingerprint != record.data:
        tell(f"the images are not those of the run ({record.data}): here are {dataset.fingerprint}")
    form = record.preprocessing
    if form.form is not None:
        dataset.present_as(InputForm(form.form[0], form.mean, form.std, form.form[1]))
    tasks = min(dataset.N_TASKS, args.stop_after or dataset.N_TASKS) if method.JOINT else record.task + 1
    found = evaluate(method, dataset, tasks, DEBUG_STEPS if args.debug_mode else None)
    last = headline([found.class_il], [found.micro_class_il], dataset.weighs_images)[0]
    ends = dataset.tasks.ends[:tasks]
    confusion = [row[: len(model.class_names)] for row in found.confusion]
    return Evaluation(
        model.name, resolved.dataset.name, model.class_names, ends, [*found.class_il], [*found.task_il], last, confusion
    )


def evaluate_other(
    model: TrainedModel, name: str | None, typed: Mapping[str, str], base_path: str | None, catalogue: Catalogue
) -> Evaluation:
    """Evaluate on the test images of another data set, whose classes are found by their names.

    Args:
        model: the network.
        name: of the data set. None: that of the run, with other values for its flags.
        typed: flags of the data set, as text.
        base_path: the folder of data sets. None: that of the run.
        catalogue: where data sets are looked up.

    Raises:
        UserError: a flag or the data set is wrong, or it has a class that the run does not have.
    """
    dataset = _open_other(model, name, typed, base_path, catalogue)
    labels = _labels_of(model, dataset)
    for note in model.notes:
        tell(note)
    ends = model.record.tasks[: model.record.task + 1]
    ends = tuple(sum(ends[: task + 1]) for task in range(len(ends)))
    n = len(model.class_names)
    counts = torch.zeros(2, n, n, dtype=torch.int64)  # class-IL: among all classes; task-IL: among those of the task
    for images, truth in _test_images(dataset, labels, model.method.EVALUATION_BATCH):
        logits = model.logits(images).float().cpu()
        if not torch.isfinite(logits).all():
            raise UserError("the network gives no numbers for an image: train it again")
        own = _among_own_classes(logits, truth, ends)
        for table, predicted in zip(counts, (logits.argmax(1), own.argmax(1)), strict=True):
            table.view(-1).scatter_add_(0, truth * n + predicted, torch.ones_like(truth))
    class_il, task_il = (_by_task(table, ends) for table in counts)
    return Evaluation(model.name, dataset.NAME, model.class_names, ends, class_il, task_il, None, counts[0].tolist())


def _open_other(
    model: TrainedModel, name: str | None, typed: Mapping[str, str], base_path: str | None, catalogue: Catalogue
) -> ContinualDataset:
    """Return a data set of which the test images alone are of interest."""
    recorded = vars(model.method.args)
    same = name is None or catalogue.find("dataset", name).name == recorded["dataset"]
    entry: Entry = catalogue.find("dataset", name or recorded["dataset"])
    specs = {spec.name: spec for spec in (*run_specs(), *entry.options)}
    left = sorted(set(typed) - set(specs))
    if left:
        raise UserError(f"--{left[0]} is no flag of {entry.name}: leave it out, or name the data set with --dataset")
    values: dict[str, Any] = {flag: spec.default for flag, spec in specs.items()}
    kept = {flag: value for flag, value in recorded.items() if flag in specs} if same else {}
    values |= kept | {flag: convert(specs[flag], text, f"--{flag} {text}") for flag, text in typed.items()}
    values |= {"base_path": base_path or recorded["base_path"], "validation": values["validation"] if same else 0.0}
    # Its tasks do not count here. Without some of the classes they might not split into tasks.
    values |= {"n_tasks": None if entry.constants.get("OWN_TASKS") else 1, "base_classes": None, "classes_per_task": ()}
    values["stop_after"] = None
    if values.get("image_size", 0) is None:
        values["image_size"] = model.record.preprocessing.side
    args = SimpleNamespace(**values)
    kind = entry.load()
    kind.check(args)
    dataset: ContinualDataset = kind(args, model.device)
    return dataset


def _labels_of(model: TrainedModel, dataset: ContinualDataset) -> Tensor:
    """Return the network's label of each label of the data set; -1: a class not learned yet.

    Raises:
        UserError: the run does not have a class, has two of its name, or has learned none of them.
    """
    known = {name: label for label, name in enumerate(model.record.class_names)}
    twice = [name for name in dataset.class_names if model.record.class_names.count(name) > 1]
    if twice:
        raise UserError(f"the run has two classes called '{printable(twice[0])}': evaluate it on its own data set")
    strange = [name for name in dataset.class_names if name not in known]
    if strange:
        names = few(printable(name) for name in strange)
        raise UserError(f"{dataset.NAME} has classes that are not among those of the run: {names}; leave them out")
    labels = torch.tensor([known[name] for name in dataset.class_names])
    unlearned = int((labels >= len(model.class_names)).sum())
    if unlearned == len(labels):
        after = f"it stopped after task {model.record.task + 1}"
        raise UserError(f"{dataset.NAME} has no class that the run has learned: {after}")
    if unlearned:
        tell(f"{unlearned} classes of later tasks, which the run has not learned, are left out")
    return torch.where(labels < len(model.class_names), labels, -1)


def _test_images(dataset: ContinualDataset, labels: Tensor, size: int) -> Iterable[tuple[Tensor, Tensor]]:
    """Yield the pixels of the test images and the network's labels, in batches."""
    for task in range(dataset.N_TASKS):
        for rows in dataset.test_indices(task).split(size):
            truth = labels[dataset.test.labels[rows].cpu()]
            if (truth >= 0).any():
                yield dataset.test.pixels(rows[(truth >= 0).to(rows.device)]), truth[truth >= 0]


def _among_own_classes(logits: Tensor, truth: Tensor, ends: Sequence[int]) -> Tensor:
    """Return the logits (b, n) with -inf where a class is not of the task of the true class."""
    tasks = torch.bucketize(torch.arange(logits.shape[1]), torch.tensor(ends), right=True)
    return logits.masked_fill(tasks[None] != tasks[truth][:, None], -torch.inf)


def _by_task(table: Tensor, ends: Sequence[int]) -> list[float | None]:
    """Return the accuracy in % on each task of a confusion matrix; None: no image of it."""
    right, images = table.diagonal(), table.sum(1)
    parts = [slice(start, end) for start, end in zip((0, *ends), ends, strict=False)]
    sums = [(int(right[part].sum()), int(images[part].sum())) for part in parts]
    return [100.0 * correct / total if total else None for correct, total in sums]


def write_evaluation(folder: Path, found: Evaluation) -> None:
    """Write an evaluation into a folder: two tables, a picture, and all figures as JSON.

    Raises:
        UserError: the folder or a file cannot be written.
    """
    title = f"{found.run}: confusion on {found.on}"
    picture = pixels(confusion_matrix(found.confusion, found.class_names, found.ends, title))
    save_png(picture, folder / "confusion.png", "--output")
    names = list(found.class_names)
    matrix = [[name, *row] for name, row in zip(names, found.confusion, strict=True)]
    _write_csv(folder / "confusion.csv", [["class", *names], *matrix])
    images = [sum(row) for row in found.confusion]
    accuracies = ["" if value is None else repr(value) for value in found.by_class]
    rows = [list(row) for row in zip(names, images, accuracies, strict=True)]
    _write_csv(folder / "per_class.csv", [["class", "images", "accuracy"], *rows])
    content = {
        **{name: getattr(found, name) for name in ("run", "on", "last", "over_images", "class_il", "task_il")},
        **{"class_names": names, "by_class": found.by_class, "confusion": found.confusion},
    }
    write_json(folder / "evaluation.json", content, "--output")


def _write_csv(path: Path, rows: Sequence[Sequence[Any]]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    write_bytes(path, text.getvalue().encode("utf-8", "surrogateescape"), "--output")
