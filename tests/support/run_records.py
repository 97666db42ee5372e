"""Records of runs that never ran, for tests of what is made from records."""

from __future__ import annotations

import json
from pathlib import Path

from pmi_cl.utils.reports.comparison import Row, comparisons, read_runs


def record(
    folder: Path,
    seed: int,
    last: float,
    *,
    lr: float = 0.1,
    status: str = "finished",
    model: str = "sgd",
    **preset: object,
) -> None:
    """Return the record of a run of two tasks that ends at ``last``.

    ``preset``: options that a preset set.
    """
    folder.mkdir(parents=True)
    parts = {"model": model, "dataset": "seq-digits", "backbone": "resnet20", "model_config": "digits"}
    values = {**parts, "seed": seed, "lr": lr, **preset}
    sources = {"lr": "flag" if lr != 0.1 else "default", **dict.fromkeys(preset, "preset digits")}
    args = {name: {"value": value, "source": sources.get(name, "flag")} for name, value in values.items()}
    figures = {"matrix": [[90.0], [last - 5, last + 5]], "last": last, "average": last + 1, "forgetting": 2.0}
    results = {
        "status": status,
        "class_il": figures,
        "task_il": figures,
        "seconds": {"training": 30.0, "evaluation": 30.0},
        "peak_memory_mib": {"training": 300.0, "evaluation": 200.0},
    }
    (folder / "args.json").write_text(json.dumps({"args": args}))
    (folder / "results.json").write_text(json.dumps({**results, "inversion": {"seconds_per_image": None}}))


def in_results(folder: Path, **figures: object) -> None:
    """Change what a record says beside its arguments."""
    path = folder / "results.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **figures}))


def rows_below(folder: Path) -> list[Row]:
    """Return the rows of the one protocol there."""
    ((_, rows),) = comparisons(read_runs([folder])[0]).items()
    return rows
