"""Keep the network of a run in one small file, and say what is needed to use it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

from pmi_cl.utils.records.model_file import NetworkRecord, Preprocessing, write_model

if TYPE_CHECKING:
    from pmi_cl.datasets.continual_dataset import ContinualDataset
    from pmi_cl.models.continual_model import ContinualModel


def keep_network(path: Path, model: ContinualModel, dataset: ContinualDataset, args: SimpleNamespace) -> int:
    """Write the network as it is after the current task. Return the bytes of the file.

    The weights of a frozen backbone are left out: they are found again as they were for the run.
    """
    training = model.net.training
    model.net.eval()
    try:
        return write_model(path, model.network_state(), describe(model, dataset, args))
    finally:
        model.net.train(training)


def describe(model: ContinualModel, dataset: ContinualDataset, args: SimpleNamespace) -> NetworkRecord:
    """Return what must be known of a method to use it on images.

    Args:
        model: the method after its current task.
        dataset: the data set of the run, as the network gets its images.
        args: the arguments of the run.
    """
    labels = range(len(dataset.class_names))
    texts = [(dataset.prompt_of(label), tuple(dataset.templates_of(label))) for label in labels]
    different = tuple(dict.fromkeys(texts))
    form = dataset.form
    return NetworkRecord(
        args=dict(vars(args)),
        class_names=tuple(dataset.class_names),
        prompt_names=tuple(dataset.prompt_names),
        texts=different,
        text_of=tuple(different.index(text) for text in texts),
        tasks=tuple(model.dataset.tasks.sizes),
        task=model.current_task,
        preprocessing=Preprocessing(
            side=dataset.image_size(args),
            decoding=dataset.decoding,
            mean=tuple(dataset.MEAN),
            std=tuple(dataset.STD),
            background=dataset.reading.background,
            white=dataset.reading.white,
            form=None if form is None else (form.size, form.resize),
        ),
        data=dataset.fingerprint,
        weights=getattr(model.net, "weights_record", None),
    )
