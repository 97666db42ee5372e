"""Present a sequence of data sets as one.

Each task brings images, class names, templates and normalisation of its own.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from pmi_cl.datasets.continual_dataset import ContinualDataset, ProgressCallback, RawData
from pmi_cl.datasets.dataset_outline import DataArguments
from pmi_cl.datasets.domain_images import DomainImages
from pmi_cl.datasets.input_form import InputForm, resized
from pmi_cl.datasets.selection import PlacedSplit
from pmi_cl.datasets.task_split import TaskSplit
from pmi_cl.errors import UserError
from pmi_cl.machine.plain_text import printable
from pmi_cl.machine.user_paths import user_path
from pmi_cl.options import select
from pmi_cl.registry.catalogue import INSTALLED, canonical

if TYPE_CHECKING:
    from torch import Generator, Tensor

# What the sequence decides: each domain is one task.
OF_THE_SEQUENCE = ("n_tasks", "base_classes", "classes_per_task", "stop_after", "domains", "data_dir")


@dataclass(frozen=True)
class Domain:
    """One data set of the sequence.

    Attributes:
        name: the name in tables: that of the data set, or that of the folder.
        kind: the class of the data set.
        args: the run's arguments, as this data set reads them.
    """

    name: str
    kind: type[ContinualDataset]
    args: SimpleNamespace


@dataclass(frozen=True)
class MultiDomainArguments:
    """The arguments that are read beside :class:`DataArguments`."""

    image_size: int | None = None


class MultiDomain(ContinualDataset):
    """Data sets in a row, a task each. A subclass names them in :meth:`words`.

    A CLIP gets the images of each in its own form. A ResNet gets all in one size, each normalised
    as its data set says and augmented as its data set allows.

    Attributes:
        domains: the data sets, opened. The labels of each begin at 0.
    """

    OWN_TASKS = True
    PADDING = 1  # of synthetic images that are varied again; set when the common size is known

    @classmethod
    @abstractmethod
    def words(cls, args: SimpleNamespace) -> Sequence[str]:
        """Return the name of each data set, "seq-folder:DIR" for a folder of images.

        Raises:
            UserError: the names cannot be read.
        """

    @classmethod
    def outline(cls, args: SimpleNamespace) -> list[Domain]:
        """Return the domains, without torch and without reading images.

        Raises:
            UserError: there is none, one is unknown, or two share a name.
        """
        domains = [_domain(word, args) for word in cls.words(args)]
        if not domains:
            raise UserError(f"{cls.NAME} needs --domains: name data sets, as in --domains seq-digits,seq-folder:DIR")
        twice = [name for name, count in Counter(domain.name for domain in domains).items() if count > 1]
        if twice:
            raise UserError(
                f"--domains: two domains are called '{twice[0]}'; name each once, and rename one of two folders"
            )
        return domains

    @classmethod
    def task_split(cls, args: SimpleNamespace) -> TaskSplit:
        """Return a task for each domain. Raise UserError if tasks of another size are asked for."""
        sizes = tuple(_n_classes(domain) for domain in cls.outline(args))
        asked = select(DataArguments, vars(args))
        if asked.base_classes or asked.classes_per_task:
            advice = "leave --base_classes and --classes_per_task out"
            raise UserError(f"{cls.NAME} has one task for each of --domains: {advice}")
        if asked.n_tasks not in (None, len(sizes)):
            raise UserError(f"--n_tasks {asked.n_tasks}: {cls.NAME} has one task for each of its {len(sizes)} domains")
        return TaskSplit(sizes)

    @classmethod
    def shown_classes(cls, args: SimpleNamespace) -> list[int]:
        """Return the classes of all domains, in the order of the domains."""
        return list(range(cls.task_split(args).n_classes))

    @classmethod
    def image_size(cls, args: SimpleNamespace) -> int:
        """Return the common side: the one asked for, else the largest of the domains."""
        asked = select(MultiDomainArguments, vars(args)).image_size
        return asked or max(domain.kind.image_size(domain.args) for domain in cls.outline(args))

    @classmethod
    def check_data(cls, args: SimpleNamespace) -> None:
        """Let each domain check its data. An error names the domain."""
        for domain in cls.outline(args):
            with _named(domain):
                domain.kind.check(domain.args)

    @classmethod
    def missing_files(cls, args: SimpleNamespace) -> list[tuple[str, Path]]:
        """Return what the domains will fetch."""
        return [file for domain in cls.outline(args) for file in domain.kind.missing_files(domain.args)]

    def load(self, args: SimpleNamespace, progress: ProgressCallback | None) -> RawData:
        """Raise NotImplementedError: each domain loads its own images."""
        raise NotImplementedError

    def _read(self, args: SimpleNamespace, progress: ProgressCallback | None) -> None:
        outline = self.outline(args)
        self.domains = [domain.kind(domain.args, self.device, progress) for domain in outline]
        _refuse_other_channels([domain.name for domain in outline], self.domains)
        size = self.image_size(args)
        for domain in self.domains:
            domain.PADDING = max(1, round(domain.PADDING * size / domain.SIZE[0]))
            domain.present_as(InputForm(size, domain.MEAN, domain.STD, augment="own"))
        self.SIZE, self.PADDING, self.FLIP = (size, size), max(1, size // 8), all(d.FLIP for d in self.domains)
        self.MEAN, self.STD = (_mean([getattr(d, name) for d in self.domains]) for name in ("MEAN", "STD"))
        self.class_names = [name for domain in self.domains for name in domain.class_names]
        self.fingerprint = "+".join(f"{domain.NAME}:{domain.fingerprint}" for domain in self.domains)
        self.uncut = sum(domain.uncut for domain in self.domains)
        sizes = TaskSplit(tuple(domain.N_CLASSES for domain in self.domains))
        self._labels = sizes  # which domain a label belongs to, however many domains a task has
        self.train = DomainImages.joined([domain.train for domain in self.domains], sizes)
        self.test = DomainImages.joined([domain.test for domain in self.domains], sizes)

    def without_effect(self, args: SimpleNamespace) -> list[str]:
        """Return the options that take nothing away from any domain."""
        outline = self.outline(args)
        idle = [set(data.without_effect(named.args)) for data, named in zip(self.domains, outline, strict=True)]
        return sorted(set.intersection(*idle))

    def present_as(self, form: InputForm) -> None:
        """Let every domain give its images in a network's form."""
        super().present_as(form)
        for domain in self.domains:
            domain.present_as(form)

    @property
    def prompt_names(self) -> list[str]:
        """Return the name of each label as the prompts of its data set have it."""
        return [name for domain in self.domains for name in domain.prompt_names]

    def prompt_of(self, label: int) -> str:
        """Return the training prompt of the data set that a label belongs to."""
        domain = self._labels.task_of(label)
        return self.domains[domain].prompt_of(label - self._labels.past(domain))

    def templates_of(self, label: int) -> tuple[str, ...]:
        """Return the templates of the data set that a label belongs to."""
        domain = self._labels.task_of(label)
        return self.domains[domain].templates_of(label - self._labels.past(domain))

    def normalise(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return uint8 (b, c, h, w) as float32, normalised by the data set of each label.

        ``labels`` (b,) may be left out if a network's form is the same for all.
        """
        if labels is None:
            if self.form is None:
                raise ValueError("images of several data sets are normalised by their labels: pass them")
            return super().normalise(images)
        return self._by_domain(labels, lambda domain, places: self.domains[domain].normalise(images[places]))

    def denormalise(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return normalised (b, c, h, w) as floats in [0, 1], by the data set of each label."""
        if labels is None or self.form:
            return super().denormalise(images)
        domains = self._labels.tasks_of(labels).tolist()
        return _cat(
            [self.domains[domain].denormalise(image[None]) for domain, image in zip(domains, images, strict=True)]
        )

    def augment(self, images: Tensor, generator: Generator) -> Tensor:
        """Augment normalised float images (b, c, h, w) of any domains, such as synthetic ones.

        Images are mirrored only if every domain may be mirrored. Where their colours vary, mean and
        deviation are the means over the domains. A network's form comes before that.
        """
        if self.form is None and not images.is_floating_point():
            raise ValueError("pixels of several data sets come augmented from train_batches(); pass floats here")
        return super().augment(images, generator)

    def augment_pixels(self, pixels: Tensor, labels: Tensor, generator: Generator) -> Tensor:
        """Augment uint8 images (b, c, h, w) of any domains, each as its own data set does."""
        return self._by_domain(labels, lambda domain, places: self.domains[domain].augment(pixels[places], generator))

    def _by_domain(self, labels: Tensor, made: Callable[[int, Tensor], Tensor]) -> Tensor:
        """Return images in the order of ``labels``, made for the places of one domain at a time."""
        domains = self._labels.tasks_of(labels)
        parts = [(domain, (domains == domain).nonzero().squeeze(1)) for domain in domains.unique().tolist()]
        return _in_order([(d, places, places) for d, places in parts], [made(d, places) for d, places in parts])

    def _normalised(self, split: PlacedSplit, rows: Tensor) -> Tensor:
        assert isinstance(split, DomainImages)
        parts = split.by_domain(rows)
        return _in_order(parts, [self.domains[d].normalise(split.parts[d].pixels(local)) for d, _, local in parts])

    def _augmented(self, rows: Tensor, *key: int) -> tuple[Tensor, Tensor]:
        assert isinstance(self.train, DomainImages)
        parts = self.train.by_domain(rows)
        own = len(parts) == 1  # a task of one data set draws the numbers that the data set would draw
        pairs = [self.domains[d]._augmented(local, *key, *(() if own else (d,))) for d, _, local in parts]
        pixels = [raw if own else resized(raw, self.SIZE[0], "squash") for _, raw in pairs]
        return _in_order(parts, [inputs for inputs, _ in pairs]), _in_order(parts, pixels)


def _domain(word: str, args: SimpleNamespace) -> Domain:
    """Return the data set that "seq-digits" or "seq-folder:DIR" names. Raise UserError if none."""
    name, _, folder = word.strip().partition(":")
    entry = INSTALLED.find("dataset", name)
    kind: type[ContinualDataset] = entry.load()
    if issubclass(kind, MultiDomain):
        raise UserError(f"--domains {word}: a sequence is no domain of another, name its data sets")
    takes_folder = any(option.name == "data_dir" for option in entry.options)
    if takes_folder != bool(folder):
        example = f"{entry.name}:DIR" if takes_folder else entry.name
        raise UserError(f"--domains {word}: write {example}")
    own: dict[str, Any] = {key: value for key, value in vars(args).items() if key not in OF_THE_SEQUENCE}
    if own.get("image_size") is None:
        own.pop("image_size", None)
    root = user_path(folder, f"--domains {entry.name}:") if folder else None
    own |= {"n_tasks": 1, **({"data_dir": str(root)} if root else {})}
    label = printable(root.resolve().name) if root else canonical(entry.name)
    domain = Domain(label, kind, SimpleNamespace(**own))
    with _named(domain):
        total = kind.total_classes(domain.args)
    if own.get("n_classes"):  # of each domain, as far as it has so many
        domain.args.n_classes = min(own["n_classes"], total)
    return domain


def _n_classes(domain: Domain) -> int:
    with _named(domain):
        return domain.kind.n_classes(domain.args)


@contextmanager
def _named(domain: Domain) -> Iterator[None]:
    """Let an error name the domain and not the flag that the data set has when it stands alone."""
    try:
        yield
    except UserError as error:
        raise UserError(f"--domains {domain.name}: {str(error).replace('--data_dir ', '')}") from error


def _refuse_other_channels(names: Sequence[str], domains: Sequence[ContinualDataset]) -> None:
    """Raise UserError if the images of a domain have other channels than those of the first."""
    channels = [domain.train.channels for domain in domains]
    for name, found in zip(names, channels, strict=True):
        if found != channels[0]:
            raise UserError(
                f"--domains {name}: its images have {found} channels, those of {names[0]} have {channels[0]}; "
                "a network takes one number of channels"
            )


def _mean(values: Sequence[tuple[float, ...]]) -> tuple[float, ...]:
    return tuple(sum(channel) / len(values) for channel in zip(*values, strict=True))


def _in_order(parts: Sequence[tuple[int, Tensor, Tensor]], images: Sequence[Tensor]) -> Tensor:
    """Return the images of all parts at their places in the batch."""
    if len(images) == 1:
        return images[0]
    import torch

    places = torch.cat([place for _, place, _ in parts])
    return _cat(images)[places.argsort().to(images[0].device)]


def _cat(images: Sequence[Tensor]) -> Tensor:
    import torch

    return torch.cat(list(images))
