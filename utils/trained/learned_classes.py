"""Stand in for the data set of a run whose network is used without its images."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import torch

from pmi_cl.datasets.continual_dataset import ContinualDataset, ProgressCallback, RawData
from pmi_cl.datasets.input_form import InputForm
from pmi_cl.datasets.task_split import TaskSplit

if TYPE_CHECKING:
    from pmi_cl.utils.records.model_file import NetworkRecord


class LearnedClasses(ContinualDataset):
    """The classes, tasks and texts of a run, and how its images are normalised; no images.

    A method is built on it and classifies. It cannot train.
    """

    def __init__(self, record: NetworkRecord, seed: int, device: torch.device) -> None:
        self.record, self.seed, self.device = record, seed, device
        form = record.preprocessing
        self.class_names = list(record.class_names)
        self.class_order = list(range(len(record.class_names)))
        self.SIZE, self.MEAN, self.STD = (form.side, form.side), form.mean, form.std
        self._set_tasks(TaskSplit(record.tasks))
        self.N_CLASSES = len(record.class_names)  # joint training may have stopped before the last
        self._mean, self._std = (torch.tensor(values, device=device) for values in (form.mean, form.std))
        self.form: InputForm | None = None
        self.restore_form()

    def restore_form(self) -> None:
        """Present images as the run did, whatever a backbone has asked for since."""
        form = self.record.preprocessing
        if form.form is not None:
            self.present_as(InputForm(form.form[0], form.mean, form.std, form.form[1]))

    @property
    def prompt_names(self) -> list[str]:
        """Return the name of each label as a prompt has it."""
        return list(self.record.prompt_names)

    def prompt_of(self, label: int) -> str:
        """Return the sentence that a class was trained by."""
        return self.record.texts[self.record.text_of[label]][0]

    def templates_of(self, label: int) -> tuple[str, ...]:
        """Return the sentences for a class whose features are averaged for the evaluation."""
        return self.record.texts[self.record.text_of[label]][1]

    @classmethod
    def check_data(cls, args: SimpleNamespace) -> None:
        """Do nothing: there are no images."""

    def load(self, args: SimpleNamespace, progress: ProgressCallback | None) -> RawData:
        """Raise NotImplementedError: there are no images."""
        raise NotImplementedError
