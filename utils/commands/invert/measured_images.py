"""Read a few hundred real images, on which the statistics of a network are measured."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

from pmi_cl.datasets.files.decoding import bicubic_square, map_in_order
from pmi_cl.datasets.files.image_files import images_below
from pmi_cl.datasets.input_form import InputForm
from pmi_cl.datasets.selection import evenly_spread
from pmi_cl.errors import UserError
from pmi_cl.registry.catalogue import Catalogue
from pmi_cl.utils.arguments.command_line import resolve

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from pmi_cl.datasets.continual_dataset import ContinualDataset, ProgressCallback

BATCH = 50


def measured_images(
    args: SimpleNamespace, catalogue: Catalogue, form: InputForm, device: torch.device, report: ProgressCallback
) -> Iterator[Tensor]:
    """Yield batches of normalised images (b, 3, h, w), ``args.data_images`` at most.

    They come from all parts of the folder or data set that ``args`` name; if it names none, there
    are no images.

    Raises:
        UserError: the folder or the data set is not there, or an image cannot be read.
    """
    if args.data_dir is not None:
        yield from _of_folder(Path(args.data_dir), args.data_images, form, device, report)
    elif args.dataset is not None:
        yield from _of_dataset(args, catalogue, form, device, report)


def check_images(args: SimpleNamespace, catalogue: Catalogue) -> None:
    """Raise UserError if the folder or the data set is missing. No image is read."""
    if args.data_dir is not None:
        _listed(Path(args.data_dir))
    elif args.dataset is not None:
        dataset, dataset_args = _named(args, catalogue)
        dataset.check(dataset_args)


def _listed(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UserError(f"--data_dir {folder}: there is no such folder; give one with images")
    return images_below(folder, at_least=2)


def _named(args: SimpleNamespace, catalogue: Catalogue) -> tuple[type[ContinualDataset], SimpleNamespace]:
    """Return the data set that was named, and the arguments of a run on it."""
    words = ["--model", "zsclip", "--dataset", args.dataset, "--backbone", args.backbone, "--base_path", args.base_path]
    return catalogue.load("dataset", args.dataset), resolve(
        [*words, "--offline", str(int(args.offline))], catalogue
    ).args


def _of_folder(
    folder: Path, most: int, form: InputForm, device: torch.device, report: ProgressCallback
) -> Iterator[Tensor]:
    import numpy
    import torch

    found = _listed(folder)
    paths = [found[place] for place in evenly_spread(len(found), min(1.0, most / len(found)))][:most]
    squares = []
    for number, square in enumerate(map_in_order(paths, lambda path: bicubic_square(path, form.size, "crop")), 1):
        squares.append(square)
        report("reading images", number, len(paths))
    mean, std = (torch.tensor(values, device=device).view(3, 1, 1) for values in (form.mean, form.std))
    for rows in torch.from_numpy(numpy.stack(squares)).split(BATCH):
        yield (rows.to(device).float() / 255 - mean) / std


def _of_dataset(
    args: SimpleNamespace, catalogue: Catalogue, form: InputForm, device: torch.device, report: ProgressCallback
) -> Iterator[Tensor]:
    """Yield the first images of each task, equally many of each.

    With fewer images than tasks, it is one image of each of the first tasks.
    """
    dataset_class, dataset_args = _named(args, catalogue)
    dataset = dataset_class(dataset_args, device, report)
    dataset.present_as(form)
    each = max(args.data_images // dataset.N_TASKS, 1)
    for task in range(min(dataset.N_TASKS, args.data_images)):
        left = each
        for images, _ in dataset.plain_batches(task, batch_size=BATCH):
            yield images[:left]
            left -= len(images)
            if left <= 0:
                break
