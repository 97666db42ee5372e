"""Turns the command line into complete, checked arguments, each with its source, without torch."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pmi_cl.datasets.task_split import split_classes
from pmi_cl.errors import UserError
from pmi_cl.machine.plain_text import excerpt, is_number
from pmi_cl.machine.user_paths import user_path
from pmi_cl.options import OptionSpec
from pmi_cl.registry.catalogue import INSTALLED, KINDS, Catalogue, Entry
from pmi_cl.utils.arguments.known_options import known_specs, run_specs
from pmi_cl.utils.arguments.method_checks import check_method
from pmi_cl.utils.arguments.option_values import convert
from pmi_cl.utils.arguments.presets import chosen_backbone, decide, presets_of
from pmi_cl.utils.arguments.run_options import DEVICES

CONTROLS = ("--help", "--list", "--check", "--estimate", "--version")
NEAREST = 3
LONG_DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212"  # which word processors put in place of -
LONGEST_NAME = 240  # bytes: systems allow 255, and a name that is taken gets a number behind it


@dataclass(frozen=True)
class Resolved:
    """All arguments of a run.

    Attributes:
        args: every option of the run, the method, the data set and the backbone, by name.
        sources: where each value came from: "flag", "preset NAME", "preset NAME (DATASET)",
            "method", "data set" or "default".
        model, dataset, backbone: their catalogue entries.
    """

    args: SimpleNamespace
    sources: dict[str, str]
    model: Entry
    dataset: Entry
    backbone: Entry


def all_specs(*entries: Entry) -> tuple[OptionSpec, ...]:
    """Return the options of the run and the entries. Raise UserError if two share a name."""
    owners: dict[str, str] = {}
    for owner, specs in (("the run", run_specs()), *((entry.module, entry.options) for entry in entries)):
        for spec in specs:
            if spec.name in owners:
                raise UserError(f"{owner}: option '{spec.name}' is already one of {owners[spec.name]}: rename it")
            owners[spec.name] = owner
    return (*run_specs(), *(spec for entry in entries for spec in entry.options))


def resolve(argv: Sequence[str], catalogue: Catalogue = INSTALLED) -> Resolved:
    """Parse and check a command line, except for what needs torch or the data on the disk.

    Args:
        argv: the words after the program's name, without ``CONTROLS``.
        catalogue: where methods, data sets, backbones and presets are looked up.

    Raises:
        UserError: anything unknown, missing, given twice or out of bounds.
    """
    named = scan(argv, run_specs())[0]
    if "resume" in named:
        return _resume(argv, named, catalogue)
    if not {"model", "dataset"} <= named.keys():
        strict_flags(argv, _any_specs(catalogue))  # a word that no run knows is worth more than what is missing
    model, dataset = (_entry(kind, named.get(kind), catalogue) for kind in ("model", "dataset"))
    presets = presets_of(model.name, catalogue, named.get("model_config"))
    backbone = _entry("backbone", chosen_backbone(named, presets, model, dataset), catalogue)
    specs = all_specs(model, dataset, backbone)
    values, sources = decide(
        specs, strict_flags(argv, specs, backbone.constants.get("LACKS", {}), catalogue), presets, model, dataset
    )
    values |= {"model": model.name, "dataset": dataset.name}
    values["n_tasks"], sources["n_tasks"] = _task_count(values, sources["n_tasks"], dataset)
    return _resolved(values, sources, specs, catalogue)


def _resume(argv: Sequence[str], named: Mapping[str, str], catalogue: Catalogue) -> Resolved:
    """Return the arguments of a recorded run, changed by the typed flags that may change."""
    from pmi_cl.utils.arguments.resumed_arguments import changes, check_recorded, read_arguments
    from pmi_cl.utils.records.run_record import find_run

    for name in ("resume", "results_path"):
        if name in named and not named[name].strip():
            raise UserError(f"--{name} '': give the folder of {'a run' if name == 'resume' else 'the runs'}")
    places = {spec.name: spec for spec in run_specs()}
    results, run = (
        convert(places[name], named.get(name, places[name].default), f"--{name} {excerpt(named.get(name))}")
        for name in ("results_path", "resume")
    )
    check_paths({"results_path": results, "resume": run}, run_specs())
    record = find_run(results, run)
    folder, path = record.folder, record.folder / "args.json"
    recorded, sources = read_arguments(path)
    specs = all_specs(*(_entry(kind, recorded.get(kind), catalogue) for kind in KINDS))
    values = check_recorded(recorded, specs, path)
    finished = folder if record.status() == "finished" else None
    changed = changes(values, strict_flags(argv, specs, catalogue=catalogue), specs, finished)
    changed |= {"resume": str(folder)}
    sources = dict.fromkeys(values, "default") | sources | dict.fromkeys(changed, "flag")
    return _resolved(values | changed, sources, specs, catalogue)


def recorded_run(recorded: Mapping[str, Any], path: Path, catalogue: Catalogue = INSTALLED) -> Resolved:
    """Return the arguments of a run as its record, or its network's file, holds them.

    Args:
        recorded: the value of each option.
        path: the file, for error messages.

    Raises:
        UserError: a value is wrong, or of an option that this version does not have.
    """
    from pmi_cl.utils.arguments.resumed_arguments import check_recorded

    specs = all_specs(*(_entry(kind, recorded.get(kind), catalogue) for kind in KINDS))
    values = check_recorded(recorded, specs, path)
    return _resolved(values, dict.fromkeys(values, "record"), specs, catalogue)


def scan(argv: Sequence[str], specs: Sequence[OptionSpec]) -> tuple[dict[str, str], list[str]]:
    """Return the typed flags among ``specs``, as text, and the words that are left over.

    The parts of a tuple are joined by commas.

    Raises:
        UserError: a flag without a value, or given twice.
    """
    parser = argparse.ArgumentParser(
        add_help=False, allow_abbrev=False, exit_on_error=False, argument_default=argparse.SUPPRESS
    )
    for spec in specs:
        parser.add_argument(f"--{spec.name}", action=_Once, nargs="+" if spec.many else None)
    try:
        typed, left = parser.parse_known_args(_bind_numbers(argv))
    except argparse.ArgumentError as error:
        raise UserError(f"{error.argument_name}: {error.message}") from error
    return {name: value if isinstance(value, str) else ",".join(value) for name, value in vars(typed).items()}, left


def strict_flags(
    argv: Sequence[str],
    specs: Sequence[OptionSpec],
    lacking: Mapping[str, str] | None = None,
    catalogue: Catalogue | None = None,
) -> dict[str, str]:
    """Return the typed flags among ``specs``, as text.

    Args:
        lacking: flags that the run does not have, and why.
        catalogue: what else may have a flag that is left over.

    Raises:
        UserError: a word is left over. It says why there is no such flag, whose flag it is, or
            which flags are the nearest.
    """
    typed, left = scan(argv, specs)
    if left and "--seed" in argv and list(argv[argv.index("--seed") + 2 :][:1]) == left[:1] and is_number(left[0]):
        raise UserError(
            "--seed takes one number; several seeds: pmi-cl sweep --models MODEL --datasets DATASET --seeds 0 1 2"
        )
    if left:
        raise _left_over(left[0], specs, lacking or {}, catalogue)
    return typed


def _left_over(
    word: str, specs: Sequence[OptionSpec], lacking: Mapping[str, str], catalogue: Catalogue | None
) -> UserError:
    name = flag_name(word)
    if not word.startswith("-"):
        return UserError(f"'{word}' stands alone: write --flag value, one value to a flag")
    if name in lacking:
        return UserError(f"--{name} is no flag of this run: {lacking[name]}")
    owners = (
        [entry.name for kind in KINDS for entry in catalogue.entries(kind) if name in _names(entry)]
        if catalogue
        else []
    )
    if owners:
        return UserError(f"--{name} is no flag of this run: it belongs to {', '.join(owners)}")
    flags = [*(spec.name for spec in specs), *(control.lstrip("-") for control in CONTROLS)]
    return unknown_flag(name, flags, "--help with this model and data set lists the flags")


def flag_name(word: str) -> str:
    """Return the name of a typed flag. Raise UserError if it begins with a long dash."""
    bare = word.lstrip(f"-{LONG_DASHES}")
    name = bare.partition("=")[0]
    if any(dash in word[: len(word) - len(bare)] for dash in LONG_DASHES):
        raise UserError(f"'{word}' begins with a long dash: write --{name}, with two short ones")
    return name


def unknown_flag(name: str, flags: Sequence[str], otherwise: str) -> UserError:
    """Return the error of an unknown flag, with the nearest ones, or else with ``otherwise``."""
    near = difflib.get_close_matches(name.replace("-", "_").lower(), flags, n=NEAREST)
    hint = f"did you mean {' or '.join(f'--{flag}' for flag in near)}?" if near else otherwise
    return UserError(f"unknown flag '--{name}': {hint}")


def _names(entry: Entry) -> set[str]:
    return {spec.name for spec in entry.options}


def _any_specs(catalogue: Catalogue) -> list[OptionSpec]:
    """Return every option that some run has; of those with one name, one that takes many values."""
    found: dict[str, OptionSpec] = {}
    for spec in known_specs(catalogue):
        if spec.many or spec.name not in found:
            found[spec.name] = spec
    return list(found.values())


class _Once(argparse.Action):
    def __call__(
        self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: str | None = None
    ) -> None:
        if hasattr(namespace, self.dest):
            raise UserError(f"--{self.dest} is given twice: keep one")
        setattr(namespace, self.dest, values)


def _bind_numbers(argv: Sequence[str]) -> list[str]:
    """Write ``--lr -1e-3`` as ``--lr=-1e-3``.

    argparse takes a negative number with an exponent, or -inf, for a flag.
    """
    words: list[str] = []
    for word in argv:
        if words and words[-1].startswith("--") and "=" not in words[-1] and word.startswith("-") and is_number(word):
            words[-1] += f"={word}"
        else:
            words.append(word)
    return words


def _entry(kind: str, name: str | None, catalogue: Catalogue) -> Entry:
    if name is None:
        names = ", ".join(entry.name for entry in catalogue.entries(kind))
        raise UserError(f"--{kind} is missing: choose a {KINDS[kind]} from {names or '(none)'}")
    return catalogue.find(kind, name)


def check_paths(values: Mapping[str, Any], specs: Sequence[OptionSpec]) -> None:
    """Raise UserError, with the flag, for a path that the system cannot look up."""
    for spec in specs:
        if spec.path and values.get(spec.name) is not None:
            user_path(values[spec.name], f"--{spec.name}")


def _resolved(
    values: Mapping[str, Any], sources: dict[str, str], specs: Sequence[OptionSpec], catalogue: Catalogue
) -> Resolved:
    """Return the complete arguments once the checks across options are passed."""
    check_paths(values, specs)
    args = SimpleNamespace(**values)
    model, dataset, backbone = (_entry(kind, values[kind], catalogue) for kind in ("model", "dataset", "backbone"))
    args.backbone = backbone.name
    check_kind(model, backbone, catalogue)
    args.device = device_name(args.device)
    _check_run_name(args.run_name)
    _check_tasks(args, dataset)
    check_method(args, model, catalogue)
    return Resolved(args, sources, model, dataset, backbone)


def check_kind(model: Entry, backbone: Entry, catalogue: Catalogue) -> None:
    """Refuse a network of a kind that the method does not work on, and name those that fit."""
    wanted = model.constants.get("BACKBONE_KIND", "resnet")
    if backbone.constants.get("KIND", "resnet") != wanted:
        fitting = [
            entry.name for entry in catalogue.entries("backbone") if entry.constants.get("KIND", "resnet") == wanted
        ]
        names = ", ".join(fitting) or "(none)"
        raise UserError(
            f"--backbone {backbone.name}: {model.name} needs a backbone of kind {wanted}: choose from {names}"
        )


def device_name(text: str) -> str:
    """Return a typed device in one spelling: auto, cpu, cuda or cuda:N. Raise UserError."""
    device = text.strip().lower()
    if not re.fullmatch(r"auto|cpu|cuda|(cuda:)?[0-9]{1,3}", device):
        raise UserError(f"--device {text}: write {DEVICES} (one device)")
    return f"cuda:{int(device)}" if device.isdigit() else device


def _check_run_name(name: str | None) -> None:
    if name is not None and (name in (".", "..") or not re.fullmatch(r"[\w.+=@ -]+", name)):
        raise UserError(
            f"--run_name {name}: it must be the plain name of a folder, of letters, digits, blanks and . - _ + = @"
        )
    if name is not None and len(name.encode()) > LONGEST_NAME:
        raise UserError(
            f"--run_name {name[:20]}...: it has {len(name)} letters, too many for a folder; at most {LONGEST_NAME}"
        )


def _task_count(values: Mapping[str, Any], source: str, dataset: Entry) -> tuple[int | None, str]:
    """Return the number of tasks and where it is from; None where only the disk tells."""
    sizes = values["classes_per_task"]
    preset = source.startswith("preset")
    if preset and dataset.constants.get("OWN_TASKS"):
        return None, "data set"
    if sizes and not preset and values["n_tasks"] not in (None, len(sizes)):
        raise UserError(
            f"--n_tasks {values['n_tasks']}: --classes_per_task lists {len(sizes)} tasks; leave --n_tasks out"
        )
    if sizes:
        return len(sizes), "classes_per_task"
    if values["n_tasks"] is None and "N_TASKS" in dataset.constants:
        return dataset.constants["N_TASKS"], "data set"
    return values["n_tasks"], source


def _check_tasks(args: SimpleNamespace, dataset: Entry) -> None:
    """Refuse classes that do not split into the tasks.

    A data set that learns its classes from the disk checks this itself.
    """
    known = dataset.constants.get("N_CLASSES")
    if known and args.n_classes and args.n_classes > known:
        raise UserError(f"--n_classes {args.n_classes}: {dataset.name} has {known} classes")
    classes = args.n_classes or known
    if classes and args.n_tasks:
        split_classes(classes, args.n_tasks, args.base_classes, args.classes_per_task)
    if args.n_tasks and args.stop_after and args.stop_after > args.n_tasks:
        raise UserError(f"--stop_after {args.stop_after}: the run has {args.n_tasks} tasks")
