"""Classify images with the network of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from pmi_cl.datasets.augmentation import normalise
from pmi_cl.datasets.files.decoding import BadFile, square, square_of, try_in_order
from pmi_cl.datasets.files.file_names import shown_name
from pmi_cl.datasets.input_form import resized
from pmi_cl.datasets.reading import Reading
from pmi_cl.errors import UserError
from pmi_cl.machine.user_paths import user_path
from pmi_cl.utils.trained.typed_images import files_of

if TYPE_CHECKING:
    from PIL.Image import Image

    from pmi_cl.models.continual_model import ContinualModel
    from pmi_cl.utils.records.model_file import NetworkRecord

TOP = 5  # classes of a prediction
Source: TypeAlias = Path | Tensor
Images: TypeAlias = "str | Path | Image | Tensor | Sequence[str | Path | Image | Tensor]"


@dataclass(frozen=True)
class Prediction:
    """What a network says of an image.

    Attributes:
        image: the file; None: the image was given as pixels.
        class_name: the most probable class.
        label: its number, in the order in which the classes were learned.
        probability: of the class, among all classes that were learned (softmax of the logits).
        top: the most probable classes and their probabilities, falling.
    """

    image: str | None
    class_name: str
    label: int
    probability: float
    top: tuple[tuple[str, float], ...]


class TrainedModel:
    """The network of a run, ready for images. :func:`pmi_cl.load` makes it.

    Attributes:
        method: the method, a ``torch.nn.Module`` in evaluation mode: (b, 3, h, w), normalised, to
            logits (b, learned classes).
        record: the classes, the tasks, and what is done with an image.
        class_names: the classes that the network tells apart, in the order of the logits.
    """

    def __init__(self, method: ContinualModel, record: NetworkRecord) -> None:
        self.method, self.record = method, record
        method.eval()
        method.net.eval()
        self.class_names = record.learned
        form, device = record.preprocessing, method.device
        self._reading = Reading(form.background, form.white)
        self._mean, self._std = (torch.tensor(values, device=device) for values in (form.mean, form.std))

    @property
    def device(self) -> torch.device:
        """Return the device of the network."""
        return self.method.device

    @property
    def name(self) -> str:
        """Return the method, the data set and the seed of the run."""
        args = self.method.args
        return f"{args.model} on {args.dataset}, seed {args.seed}"

    @property
    def notes(self) -> list[str]:
        """Say what a user should know of predictions of images whose data set is not known."""
        domains = getattr(self.method.args, "domains", ())
        if len(domains) < 2 or self.record.preprocessing.form is not None:
            return []
        return [f"each of the {len(domains)} data sets of the run was normalised by its own values, here by their mean"]

    def predict(self, images: Images, top: int = TOP, batch_size: int | None = None) -> list[Prediction]:
        """Return a prediction for each image, in the order given.

        Args:
            images: a file, a folder (all images below it, sorted), a Pillow image, uint8 pixels
                (3, h, w) or (n, 3, h, w) of any size, or a sequence of these.
            top: how many of the most probable classes a prediction lists.
            batch_size: images that pass the network together. None: as in the method's evaluation.

        Raises:
            UserError: a file is missing or no image, or the network gives no finite numbers.
            TypeError: something else was given.
        """
        return list(self.predictions(self._sources(images), top, batch_size))

    def predictions(
        self,
        sources: Sequence[Source],
        top: int = TOP,
        batch_size: int | None = None,
        on_bad: Callable[[BadFile], object] = BadFile.refuse,
    ) -> Iterator[Prediction]:
        """Yield a prediction for each image. Files are decoded in threads while the network works.

        Args:
            sources: files, or uint8 pixels (3, h, w) on the CPU.
            top, batch_size: as in :meth:`predict`.
            on_bad: called with each file that cannot be read. If it returns, the file is left out.
        """
        size = batch_size or self.method.EVALUATION_BATCH
        readable = self._readable(sources, on_bad)
        while batch := list(islice(readable, size)):
            logits = self.logits(torch.stack([pixels for _, pixels in batch]))
            yield from self._named(logits, [source for source, _ in batch], top)

    @torch.no_grad()
    def logits(self, pixels: Tensor) -> Tensor:
        """Return the logits (b, learned classes) of pixels, uint8 (b, 3, h, w).

        Pixels of another side than that of ``record.preprocessing`` are resized to it.

        Raises:
            TypeError: the pixels are not uint8, or not of this shape.
        """
        if pixels.ndim != 4 or pixels.shape[1] != 3:
            raise TypeError(f"pixels are (b, 3, h, w), not {tuple(pixels.shape)}: pass pixels[None] for one image")
        if pixels.dtype != torch.uint8:
            raise TypeError(f"pixels are uint8, 0 to 255, not {pixels.dtype}: multiply images in [0, 1] by 255")
        form = self.record.preprocessing
        pixels = self._sized(pixels.to(self.device, non_blocking=True))
        inputs = pixels if form.form is None else resized(pixels, *form.form)
        return self.method(normalise(inputs, self._mean, self._std))[:, : len(self.class_names)]

    def _sources(self, images: Any) -> list[Source]:
        """Return what :meth:`predict` was given as files and pixels (3, h, w)."""
        from PIL import Image

        if isinstance(images, str | Path):
            return list(files_of(user_path(str(images), "the image")))
        if isinstance(images, Image.Image):
            form = self.record.preprocessing
            return [torch.from_numpy(square_of(images, form.side, form.decoding, self._reading).copy())]
        if isinstance(images, Tensor):
            shape = images.shape[-3:]
            if images.dtype != torch.uint8 or images.ndim not in (3, 4) or shape[0] != 3 or 0 in shape:
                given = f"{images.dtype} {tuple(images.shape)}"
                raise TypeError(f"{given} is no image: give uint8 pixels (3, h, w) or (n, 3, h, w)")
            return list(images.cpu() if images.ndim == 4 else images[None].cpu())
        if isinstance(images, Sequence):
            return [source for image in images for source in self._sources(image)]
        raise TypeError(f"{type(images).__name__} is no image: give files, folders, Pillow images or uint8 tensors")

    def _sized(self, pixels: Tensor) -> Tensor:
        """Return pixels (b, 3, h, w) as (b, 3, side, side)."""
        form = self.record.preprocessing
        same = pixels.shape[-2:] == (form.side, form.side)
        return pixels if same else resized(pixels, form.side, "squash" if form.decoding == "squash" else "crop")

    def _readable(
        self, sources: Sequence[Source], on_bad: Callable[[BadFile], object]
    ) -> Iterator[tuple[Source, Tensor]]:
        """Yield each image and its pixels, uint8 (3, side, side), on the CPU.

        Files are decoded ahead.
        """
        form = self.record.preprocessing
        files = [source for source in sources if isinstance(source, Path)]
        decoded = try_in_order(files, lambda path: square(path, form.side, form.decoding, self._reading))
        for source in sources:
            if isinstance(source, Tensor):
                yield source, self._sized(source[None])[0]
            elif isinstance(pixels := next(decoded), BadFile):
                on_bad(pixels)
            else:
                yield source, torch.from_numpy(pixels.copy())

    def _named(self, logits: Tensor, sources: Sequence[Any], top: int) -> Iterator[Prediction]:
        probabilities = logits.float().softmax(1)
        best = probabilities.topk(min(top, logits.shape[1]), dim=1)
        # One transfer from the device for the whole batch.
        for source, values, labels in zip(sources, best.values.tolist(), best.indices.tolist(), strict=True):
            image = shown_name(source) if isinstance(source, Path) else None
            if not values[0] >= 0:  # NaN
                raise UserError(f"the network gives no numbers for {image or 'an image'}: train it again")
            names = tuple((self.class_names[label], value) for label, value in zip(labels, values, strict=True))
            yield Prediction(image, names[0][0], labels[0], values[0], names)
