"""The flags of every run, whatever its method and data set."""

from __future__ import annotations

from dataclasses import dataclass

from pmi_cl.options import option

DEVICES = "auto, cpu, cuda, cuda:N or N"

GROUPS = {
    "what to run": (
        "model",
        "dataset",
        "backbone",
        "model_config",
        "n_tasks",
        "base_classes",
        "classes_per_task",
        "seed",
    ),
    "a smaller run": ("n_classes", "train_per_class", "stop_after", "debug_mode"),
    "evaluation": ("validation", "evaluate_unseen"),
    "data and results": ("base_path", "offline", "results_path", "run_name", "tensorboard"),
    "stop and go on": ("savecheck", "loadcheck", "resume", "checkpoint_minutes"),
    "machine": ("device", "num_threads", "precision", "compile"),
    "what is shown": ("progress", "non_verbose"),
}


@dataclass(frozen=True)
class RunOptions:
    """Names and meanings are Mammoth's where Mammoth has the flag; relative paths start at the current folder."""

    model: str | None = option(None, "the method; --list names them")
    dataset: str | None = option(None, "the data set; --list names them")
    backbone: str | None = option(None, "the network; none: the data set's own")
    model_config: str | None = option(
        None,
        "preset of the method, or a file of yours: MINE.yaml, with lines 'option: value' or with one preset in it; not given: the method's "
        "choice for the data set; none: no preset",
    )
    n_tasks: int | None = option(
        None,
        "equal parts that the classes are split into; none: the data set's own number",
        unit="tasks",
        low=1,
        high=100_000,
    )
    base_classes: int | None = option(
        None,
        "classes of the first task; the other n_tasks - 1 share the rest equally; none: all tasks are equal",
        unit="classes",
        low=1,
        high=100_000,
    )
    classes_per_task: tuple[int, ...] = option(
        (), "classes of each task, separated by commas; none: n_tasks and base_classes say it", low=1, high=100_000
    )
    seed: int = option(0, "seed of every random number in the run", low=0, high=4294967295)

    n_classes: int | None = option(
        None, "use only so many classes, the first of the class order; none: all", unit="classes", low=1, high=100_000
    )
    train_per_class: int | None = option(
        None, "use only so many training images of each class; none: all", unit="images", low=1, high=10_000_000
    )
    stop_after: int | None = option(
        None, "end after so many tasks, as if the rest did not exist; none: all", unit="tasks", low=1, high=100_000
    )
    debug_mode: bool = option(False, "1: a quick pass with 6 steps an epoch and 6 evaluation batches a task")

    validation: float = option(
        0.0, "part of each training class that is held out and evaluated in place of the test set", low=0, high=0.99
    )
    evaluate_unseen: bool = option(
        False, "1: evaluate all tasks each time, those not learned yet, too (methods that know classes by their names)"
    )

    base_path: str = option("./data", "folder of the data sets, filled on first use")
    offline: bool = option(False, "1: fetch nothing; missing data is an error that says where to put it")
    results_path: str = option("./runs", "folder of the runs; a run's own is MODEL/DATASET/NAME below it")
    run_name: str | None = option(
        None, "name of the run's folder (one that is taken gets -2, -3 ...); none: the time it started"
    )
    tensorboard: bool = option(True, "1: write TensorBoard events into the run's folder")

    savecheck: str = option(
        "last",
        "checkpoint kept at the end: none, the last, or one a task; a run that has not ended has one, to go on from",
        choices=("none", "last", "task"),
    )
    loadcheck: str | None = option(None, "checkpoint to start from: its weights and the method's memory, in a new run")
    resume: str | None = option(
        None, "run folder, as it is or below --results_path, to go on with, under its own arguments"
    )
    checkpoint_minutes: float = option(
        10.0,
        "time between two checkpoints within a task, besides the one at its end",
        unit="minutes",
        above=0,
        high=1_000_000,
    )

    device: str = option("auto", "auto, cpu, cuda, cuda:N or N; auto: the first GPU where there is one, else the CPU")
    num_threads: int | None = option(None, "CPU threads; none: as PyTorch chooses", unit="threads", low=1, high=1024)
    precision: str = option(
        "auto",
        "arithmetic of the inversion (auto: bf16 where the processor has native instructions); of the training, too, where bf16 is typed",
        choices=("auto", "fp32", "bf16"),
    )
    compile: bool = option(False, "1: torch.compile the inversion: a slower start, then faster steps")

    progress: str = option("auto", "progress bars: 0, 1 or auto (on a terminal)", choices=("auto", "0", "1"))
    non_verbose: bool = option(False, "1: print errors and the last line only")
