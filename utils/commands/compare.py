"""Define ``pmi-cl compare``: show finished runs side by side, from their records.

They are shown as a table and as curves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pmi_cl.errors import UserError, unknown_name
from pmi_cl.machine.terminal import show, tell
from pmi_cl.machine.user_paths import user_path
from pmi_cl.options import option, specs_of
from pmi_cl.registry.catalogue import Catalogue
from pmi_cl.utils.arguments.command_words import read_options
from pmi_cl.utils.arguments.option_texts import section
from pmi_cl.utils.reports.comparison import Row, comparisons, read_runs
from pmi_cl.utils.reports.comparison_tables import cells, comma_separated, latex, markdown

WORD = "compare"
TITLE = (
    "pmi-cl compare [FOLDER ...]: finished runs side by side, from their records (default: runs). "
    "Runs that differ in their seed alone share a row, mean ± standard deviation (n seeds); "
    "runs of another protocol, and pretrained networks beside networks from scratch, have a table of their own"
)
PLOTS = (".png", ".pdf", ".svg")


@dataclass(frozen=True)
class CompareOptions:
    """The flags of ``pmi-cl compare``."""

    format: str = option("markdown", "of the table; csv has a line for each run", choices=("markdown", "latex", "csv"))
    against: str | None = option(
        None, "a method, or method and settings as the table has them: adds differences to it, paired by seed"
    )
    plot: str | None = option(None, "also draw accuracy over the tasks into this file, .png, .pdf or .svg", path=True)


def help_text(argv: Sequence[str], catalogue: Catalogue) -> str:
    """Return the flags of the command, as ``--help`` prints them."""
    return section(TITLE, specs_of(CompareOptions))


def run_command(argv: Sequence[str], catalogue: Catalogue) -> int:
    """Carry the command out and return the exit code.

    Raises:
        UserError: an unknown flag, a folder that is missing or has no finished run, a row that does
            not exist, or a plot that cannot be written.
    """
    folders, options = _parse(argv)
    runs, passed_over = read_runs(folders, catalogue)
    for line in passed_over:
        tell(f"passed over {line}")
    if not runs:
        raise UserError(
            f"no finished run below {', '.join(map(str, folders))}: name a folder of runs, as in pmi-cl {WORD} runs"
        )
    tables = comparisons(runs)
    for row in (row for rows in tables.values() for row in rows):
        for path in row.repeats:
            tell(f"passed over {path}: a later run of the same seed and settings counts")
    show(f"{_text(tables, options)}\n")
    if options.plot is not None:
        from pmi_cl.utils.reports.comparison_plot import accuracy_over_tasks, save_figure  # matplotlib takes a second

        save_figure(accuracy_over_tasks(tables), Path(options.plot))
    return 0


def _parse(argv: Sequence[str]) -> tuple[list[Path], CompareOptions]:
    """Return the folders and the options.

    Raises:
        UserError: a flag, a value or a folder does not fit.
    """
    words, options, _ = read_options(argv, CompareOptions, WORD)
    folders = [user_path(word, "the folder") for word in words or ["runs"]]
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"there is no folder {folder}: name a folder of runs, as in pmi-cl {WORD} runs")
    if options.plot is not None and Path(options.plot).suffix.lower() not in PLOTS:
        raise UserError(f"--plot {options.plot}: give the file one of the endings {', '.join(PLOTS)}")
    return folders, options


def _text(tables: Mapping[str, list[Row]], options: CompareOptions) -> str:
    found: dict[str, Row | None] = {}
    if options.against is not None:
        found = {protocol: _against(rows, options.against) for protocol, rows in tables.items()}
        if not any(found.values()):
            raise unknown_name(
                "method in the table", options.against, {row.method for rows in tables.values() for row in rows}
            )
    if options.format == "csv":
        return comma_separated(tables, found)
    lay_out = latex if options.format == "latex" else markdown
    return lay_out({protocol: cells(rows, found.get(protocol)) for protocol, rows in tables.items()})


def _against(rows: Sequence[Row], name: str) -> Row | None:
    """Return the row of that name, or the only row of that method; None if there is none.

    Where rows differ in the network or the precision alone, the name has these, too.

    Raises:
        UserError: the method has several rows.
    """
    whole, exact = ([row for row in rows if getattr(row, kind) == name] for kind in ("full_name", "name"))
    found = whole or exact or [row for row in rows if row.method == name]
    if len(found) > 1 and exact:
        raise UserError(
            f"--against {name}: {len(found)} rows have that name, write network and precision too, "
            f"as in '{found[0].full_name}'"
        )
    if len(found) > 1:
        raise UserError(
            f"--against {name}: {len(found)} rows have that method, write the settings too, as in '{found[0].name}'"
        )
    return found[0] if found else None
