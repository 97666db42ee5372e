"""Define what a data set says of a run before its images are read: its classes and its tasks.

It needs no torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

from pmi_cl.datasets.class_orders import class_order
from pmi_cl.datasets.task_split import TaskSplit, split_classes
from pmi_cl.errors import UserError
from pmi_cl.machine.terminal import tell
from pmi_cl.options import option, select


@dataclass(frozen=True)
class DatasetOptions:
    """The flags of every data set."""

    class_order: str = option(
        "natural",
        "natural, rdfcil0, rdfcil1, rdfcil2, np1993, continualclip, seed:<n>, or every class id separated by commas",
        role="protocol",
    )
    flip: bool | None = option(
        None,
        "1: mirror training images at random, 0: never, as letters and digits need; none: as the data set has it",
        source="ours",
    )
    augment: str = option(
        "rdfcil",
        "how training images are varied: rdfcil (mean-coloured padding, crop, mirror), abd (brightness and contrast, "
        "mirror, black padding, crop), dcmi (as abd without the contrast), none (mirrored if --flip 1 is typed)",
        source="the released code of each paper; PMI's is R-DFCIL's",
        choices=("rdfcil", "abd", "dcmi", "none"),
    )


@dataclass(frozen=True)
class DataArguments:
    """The arguments of a run that data sets read.

    The defaults are for callers that leave them out.
    """

    seed: int = 0
    n_tasks: int | None = None
    base_classes: int | None = None
    classes_per_task: tuple[int, ...] = ()
    n_classes: int | None = None
    stop_after: int | None = None
    train_per_class: int | None = None
    validation: float = 0.0
    base_path: str = "./data"
    offline: bool = False
    non_verbose: bool = False


class DatasetOutline(ABC):
    """A data set before it is opened. All questions are asked of the class."""

    NAME: str
    SETTING = "class-il"  # a method written for Mammoth asks for it
    N_CLASSES: int
    N_TASKS: int
    SIZE: tuple[int, int]
    OWN_TASKS = False  # True: the data set alone decides the number of tasks; presets do not
    DEFAULTS: ClassVar[dict[str, Any]] = {"backbone": "resnet32"}
    Options: type[DatasetOptions] = DatasetOptions

    @classmethod
    @abstractmethod
    def check_data(cls, args: SimpleNamespace) -> None:
        """Refuse data that is plainly damaged, or missing and impossible to fetch.

        It reads little and needs no torch.

        Raises:
            UserError: says which.
        """

    @classmethod
    def missing_files(cls, args: SimpleNamespace) -> list[tuple[str, Path]]:
        """Return what a run will fetch before it starts: (address, where it is put).

        It needs no torch.
        """
        return []

    @classmethod
    def total_classes(cls, args: SimpleNamespace) -> int:
        """Return how many classes there are before ``n_classes`` takes the first of them."""
        return cls.N_CLASSES

    @classmethod
    def image_size(cls, args: SimpleNamespace) -> int:
        """Return the side of the images, which are squares, without torch."""
        return cls.SIZE[0]

    @classmethod
    def default_tasks(cls, n_classes: int) -> int:
        """Return the number of tasks of a run that does not say."""
        return cls.N_TASKS

    @classmethod
    def check(cls, args: SimpleNamespace) -> None:
        """Check the values of the run against the data set, and the data, without torch.

        Raises:
            UserError: the first thing that is wrong.
        """
        arguments = select(DataArguments, vars(args))
        check_amounts(arguments)
        n_tasks = cls.n_tasks(args)
        if arguments.stop_after is not None and arguments.stop_after > n_tasks:
            raise UserError(f"--stop_after {arguments.stop_after}: the run has {n_tasks} task{'s' * (n_tasks > 1)}")
        cls.check_data(args)

    @classmethod
    def n_classes(cls, args: SimpleNamespace) -> int:
        """Return how many classes the run uses, without torch. Raise UserError if none fit."""
        return len(cls.shown_classes(args))

    @classmethod
    def shown_classes(cls, args: SimpleNamespace) -> list[int]:
        """Return the data set's own class ids in the order in which the run shows them.

        It needs no torch.

        Raises:
            UserError: the order or the number of classes does not fit.
        """
        total = cls.total_classes(args)
        wanted = select(DataArguments, vars(args)).n_classes
        if wanted is not None and not 2 <= wanted <= total:
            raise UserError(f"--n_classes {wanted}: {cls.NAME} has {total} classes, choose 2 to {total}")
        return class_order(select(cls.Options, vars(args)).class_order, total)[:wanted]

    @classmethod
    def task_split(cls, args: SimpleNamespace) -> TaskSplit:
        """Return which classes each task of the run has, without torch.

        Raises:
            UserError: the sizes of the tasks do not fit.
        """
        n_classes = cls.n_classes(args)
        wanted = select(DataArguments, vars(args))
        n_tasks = cls.default_tasks(n_classes) if wanted.n_tasks is None else wanted.n_tasks
        return split_classes(n_classes, n_tasks, wanted.base_classes, wanted.classes_per_task)

    @classmethod
    def n_tasks(cls, args: SimpleNamespace) -> int:
        """Return how many tasks the run has, without torch. Raise UserError if they do not fit."""
        return cls.task_split(args).n_tasks


def tell_user(args: SimpleNamespace, notes: Sequence[str]) -> None:
    """Print what the user should know of the data, on stderr, unless only errors are wanted."""
    if not select(DataArguments, vars(args)).non_verbose:
        for note in notes:
            tell(note)


def check_amounts(arguments: DataArguments) -> None:
    """Refuse parts and numbers of images that are out of bounds. Raise UserError."""
    if not 0 <= arguments.validation < 1:
        raise UserError(
            f"--validation {arguments.validation:g}: give a part of the training images, at least 0 and below 1"
        )
    if arguments.train_per_class is not None and arguments.train_per_class < 1:
        raise UserError(f"--train_per_class {arguments.train_per_class}: give at least 1 image")
