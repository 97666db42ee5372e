"""Keep, for each task of a run, what its record has beside the accuracies of the chosen classifier.

That is the bytes that the method holds, and the accuracies of its other classifiers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pmi_cl.machine.state_fields import number_fields, whole_field
from pmi_cl.utils.records import metrics

ByTask = list[dict[str, Any] | None]  # None: a task of a version that did not count this


@dataclass
class TaskFigures:
    """Figures of each task, in the order of the tasks.

    Attributes:
        after_task: the bytes that the method holds beside its network after a task, by kind.
        while_training: the same before the first epoch of a task.
        classifiers: by each classifier but the chosen one, after a task: "class_il", the accuracies
            in % on tasks 0 to this one, and "micro", that over all images.
    """

    after_task: ByTask = field(default_factory=list)
    while_training: ByTask = field(default_factory=list)
    classifiers: ByTask = field(default_factory=list)

    def stored(self) -> dict[str, ByTask]:
        """Return the bytes for ``results.json``."""
        return {"after_task": self.after_task, "while_training": self.while_training}

    def by_classifier(self, chosen: str, summary: Mapping[str, Any]) -> dict[str, Any]:
        """Return the class-IL figures by classifier, for ``results.json``.

        It is empty where there is one classifier, or where a task was evaluated by one alone.

        Args:
            chosen: the classifier of the headline.
            summary: its figures, of :func:`pmi_cl.utils.records.metrics.summary`.
        """
        found = [entry for entry in self.classifiers if entry]
        if not found or len(found) < len(self.classifiers):
            return {}
        others = {
            name: metrics.summary(
                [entry[name]["class_il"] for entry in found], [entry[name]["micro"] for entry in found]
            )
            for name in found[-1]
        }
        return {chosen: summary, **others}

    def state(self) -> dict[str, ByTask]:
        """Return plain data for a checkpoint."""
        return {**self.stored(), "classifiers": self.classifiers}

    @classmethod
    def from_state(cls, state: Mapping[str, Any], evaluated: int, begun: int) -> TaskFigures:
        """Return the figures that :meth:`state` describes.

        Args:
            state: that of version 0.1 is empty.
            evaluated, begun: the number of tasks that have been evaluated, and begun to train.

        Raises:
            TypeError, ValueError: they are not those of so many tasks.
        """
        counts = {"after_task": evaluated, "while_training": begun, "classifiers": evaluated}
        checked = {"after_task": _bytes, "while_training": _bytes, "classifiers": _accuracies}
        lists = {name: state.get(name, [None] * count) for name, count in counts.items()}
        for name, count in counts.items():
            if not isinstance(lists[name], list) or len(lists[name]) != count:
                raise ValueError(f"{name} is not of the tasks before")
        return cls(
            **{
                name: [None if entry is None else checked[name](task, entry) for task, entry in enumerate(entries)]
                for name, entries in lists.items()
            }
        )


def _bytes(task: int, kinds: Any) -> dict[str, Any]:
    return {kind: whole_field(count) for kind, count in number_fields(kinds).items()}


def _accuracies(task: int, by_name: Any) -> dict[str, Any]:
    for figures in by_name.values():
        values = [*figures["class_il"], figures["micro"]]
        if len(values) != task + 2 or not all(isinstance(value, float) for value in values):
            raise ValueError("the accuracies of a classifier are not those of the tasks before")
    return dict(by_name)
