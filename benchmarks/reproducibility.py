"""Set the figures that papers print beside those that we have measured.

    python -m benchmarks.reproducibility

It makes ``REPRODUCIBILITY.md`` from ``benchmarks/printed_figures.yaml``, which holds what is
printed, with its sources, and from the records of finished runs below ``results/runs``. A run
answers to a figure if its method, data set, number of tasks and weights are those of the row and of
the column. A run on fewer classes or images, with another network, or with typed values of the
method is called smaller. It does not count as a measurement of the printed figure. Controls
(``--replay``), other classifiers and runs that were cut short are left out.
"""

from __future__ import annotations

import argparse
import textwrap
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from pmi_cl.utils.reports.comparison import Run, read_runs
from pmi_cl.utils.reports.comparison_tables import spread

ROOT = Path(__file__).resolve().parent.parent
PRINTED = ROOT / "benchmarks" / "printed_figures.yaml"
RUNS = ROOT / "results" / "runs"
PAGE = ROOT / "REPRODUCIBILITY.md"
NONE, MISSING, NO_FIGURE, SMALLER = "null", "not measured", "-", "smaller"
EQUAL_TASKS = {"base_classes": NONE, "classes_per_task": NONE}  # unless the table says otherwise
SMALL_PRESETS = ("digits", "smoke")  # schedules for two cores
# What a run that answers to a figure has, where its record knows the option.
USUAL = {"replay": "synthetic", "classifier": "head", "stop_after": NONE, "debug_mode": "false", "validation": "0.0"}
FIGURES = {"last": ("class_il", "last"), "average": ("class_il", "average")}
EVERYWHERE = {"transfer": "transfer", "average of all tasks": "average", "last of all tasks": "last"}
TITLES = ("method", "column", "printed", "measured", "seeds", "settings", "size", "hardware", "commit")
HEAD = """# Reproducibility
What papers print, and what we have measured. `python -m benchmarks.reproducibility` makes this page. It reads the
printed figures with their sources (`benchmarks/printed_figures.yaml`) and the records of our runs (`results/runs`).
Nothing in it is written by hand.

* The first table of each section has the printed figures. They are quoted.
* **Bold**: we have measured the figure at the paper's size.
* "(smaller)": we have runs with fewer classes or images, another network, or other values of the method. They reproduce
  nothing. They show what was tried.
* The second table has our runs: mean ± standard deviation over the seeds, settings, size, hardware and commit.
* All other cells are not measured."""


class Cell(NamedTuple):
    """A printed figure.

    Attributes:
        method, column: where it stands.
        printed: as it is printed.
        figure: the figure of a record that it is compared with.
        wanted: values of ``args.json`` that a run must have; None: no method here is the row's.
        tasks: the number of tasks.
        backbone: the paper's network; none is named where the rows have networks of their own.
    """

    method: str
    column: str
    printed: str
    figure: str
    wanted: dict[str, Any] | None
    tasks: int
    backbone: str


def read_printed(path: Path = PRINTED) -> dict[str, Any]:
    """Return the tables of the file. Every value is a text, as it is printed: 68.80 keeps its 0."""
    tables: dict[str, Any] = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    return tables


def cells_of(table: Mapping[str, Any]) -> Iterator[Cell]:
    """Yield every cell of a table, row by row."""
    for method, row in table["rows"].items():
        for column, printed in zip(table["columns"], row["printed"], strict=True):
            wanted = {**table.get("run", {}), **column.get("run", {}), **row["run"]} if "run" in row else None
            shown = NO_FIGURE if printed == NONE else printed.replace("±", " ± ")
            network = table.get("backbone", "")
            yield Cell(method, column["head"], shown, column["figure"], wanted, int(column["n_tasks"]), network)


def _text(value: Any) -> str:
    """Return a value of ``args.json`` as the file of printed figures has it."""
    if value is None or isinstance(value, bool):
        return {None: NONE, True: "true", False: "false"}[value]
    return str(value)


def answers(run: Run, cell: Cell) -> bool:
    """Return whether a run is one of the cell's method and setting."""
    if cell.wanted is None or cell.printed == NO_FIGURE:
        return False
    wanted = {**EQUAL_TASKS, **cell.wanted}
    tag = str((run.results.get("backbone_weights") or {}).get("tag"))
    if wanted.pop("weights", NONE) not in (NONE, tag.partition("_")[0]):
        return False
    tasks = max(len(row) for row in run.results["class_il"]["matrix"])
    if tasks != cell.tasks:
        return False
    usual = all(_text(run.args.get(name)) in (value, NONE) for name, value in USUAL.items())
    found = {name: _text(run.args.get(name)) for name in wanted}
    allowed = {name: value if isinstance(value, list) else [value] for name, value in wanted.items()}
    return usual and all(found[name] in allowed[name] for name in wanted)


def is_smaller(run: Run, cell: Cell) -> bool:
    """Return whether a run that answers to a cell is not of the paper's size."""
    reduced = [run.args.get(name) is not None for name in ("n_classes", "train_per_class")]
    other = cell.backbone not in ("", run.args.get("backbone"))
    typed = {word.partition("=")[0] for word in run.typed} - (cell.wanted or {}).keys()
    return any(reduced) or other or bool(typed) or run.args.get("model_config") in SMALL_PRESETS


