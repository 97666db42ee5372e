"""Share what the commands that use a trained network have in common: flags, words, threads."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pmi_cl.errors import UserError
from pmi_cl.options import OptionSpec, option
from pmi_cl.utils.arguments.command_line import device_name
from pmi_cl.utils.arguments.command_words import read_options


@dataclass(frozen=True)
class UseOptions:
    """The flags of every command that uses a trained network."""

    device: str = option("auto", "auto, cpu, cuda, cuda:N or N; auto: the first GPU where there is one, else the CPU")
    num_threads: int | None = option(None, "CPU threads; none: as PyTorch chooses", unit="threads", low=1, high=1024)
    base_path: str | None = option(None, "folder of data sets and weights; none: that of the run", path=True)


@dataclass(frozen=True)
class PredictOptions(UseOptions):
    """The flags of ``pmi-cl predict``."""

    csv: str | None = option(None, "also write a line for each image into this file", path=True)
    json: str | None = option(None, "also write all predictions into this file", path=True)
    on_bad_image: str = option(
        "refuse",
        "what a file that cannot be read does: refuse ends the command, skip leaves it out and lists it",
        choices=("refuse", "skip"),
    )
    top: int = option(5, "most probable classes that the files list for each image", unit="classes", low=1, high=1000)
    batch_size: int | None = option(
        None, "images that pass the network together; none: as in the evaluation", unit="images", low=1, high=100_000
    )


@dataclass(frozen=True)
class EvaluateOptions(UseOptions):
    """The flags of ``pmi-cl evaluate``, beside those of the data set."""

    output: str | None = option(
        None,
        "or -o: folder for per_class.csv, confusion.csv, confusion.png and evaluation.json; none: they are not written",
        path=True,
    )
    dataset: str | None = option(None, "another data set with classes of the run; none: that of the run")


@dataclass(frozen=True)
class ExportOptions(UseOptions):
    """The flags of ``pmi-cl export``."""

    output: str | None = option(
        None, "or -o: the file; .safetensors, .pt2 (torch.export) or .onnx says which kind; required", path=True
    )


O = TypeVar("O", bound=UseOptions)  # noqa: E741 (the options of a command)


def read_command(
    argv: Sequence[str], command: str, kind: type[O], others: Sequence[OptionSpec] = ()
) -> tuple[list[str], O, dict[str, str]]:
    """Return the words of a command, its options, and the typed flags among ``others``, as text.

    Raises:
        UserError: a flag is unknown, given twice or has a wrong value.
    """
    words, options, typed = read_options(argv, kind, command, others)
    return words, dataclasses.replace(options, device=device_name(options.device)), typed


def one_run(words: Sequence[str], command: str) -> str:
    """Return the run that a command was given. Raise UserError unless it is one word."""
    if len(words) != 1:
        what = "no run" if not words else f"{len(words)} words"
        raise UserError(f"pmi-cl {command} takes one run, here is {what}: pmi-cl {command} RUN, then the flags")
    return words[0]


def output_folder(output: str | None) -> Path | None:
    """Return the folder that ``--output`` names, if any. Raise UserError if it is a file."""
    folder = None if output is None else Path(output)
    if folder is not None and folder.exists() and not folder.is_dir():
        raise UserError(f"--output {folder} is a file: name a folder")
    return folder


def set_up(num_threads: int | None) -> None:
    """Prepare this process for the work of a command: memory and threads."""
    import torch

    from pmi_cl.machine.process_settings import for_training

    for_training(compiles=False)
    if num_threads:
        torch.set_num_threads(num_threads)
