"""Refuse a run inside Mammoth that cannot go well, in one line, before a folder is made."""

from __future__ import annotations

import contextlib
import copy
from argparse import ArgumentParser
from collections.abc import Collection, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NoReturn

import torch

from pmi_cl.datasets.task_split import TaskSplit
from pmi_cl.errors import UserError
from pmi_cl.mammoth.checkout import part
from pmi_cl.mammoth.equal_tasks import place_of_one_size
from pmi_cl.mammoth.flags import PREFIX, HostedEntry
from pmi_cl.mammoth.task_data import TaskData
from pmi_cl.models.run_outline import RunOutline
from pmi_cl.registry.catalogue import INSTALLED, KINDS
from pmi_cl.utils.arguments.command_line import check_kind, unknown_flag
from pmi_cl.utils.arguments.known_options import run_specs

if TYPE_CHECKING:
    from pmi_cl.mammoth.bridge import Bridge

SHOWN = 4  # owners of a flag, of each side
# Mammoth's flags that our methods ignore, and what to do instead.
UNUSED = {
    "fitting_mode": "its schedule counts epochs",
    "lr_scheduler": f"it has a schedule of its own, --{PREFIX}lr_milestones",
    "lr_milestones": f"say --{PREFIX}lr_milestones, in parts of n_epochs",
    "sched_multistep_lr_gamma": "say --lr_gamma",
    "scheduler_mode": "its schedule counts epochs",
    "n_iters": "its schedule counts epochs",
    "optimizer": "it trains with SGD",
    "optim_nesterov": "leave it out",
    "label_perc": "every image needs its label",
    "label_perc_by_class": "every image needs its label",
    "eval_future": "classes of later tasks are evaluated in pmi-cl's own runner, by --evaluate_unseen 1",
    "distributed": "it trains on one device: leave it out",
}


def watch(parser: Any, bridge: Bridge) -> None:
    """Make Mammoth's parser raise UserError for a mistake, and check what it has parsed."""
    parse, typed = parser.parse_args, list[str]()

    def parse_and_check(words: Sequence[str]) -> Any:
        typed.extend(word.partition("=")[0] for word in words if word.startswith("--"))
        args = parse(words)
        check_run(args, bridge)
        return args

    def error(message: str) -> NoReturn:
        known = parser._option_string_actions
        unknown = next((flag for flag in typed if flag not in known), None)
        raise _unknown_flag(unknown.removeprefix("--"), known, bridge) if unknown else UserError(message)

    parser.error, parser.parse_args = error, parse_and_check


def _unknown_flag(name: str, known: Collection[str], bridge: Bridge) -> UserError:
    """Return the error that says whose flag it is, or which flags are the nearest."""
    if name in bridge.flags and f"--{PREFIX}{name}" in known:
        return UserError(f"--{name}: say --{PREFIX}{name}, because Mammoth has another use for --{name}")
    if name in {spec.name for spec in run_specs() if not spec.read_by}:
        advice = "and the loop here is Mammoth's: leave it out, or run pmi-cl without 'mammoth'"
        return UserError(f"--{name} belongs to pmi-cl's own runner, {advice}")
    owners = {"pmi-cl": [one.entry.name for one in bridge.hosted() if name in one.flags.values()]}
    owners["Mammoth"] = _methods_with(f"--{name}", bridge)
    named = [f"{whose}'s {', '.join(names[:SHOWN])}" for whose, names in owners.items() if names]
    if named:
        return UserError(f"--{name} is no flag of this run: it belongs to {' and '.join(named)}")
    return unknown_flag(name, [flag.removeprefix("--") for flag in known], "--help lists the flags")


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
        _check_unused(model, args, bridge)
    _check_loop(args)
    options = bridge.run_options(args)
    tasks = _tasks_of(dataset, options) if dataset else None
    if model is None:
        if backbone and backbone.entry.constants.get("KIND", "resnet") != "resnet":
            raise UserError(f"--backbone {backbone.entry.name} has no classifier: it serves pmi-cl's methods only")
        if tasks and not (tasks.equal or args.joint):
            _check_sizes(tasks, args)
        return
    _check_method(model, backbone, options, args)
    if tasks is None:  # Mammoth's data set, which reads no image before it is asked for a task
        tasks = TaskData(part("datasets").get_dataset(copy.copy(args)), torch.device("cpu"), 0).tasks
    model.entry.load().check(options, RunOutline(tasks.n_classes, 1 if args.joint else tasks.n_tasks))


def _check_unused(model: HostedEntry, args: Any, bridge: Bridge) -> None:
    """Raise UserError if a flag of Mammoth is set that the method ignores."""
    for name, instead in UNUSED.items():
        value = getattr(args, name, None)
        if name not in model.flags.values() and value not in (None, bridge.flags.get(name)):
            raise UserError(f"--{name} {value} does nothing for {model.entry.name}: {instead}")


def _check_loop(args: Any) -> None:
    """Raise UserError for what Mammoth's loop does not do."""
    gpu, level, mode = torch.cuda.is_available(), args.code_optimization, args.distributed
    parts = not (args.start_from is None and args.stop_after is None)
    foresees = hasattr(part("models").get_model_class(args), "future_forward")
    refused = {
        "--joint 1 is one task: leave --start_from and --stop_after out": args.joint and parts,
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
    if dataset.entry.constants.get("OWN_TASKS"):
        raise UserError(
            f"{dataset.name} does not run inside Mammoth, which has one image size and one normalisation for all "
            f"tasks: run it without Mammoth, pmi-cl --model MODEL --dataset {dataset.entry.name} --domains ..."
        )
    kind = dataset.entry.load()
    kind.check(options)
    tasks: TaskSplit = kind.task_split(options)
    return tasks


def _check_sizes(tasks: TaskSplit, args: Any) -> None:
    """Raise UserError if a method of Mammoth, or a flag, needs tasks of one size."""
    if args.label_perc != 1:
        raise UserError(f"--label_perc {args.label_perc} needs tasks of one size: say --label_perc_by_class")
    place = place_of_one_size(part("models").get_model_class(args))
    if place:
        advice = f"this run has {tasks}; leave --classes_per_task and --base_classes out, or choose another method"
        raise UserError(f"--model {args.model} is Mammoth's and needs tasks of one size ({place}): {advice}")
