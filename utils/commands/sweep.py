"""Define ``pmi-cl sweep``: carry out methods x data sets x seeds x flags, and show the table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pmi_cl.errors import UserError
from pmi_cl.machine.terminal import show
from pmi_cl.machine.user_paths import user_path
from pmi_cl.options import option, specs_of
from pmi_cl.registry.catalogue import Catalogue
from pmi_cl.utils.arguments.command_words import read_options
from pmi_cl.utils.arguments.option_texts import section
from pmi_cl.utils.sweeps.planned_runs import Sweep, plan
from pmi_cl.utils.sweeps.standing import listing
from pmi_cl.utils.sweeps.sweep_file import read_sweep
from pmi_cl.utils.sweeps.sweep_words import read_arm, read_grid, read_shared, take

TITLE = (
    "pmi-cl sweep [FILE.yaml] [flags] [-- flags of every run]: every method on every data set with every seed, in "
    "processes of their own, then the table. Finished runs are kept, stopped ones go on. "
    "A method may have flags of its own: --models sgd pmi_rdfcil:model_config=paper,inv_steps=300"
)


@dataclass(frozen=True)
class SweepOptions:
    """The flags of ``pmi-cl sweep``."""

    models: tuple[str, ...] = option((), "methods, each alone or as NAME:flag=value,flag=value")
    datasets: tuple[str, ...] = option((), "data sets")
    seeds: tuple[int, ...] = option((), "seeds; every method runs with each; none: those of the file, or 0 1 2", low=0)
    grid: tuple[str, ...] = option((), "flag=value,value ...: all combinations are run, for every method")
    results_path: str = option("runs/sweep", "folder of the runs, of their output (logs/) and of sweep.json", path=True)
    jobs: int = option(1, "runs at once; CPU threads are shared out among them", low=1, high=1024)
    gpus: tuple[int, ...] = option((), "numbers of GPUs, which the jobs take in turn; none: all that there are", low=0)
    dry_run: bool = option(False, "list, count and estimate the runs, and begin none")


def help_text(argv: Sequence[str], catalogue: Catalogue) -> str:
    """Return the flags of the command, as ``--help`` prints them."""
    return section(TITLE, specs_of(SweepOptions))


def check_command(argv: Sequence[str], catalogue: Catalogue) -> str:
    """Check all that was typed, and return the list of the runs."""
    options, sweep = _parse(argv)
    return listing(plan(sweep, Path(options.results_path), catalogue), options.jobs)


def run_command(argv: Sequence[str], catalogue: Catalogue) -> int:
    """Carry out what is not finished, show the table, and return the exit code.

    Raises:
        UserError: something that was typed is wrong. No run is begun then.
        RunFailed: a run has failed; the others have been carried out.
    """
    options, sweep = _parse(argv)
    runs = plan(sweep, Path(options.results_path), catalogue)
    if options.dry_run:
        show(listing(runs, options.jobs))
        return 0
    from pmi_cl.utils.sweeps.carrying_out import carry_out

    return carry_out(runs, Path(options.results_path), options.jobs, options.gpus, catalogue)


def _parse(argv: Sequence[str]) -> tuple[SweepOptions, Sweep]:
    """Return the options, and what is to be run: the file's, where no flag says another.

    Raises:
        UserError: a flag, a value or the file does not fit.
    """
    cut = argv.index("--") if "--" in argv else len(argv)
    own, flags = list(argv[:cut]), read_shared(argv[cut + 1 :])
    models, own = take(own, "--models")
    grid, own = take(own, "--grid")
    words, options, _ = read_options(own, SweepOptions, "sweep")
    if len(words) > 1:
        raise UserError(f"'{words[1]}' stands alone: write one file, --flag value, and flags of every run behind --")
    file = user_path(words[0], "the file of the sweep") if words else None
    of_file = Sweep([], []) if file is None else read_sweep(file)
    sweep = Sweep(
        [read_arm(word) for word in models] or of_file.arms,
        options.datasets or of_file.datasets,
        options.seeds or of_file.seeds,
        {**of_file.flags, **flags},
        read_grid(grid) or of_file.grid,
    )
    for name, found in (("models", sweep.arms), ("datasets", sweep.datasets), ("seeds", sweep.seeds)):
        if not found:
            raise UserError(f"--{name} is missing: write pmi-cl sweep --models sgd rdfcil --datasets seq-digits")
    return options, sweep
