"""The tables and the picture of what an inversion still holds of its targets."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pmi_cl.benchmarks.report import aligned_table
from pmi_cl.utils.records.atomic import write_atomically

Row = Mapping[str, Any]


def means(record: Row, part: str, key: str) -> dict[str, list[tuple[int, float, float]]]:
    """Return (layer or step, mean accuracy, mean cosine) over the seeds, by the name of the run.

    Args:
        record: of the benchmark.
        part: ``layers`` or ``full``.
        key: ``layer`` or ``steps``, by which the rows of a seed go together.
    """
    seeds = record["seeds"]
    return {
        name: [
            (
                int(row[key]),
                statistics.mean(seed[part][name][number]["accuracy"] for seed in seeds),
                statistics.mean(seed[part][name][number]["cosine"] for seed in seeds),
            )
            for number, row in enumerate(rows)
        ]
        for name, rows in seeds[0][part].items()
    }


def report(record: Row) -> str:
    """Return the whole report."""
    settings, seeds = record["settings"], record["seeds"]
    accuracies = ", ".join(f"{seed['test_accuracy']:.3f}" for seed in seeds)
    own = statistics.mean(seed["targets"]["accuracy"] for seed in seeds)
    head = (
        f"{settings['dataset']}, {settings['network']['backbone']}, test accuracy {accuracies}; seeds "
        f"{' '.join(str(seed['seed']) for seed in seeds)}; {settings['images']} images; "
        f"the targets themselves: {own:.2f}\naccuracy for the label that was asked for / centred cosine to the target"
    )
    layers = means(record, "layers", "layer")
    full = means(record, "full", "steps")
    layer_names = ["image" if layer == 0 else str(layer) for layer, _, _ in next(iter(layers.values()))]
    step_names = [str(steps) for steps, _, _ in next(iter(full.values()))]
    return "\n\n".join(
        [
            head,
            _table("after the sweep of layer", layer_names, layers),
            _table("after full-model steps to the right targets", step_names, full),
        ]
    )


def _table(title: str, names: Sequence[str], rows: Mapping[str, Sequence[tuple[int, float, float]]]) -> str:
    cells = [[name, *(f"{accuracy:.2f}/{cosine:.2f}" for _, accuracy, cosine in row)] for name, row in rows.items()]
    return "\n".join(aligned_table([[title, *names], *cells]))


def draw(record: Row, path: Path) -> None:
    """Draw the accuracy after each layer and after full-model steps: means, and a dot a seed."""
    from matplotlib.figure import Figure

    settings, seeds = record["settings"], record["seeds"]
    figure = Figure(figsize=(10, 4), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, part, key in ((left, "layers", "layer"), (right, "full", "steps")):
        for place, (name, row) in enumerate(means(record, part, key).items()):
            colour = {"pmi": "C0", "pmi, lower rate": "C1", "pmi, shuffled targets": "C2"}.get(name, f"C{place + 3}")
            axes.plot([accuracy for _, accuracy, _ in row], color=colour, label=name, marker="o", markersize=3)
            for seed in seeds:
                axes.plot([one["accuracy"] for one in seed[part][name]], ".", color=colour, alpha=0.35)
        ticks = [one[key] for one in seeds[0][part]["pmi"]]
        axes.set_xticks(range(len(ticks)), ["image" if part == "layers" and tick == 0 else str(tick) for tick in ticks])
        axes.axhline(0.1, color="grey", linewidth=1, linestyle=":")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    left.set(xlabel="after the sweep of layer", ylabel="recognised as the label asked for", ylim=(0, 1.03))
    right.set(xlabel="after full-model steps to the right targets")
    network, numbers = settings["network"]["backbone"], " ".join(str(seed["seed"]) for seed in seeds)
    title = f"PMI's targets: {settings['dataset']}, {network}, seeds {numbers}; dotted: chance"
    figure.suptitle(title, fontsize=11)
    write_atomically(path, lambda file: figure.savefig(file, format="png"), "--picture")
