"""Test what is published.

Every record under ``results/runs`` can be read, and the README's table is what they say.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from pmi_cl.utils.reports.comparison import Row, comparisons, read_runs
from pmi_cl.utils.reports.comparison_tables import FIGURES, spread

ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / "results" / "runs"
HEADLINES = {
    ("joint", "digits"),
    ("pmi_rdfcil", "best"),
    ("pmi_rdfcil", "paper"),
    ("rdfcil", "digits"),
    ("sgd", "digits"),
}


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    """Return the rows on seq-digits."""
    runs, passed_over = read_runs([RUNS])
    assert passed_over == [] and len(runs) == len(list(RUNS.rglob("results.json")))
    return comparisons(runs)["seq-digits, 5 tasks, class_order natural; networks from scratch"]


def test_records_are_named_by_their_seed(rows: list[Row]) -> None:
    assert all(run.path.name.endswith(f"-seed{seed}") for row in rows for seed, run in row.runs.items())
    assert not any(row.repeats for row in rows)


@pytest.mark.parametrize(("method", "preset"), sorted(HEADLINES))
def test_the_readmes_table_is_what_the_records_say(rows: list[Row], method: str, preset: str) -> None:
    """There are three seeds, of one commit without changes of its own."""
    lines = [
        line
        for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
        if line.startswith(f"| `{method}` | `{preset}`")
    ]
    assert len(lines) == 1
    candidates = [
        row for row in rows if row.method == method and row.settings.split()[0] == preset and len(row.runs) == 3
    ]
    figures = [
        [spread(list(row.figure(*FIGURES[name]).values())) for name in ("last, %", "average, %", "forgetting")]
        for row in candidates
    ]
    shown = [cell.strip() for cell in lines[0].strip("|").split("|")][2:]
    assert shown in figures
    row = candidates[figures.index(shown)]
    commits = {(run.results["commit"]["hash"], run.results["commit"]["dirty"]) for run in row.runs.values()}
    assert len(commits) == 1 and not commits.pop()[1]
