"""Turn methods, data sets, seeds and a grid of flags into runs with readable names."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from pmi_cl.errors import UserError
from pmi_cl.registry.catalogue import Catalogue
from pmi_cl.utils.arguments.command_line import LONGEST_NAME, Resolved, resolve

_NOT_IN_NAMES = re.compile(r"[^\w.+=@-]+")
DEFAULT_SEEDS = (0, 1, 2)
NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Arm:
    """A method with flags of its own.

    Attributes:
        model: the name of the method.
        flags: its own flags, as text by name.
        name: what its runs are called; empty: the flags.
    """

    model: str
    flags: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    name: str = ""


@dataclass(frozen=True)
class Sweep:
    """Hold what is to be run.

    Attributes:
        arms: methods with their flags.
        datasets: names of data sets.
        seeds: every arm runs with each of them.
        flags: the flags of every run, as text by name.
        grid: values of flags; all combinations are run.
    """

    arms: Sequence[Arm]
    datasets: Sequence[str]
    seeds: Sequence[int] = DEFAULT_SEEDS
    flags: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    grid: Mapping[str, Sequence[str]] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True)
class PlannedRun:
    """Hold one run of a sweep.

    Attributes:
        words: its command line, without the name of the program.
        resolved: its checked arguments.
        folder: where its record lies.
    """

    words: tuple[str, ...] = field(compare=False)
    resolved: Resolved = field(compare=False)
    folder: Path

    def __str__(self) -> str:
        """Return "pmi_rdfcil/seq-digits/paper-seed0"."""
        return "/".join(self.folder.parts[-3:])


def plan(sweep: Sweep, results: Path, catalogue: Catalogue) -> list[PlannedRun]:
    """Return all runs, checked as the command checks what is typed.

    They go seed by seed, so that a comparison with one seed is complete as early as possible.

    Raises:
        UserError: a run cannot be, or two runs would share a folder.
    """
    found: dict[Path, PlannedRun] = {}
    for run in _runs(sweep, results, catalogue):
        if run.folder in found:
            raise UserError(f"two runs would be called {run}: leave one out, or give one a name in a file of the sweep")
        found[run.folder] = run
    return list(found.values())


def _runs(sweep: Sweep, results: Path, catalogue: Catalogue) -> Iterator[PlannedRun]:
    points = [dict(zip(sweep.grid, values, strict=True)) for values in itertools.product(*sweep.grid.values())]
    for seed, dataset, arm, point in itertools.product(sweep.seeds, sweep.datasets, sweep.arms, points):
        clash = sorted((arm.flags.keys() | sweep.flags.keys()) & point.keys())
        if clash:
            raise UserError(f"--grid {clash[0]}: {arm.model} has this flag already, keep one")
        name = run_name(arm, point, seed)
        given = {"model": arm.model, "dataset": dataset, "seed": str(seed), "run_name": name}
        flags = {**given, **sweep.flags, **arm.flags, **point, "results_path": str(results)}
        words = tuple(f"--{flag}={value}" for flag, value in flags.items())
        try:
            resolved = resolve(words, catalogue)
        except UserError as error:
            raise UserError(f"{arm.model} on {dataset}, {name}: {error}") from error
        yield PlannedRun(words, resolved, results / resolved.model.name / resolved.dataset.name / name)


def run_name(arm: Arm, point: Mapping[str, str], seed: int) -> str:
    """Return "paper-lr=0.1-seed0": the name or the flags of an arm, the point, the seed.

    A preset stands without the name of its flag.
    """
    own = [arm.name] if arm.name else [_said(*flag) for flag in arm.flags.items()]
    name = "-".join([*own, *(_said(*flag) for flag in point.items()), f"seed{seed}"])
    return _NOT_IN_NAMES.sub("_", name)[-LONGEST_NAME:]


def _said(name: str, value: str) -> str:
    return value if name == "model_config" else f"{name}={value}"
