"""Refuse a run inside Mammoth that cannot go well, in one line, before a folder is made."""

from __future__ import annotations

import contextlib
import copy
import difflib
from argparse import ArgumentParser
from collections.abc import Collection, Sequence
from types import SimpleNamespace
from typing import Any, NoReturn

import torch

from pmi_cl.datasets.multi_domain import MultiDomain
from pmi_cl.datasets.task_split import TaskSplit
from pmi_cl.errors import UserError
from pmi_cl.mammoth.bridge import KINDS, Bridge
from pmi_cl.mammoth.checkout import part
from pmi_cl.mammoth.equal_tasks import place_of_one_size
from pmi_cl.mammoth.flags import PREFIX, HostedEntry
from pmi_cl.mammoth.task_data import TaskData
from pmi_cl.mammoth.typed_words import read_words
from pmi_cl.models.run_outline import RunOutline
from pmi_cl.registry.catalogue import INSTALLED
from pmi_cl.utils.arguments.command_line import check_kind
from pmi_cl.utils.arguments.known_options import run_specs

NEAREST = 3
SHOWN = 4  # owners of a flag, of each side


def watch(parser: Any, bridge: Bridge) -> None:
    """Make Mammoth's parser raise UserError for a mistake, and check what it has parsed."""
    parse, typed = parser.parse_args, list[str]()

    def parse_and_check(words: Sequence[str]) -> Any:
        typed.extend(flag for flag in read_words(words) if flag.startswith("--"))
        args = parse(words)
        check_run(args, bridge)
        return args

    def error(message: str) -> NoReturn:
        known = parser._option_string_actions
        unknown = next((flag for flag in typed if flag not in known), None)
        raise UserError(_unknown_flag(unknown, known, bridge) if unknown else message)

    parser.error, parser.parse_args = error, parse_and_check


def _unknown_flag(flag: str, known: Collection[str], bridge: Bridge) -> str:
    """Return whose flag it is, or which flags are the nearest."""
    name = flag.removeprefix("--")
    if name in bridge.flags and f"--{PREFIX}{name}" in known:
        return f"{flag}: say --{PREFIX}{name}, because Mammoth has another use for --{name}"
    if name in {spec.name for spec in run_specs() if not spec.read_by}:
        advice = "and the loop here is Mammoth's: leave it out, or run pmi-cl without 'mammoth'"
        return f"{flag} belongs to pmi-cl's own runner, {advice}"
    hosted = [one for entries in bridge.ours.values() for one in entries.values()]
    owners = {"pmi-cl": [one.entry.name for one in hosted if name in one.flags.values()]}
    owners["Mammoth"] = _methods_with(flag, bridge)
    named = [f"{whose}'s {', '.join(names[:SHOWN])}" for whose, names in owners.items() if names]
    if named:
        return f"{flag} is no flag of this run: it belongs to {' and '.join(named)}"
    near = difflib.get_close_matches(name, [one.removeprefix("--") for one in known], n=NEAREST)
    hint = f"did you mean {' or '.join(f'--{one}' for one in near)}?" if near else "--help lists the flags"
    return f"unknown flag '{flag}': {hint}"


def _methods_with(flag: str, bridge: Bridge) -> list[str]:
    """Return the names of Mammoth's methods that have a flag."""
    found = []
    for name, method in part("models").get_model_names().items():
        parser = ArgumentParser()
        with contextlib.suppress(Exception):  # a method that cannot be imported, or an old one
            method.get_parser(parser)
        if name in bridge.theirs["model"] and flag in parser._option_string_actions:
            found.append(name)
    return found


def check_run(args: Any, bridge: Bridge) -> None:
    """Raise UserError for Mammoth's arguments of a run that cannot go well."""
    model, dataset, backbone = (bridge.find(kind, getattr(args, kind)) for kind in KINDS)
    if model:
        model.refuse_unused(args)
    _check_loop(args)
    options = bridge.run_options(args)
    if model:
        _check_method(model, backbone, options, args)
    elif backbone and backbone.entry.constants.get("KIND", "resnet") != "resnet":
        raise UserError(f"--backbone {backbone.entry.name} has no classifier: it serves pmi-cl's methods only")
    if dataset:
        tasks = _tasks_of(dataset, options)
        if not (model or tasks.equal or args.joint):
            _check_sizes(tasks, args)
    elif model:  # Mammoth's data set, which reads no image before it is asked for a task
        tasks = TaskData(part("datasets").get_dataset(copy.copy(args)), torch.device("cpu"), 0).tasks
    if model:
        outline = RunOutline(tasks.n_classes, 1 if args.joint else tasks.n_tasks)
        model.entry.load().check(options, outline)


def _check_loop(args: Any) -> None:
    """Raise UserError for what Mammoth's loop does not do."""
    gpu, level, mode = torch.cuda.is_available(), args.code_optimization, args.distributed
    foresees = hasattr(part("models").get_model_class(args), "future_forward")
    refused = {
        "--joint 1 is one task: leave --start_from and --stop_after out": args.joint
        and not (args.start_from is None and args.stop_after is None),
        f"-O {level} needs a GPU, and this machine has none: give -O 0 or -O 1": level > 1 and not gpu,
        "--distributed ddp does not exist in Mammoth yet: leave it out": mode == "ddp",
        "--distributed dp needs GPUs, and this machine has none: leave it out": mode == "dp" and not gpu,
        f"--eval_future 1: {args.model} cannot tell classes of later tasks: leave it out": args.eval_future
        and not foresees,
    }
    for line, wrong in refused.items():
        if wrong:
            raise UserError(line)


def _check_method(model: HostedEntry, backbone: HostedEntry | None, options: SimpleNamespace, args: Any) -> None:
    """Raise UserError for a backbone that our method cannot use, or for what needs our loop."""
    if backbone is None:
        needed = f"{model.entry.name} inverts its network layer by layer and needs one of pmi-cl's"
        raise UserError(f"--backbone {args.backbone} is Mammoth's: {needed}")
    check_kind(model.entry, backbone.entry, INSTALLED)
    if getattr(options, "synthetic_last_task", False):
        loop = "trains on samples of its own, and Mammoth's loop hands out images"
        raise UserError(f"synthetic_last_task 1 {loop}: use pmi-cl itself")


def _tasks_of(dataset: HostedEntry, options: SimpleNamespace) -> TaskSplit:
    """Return the tasks of our data set. Raise UserError for values or data that do not fit."""
    kind = dataset.entry.load()
    if issubclass(kind, MultiDomain):
        raise UserError(
            f"{dataset.name} does not run inside Mammoth, which has one image size and one normalisation for all "
            f"tasks: run it without Mammoth, pmi-cl --model MODEL --dataset {dataset.entry.name} --domains ..."
        )
    kind.check(options)
    return kind.task_split(options)


def _check_sizes(tasks: TaskSplit, args: Any) -> None:
    """Raise UserError if a method of Mammoth, or a flag, needs tasks of one size."""
    if args.label_perc != 1:
        raise UserError(f"--label_perc {args.label_perc} needs tasks of one size: say --label_perc_by_class")
    place = place_of_one_size(part("models").get_model_class(args))
    if place:
        advice = f"this run has {tasks}; leave --classes_per_task and --base_classes out, or choose another method"
        raise UserError(f"--model {args.model} is Mammoth's and needs tasks of one size ({place}): {advice}")