def value_of(run: Run, figure: str) -> float | None:
    """Return a figure of a run. None: its record has none."""
    if figure in FIGURES:
        part, name = FIGURES[figure]
        value = run.results[part].get(name)
    elif figure in EVERYWHERE:
        value = run.results.get("everywhere", {}).get("task_il", {}).get(EVERYWHERE[figure])
    elif figure == "hours":
        value = sum(run.results["seconds"].values()) / 3600
    else:
        value = run.results["inversion"].get(figure)
    return None if value is None else float(value)


def size_of(run: Run) -> str:
    """Return how much a run has learned, by which network, and for how long."""
    images, sizes = run.results.get("images") or {}, run.results.get("classes_per_task") or []
    classes = sum(sizes) or run.args.get("n_classes")
    parts = [
        f"{classes} classes" if classes else "",
        f"{images['train']} training images" if images else "",
        f"{run.args['train_per_class']} images a class" if run.args.get("train_per_class") else "",
        str(run.args.get("backbone") or ""),
        f"{run.args['n_epochs']} epochs" if run.args.get("n_epochs") else "",
    ]
    return ", ".join(filter(None, parts))


def _origin(run: Run, cell: Cell) -> tuple[str, str, str, str]:
    """Return settings, size, hardware and commit of a run: what one line of measurements shares."""
    hardware, commit = run.results.get("hardware") or {}, run.results.get("commit") or {}
    processor = f"{hardware.get('processor', '?')}, threads: {hardware.get('threads', '?')}"
    machine = ", ".join(hardware.get("gpus") or [processor])
    changed = " with changes" if commit.get("dirty") else ""
    size = f"{SMALLER}: {size_of(run)}" if is_smaller(run, cell) else size_of(run)
    return run.settings(), size, machine, f"{str(commit.get('hash') or '?')[:7]}{changed}"


def measurements(cell: Cell, runs: Sequence[Run]) -> list[list[str]]:
    """Return a line for each group of runs that answer to a cell and differ in their seed alone."""
    groups: dict[tuple[str, ...], dict[int, float]] = defaultdict(dict)
    for run in runs:
        value = value_of(run, cell.figure) if answers(run, cell) else None
        if value is not None:
            groups[_origin(run, cell)][int(run.args["seed"])] = value
    lines = []
    for (settings, *rest), by_seed in sorted(groups.items()):
        seeds = " ".join(map(str, sorted(by_seed)))
        lines.append([cell.method, cell.column, cell.printed, spread(list(by_seed.values())), seeds, settings, *rest])
    return lines


def _reached(cell: Cell, runs: Sequence[Run]) -> str:
    """Return "measured", "smaller" (there are smaller runs alone) or nothing, for one cell."""
    found = [run for run in runs if answers(run, cell) and value_of(run, cell.figure) is not None]
    if not found:
        return ""
    return SMALLER if all(is_smaller(run, cell) for run in found) else "measured"


def _table(lines: Sequence[Sequence[str]]) -> list[str]:
    """Return lines of cells as a Markdown table, the first one its titles."""
    rows = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines]
    return [rows[0], "|" + "---|" * len(lines[0]), *rows[1:]]


def section(name: str, table: Mapping[str, Any], runs: Sequence[Run]) -> list[str]:
    """Return the lines of a table's section: what is printed, then what is measured."""
    grid: dict[str, list[str]] = defaultdict(list)
    measured: list[list[str]] = []
    for cell in cells_of(table):
        measured += measurements(cell, runs)
        shown = {"": cell.printed, SMALLER: f"{cell.printed} ({SMALLER})", "measured": f"**{cell.printed}**"}
        grid[cell.method].append(shown[_reached(cell, runs)])
    heads = ["printed", *(column["head"] for column in table["columns"])]
    about = textwrap.wrap(f"{table['source']}. {table['about']}", 120, break_long_words=False, break_on_hyphens=False)
    lines = [f"## {name}", *about, ""]
    lines += [*_table([heads, *([method, *row] for method, row in grid.items())]), ""]
    return [*lines, *(_table([TITLES, *measured]) if measured else [f"All of it: {MISSING}."]), ""]


def page(runs: Sequence[Run], tables: Mapping[str, Any]) -> str:
    """Return the whole of ``REPRODUCIBILITY.md``."""
    cells = [cell for table in tables.values() for cell in cells_of(table) if cell.printed != NO_FIGURE]
    reached = [_reached(cell, runs) for cell in cells]
    full, smaller = reached.count("measured"), reached.count(SMALLER)
    summary = f"\nOf {len(cells)} printed figures {full} are measured. For {smaller} others there are smaller runs.\n"
    lines = [line for name, table in tables.items() for line in section(name, table, runs)]
    return "\n".join([HEAD, summary, *lines]).rstrip("\n") + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page, and say where."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=RUNS, help="folder of finished runs")
    parser.add_argument("--out", type=Path, default=PAGE, help="the file to write")
    args = parser.parse_args(argv)
    runs, passed_over = read_runs([args.runs])
    args.out.write_text(page(runs, read_printed()), encoding="utf-8")
    print(args.out, *(f"passed over {line}" for line in passed_over), sep="\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
