"""The options of every run, whatever its method and data set."""

from __future__ import annotations

from dataclasses import dataclass

from pmi_cl.options import option

DEVICES = "auto, cpu, cuda, cuda:N or N"


@dataclass(frozen=True)
class RunOptions:
    """The options of every run.

    An option that Mammoth has keeps Mammoth's name. Relative paths start at the current folder.
    """

    model: str | None = option(None, "the method; --list names them", role="choice", group="what to run")
    dataset: str | None = option(None, "the data set; --list names them", role="choice", group="what to run")
    backbone: str | None = option(None, "the network; none: the data set's own", role="network", group="what to run")
    model_config: str | None = option(
        None,
        "preset of the method, or a file of yours: MINE.yaml, with lines 'option: value' or with one preset in it; "
        "not given: the method's choice for the data set; none: no preset",
        role="choice",
        group="what to run",
    )
    n_tasks: int | None = option(
        None,
        "equal parts that the classes are split into; none: the data set's own number",
        unit="tasks",
        low=1,
        high=100_000,
        role="tasks",
        read_by="dataset",
        group="what to run",
    )
    base_classes: int | None = option(
        None,
        "classes of the first task; the other n_tasks - 1 share the rest equally; none: all tasks are equal",
        unit="classes",
        low=1,
        high=100_000,
        role="tasks",
        read_by="dataset",
        group="what to run",
    )
    classes_per_task: tuple[int, ...] = option(
        (),
        "classes of each task, separated by commas; none: n_tasks and base_classes say it",
        low=1,
        high=100_000,
        role="tasks",
        read_by="dataset",
        group="what to run",
    )
    seed: int = option(
        0,
        "seed of every random number in the run",
        low=0,
        high=4294967295,
        role="seed",
        as_in_mammoth=True,
        group="what to run",
    )

    n_classes: int | None = option(
        None,
        "use only so many classes, the first of the class order; none: all",
        unit="classes",
        low=1,
        high=100_000,
        role="protocol",
        memory="images",
        read_by="dataset",
        group="a smaller run",
    )
    train_per_class: int | None = option(
        None,
        "use only so many training images of each class; none: all",
        unit="images",
        low=1,
        high=10_000_000,
        role="protocol",
        binds="checkpoint",
        memory="images",
        read_by="dataset",
        group="a smaller run",
    )
    stop_after: int | None = option(
        None,
        "end after so many tasks, as if the rest did not exist; none: all",
        unit="tasks",
        low=1,
        high=100_000,
        role="protocol",
        binds="nothing",
        group="a smaller run",
    )
    debug_mode: bool = option(
        False,
        "1: a quick pass with 6 steps an epoch and 6 evaluation batches a task",
        role="protocol",
        group="a smaller run",
    )

    validation: float = option(
        0.0,
        "part of each training class that is held out and evaluated in place of the test set",
        low=0,
        high=0.99,
        role="protocol",
        binds="checkpoint",
        group="evaluation",
    )
    classifier: str = option(
        "head",
        "by what images are classified: the head; ncm, the nearest mean of a class's features; mahalanobis, the "
        "nearest by a shared diagonal covariance (methods that keep statistics of their classes)",
        choices=("head", "ncm", "mahalanobis"),
        source="papers: head; ncm: iCaRL",
        binds="checkpoint",
        group="evaluation",
    )
    data_free: bool = option(
        False,
        "1: refuse a method that stores real images of earlier tasks",
        role="protocol",
        binds="nothing",
        group="evaluation",
    )
    evaluate_unseen: bool = option(
        False,
        "1: evaluate all tasks each time, those not learned yet, too (methods that know classes by their names)",
        role="output",
        group="evaluation",
    )

    base_path: str = option(
        "./data",
        "folder of the data sets, filled on first use",
        role="machine",
        path=True,
        binds="nothing",
        group="data and results",
    )
    offline: bool = option(
        False,
        "1: fetch nothing; missing data is an error that says where to put it",
        role="machine",
        binds="nothing",
        read_by="dataset",
        group="data and results",
    )
    results_path: str = option(
        "./runs",
        "folder of the runs; a run's own is MODEL/DATASET/NAME below it",
        role="output",
        path=True,
        binds="nothing",
        group="data and results",
    )
    run_name: str | None = option(
        None,
        "name of the run's folder (one that is taken gets -2, -3 ...); none: its tasks, seed and start",
        role="output",
        group="data and results",
    )
    tensorboard: bool = option(
        True,
        "1: write TensorBoard events into the run's folder",
        role="output",
        binds="nothing",
        group="data and results",
    )

    savecheck: str = option(
        "last",
        "checkpoint kept at the end: none, the last, or one a task; a run that has not ended has one, to go on from",
        choices=("none", "last", "task"),
        role="output",
        group="stop and go on",
    )
    savemodel: bool = option(
        True,
        "1: keep the network of a finished run in model.safetensors, without optimiser and memory, for "
        "pmi-cl predict, evaluate and export (resnet32: 1.9 MB; a CLIP: what was trained)",
        role="output",
        binds="nothing",
        group="stop and go on",
    )
    loadcheck: str | None = option(
        None,
        "checkpoint to start from: its weights and the method's memory, in a new run",
        path=True,
        group="stop and go on",
    )
    resume: str | None = option(
        None,
        "run folder, as it is or below --results_path, to go on with, under its own arguments",
        role="choice",
        path=True,
        group="stop and go on",
    )
    checkpoint_minutes: float = option(
        10.0,
        "time between two checkpoints within a task, besides the one at its end",
        unit="minutes",
        above=0,
        high=1_000_000,
        role="output",
        binds="nothing",
        group="stop and go on",
    )

    device: str = option(
        "auto",
        "auto, cpu, cuda, cuda:N or N; auto: the first GPU where there is one, else the CPU",
        role="machine",
        binds="nothing",
        group="machine",
    )
    num_threads: int | None = option(
        None,
        "CPU threads; none: as PyTorch chooses",
        unit="threads",
        low=1,
        high=1024,
        role="machine",
        binds="nothing",
        group="machine",
    )
    precision: str = option(
        "auto",
        "arithmetic of the inversion (auto: bf16 where the processor has native instructions); "
        "of the training, too, where bf16 is typed",
        choices=("auto", "fp32", "bf16"),
        read_by="model",
        group="machine",
    )
    compile: bool = option(
        False, "1: torch.compile the inversion: a slower start, then faster steps", read_by="model", group="machine"
    )

    progress: str = option(
        "auto",
        "progress bars: 0, 1 or auto (on a terminal; elsewhere a line a minute)",
        choices=("auto", "0", "1"),
        role="output",
        binds="nothing",
        group="what is shown",
    )
    non_verbose: bool = option(
        False, "1: print errors and the last line only", role="output", binds="nothing", group="what is shown"
    )
