"""What holds for every data set: its images, its tasks, its batches, its options."""

from __future__ import annotations

import importlib
import math
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy
import pytest
import torch
from PIL import Image

import pmi_cl.datasets
from pmi_cl.datasets.continual_dataset import ContinualDataset
from pmi_cl.datasets.multi_domain import MultiDomain
from pmi_cl.datasets.selection import evenly_spread
from pmi_cl.errors import UserError
from pmi_cl.seeding import seeded
from tests.support.array_sets import write_array_sets
from tests.support.image_sets import write_cub, write_imagenet_r, write_tiny


def registered() -> list[type[ContinualDataset]]:
    """Return every class with a NAME in ``datasets/seq_*.py`` that has images of its own."""
    modules = [
        importlib.import_module(f"pmi_cl.datasets.{m.name}") for m in pkgutil.iter_modules(pmi_cl.datasets.__path__)
    ]
    # list[int] is no class.
    classes = {c for m in modules for c in vars(m).values() if isinstance(c, type) and not get_args(c)}
    found = {c for c in classes if issubclass(c, ContinualDataset) and "NAME" in vars(c)}
    found -= {c for c in found if issubclass(c, MultiDomain)}  # its tasks are other data sets: test_multi_domain.py
    return sorted(found, key=lambda c: c.NAME)


@pytest.fixture(scope="module")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write six classes of 20 random images. Return their folder."""
    root, random = tmp_path_factory.mktemp("images"), numpy.random.default_rng(0)
    for label in range(6):
        (root / f"class {label}").mkdir()
        for k in range(20):
            Image.fromarray(random.integers(0, 256, (18, 16, 3), dtype=numpy.uint8)).save(
                root / f"class {label}" / f"{k}.png"
            )
    return root


@pytest.fixture(scope="module")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write small sets in the layouts of the published ones. Return their ``base_path``."""
    base_path = tmp_path_factory.mktemp("layouts")
    write_tiny(base_path)
    write_cub(base_path, train=20, size=(16, 16))
    write_imagenet_r(base_path)
    return base_path


@pytest.fixture(scope="module")
def array_sets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Write small sets in the files of MNIST and its neighbours. Return their ``base_path``."""
    with pytest.MonkeyPatch.context() as patch:
        yield write_array_sets(tmp_path_factory.mktemp("arrays"), patch)


@pytest.fixture(scope="module", params=registered(), ids=lambda c: c.NAME)
def kind(request: pytest.FixtureRequest) -> type[ContinualDataset]:
    return request.param


@pytest.fixture(scope="module")
def values(kind: type[ContinualDataset], request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return the arguments that find the data of a data set, as small as its tests allow."""
    sources = {
        "seq-digits": lambda: {},
        "seq-folder": lambda: {"data_dir": str(request.getfixturevalue("image_folder")), "image_size": 16},
        "seq-cifar100": lambda: {
            "base_path": str(request.getfixturevalue("cifar100_dir")),
            "n_classes": 20,
            "train_per_class": 30,
        },
        **{
            name: lambda: {"base_path": str(request.getfixturevalue("array_sets"))}
            for name in ("seq-cifar10", "seq-mnist", "seq-fashion-mnist", "seq-svhn")
        },
        "seq-tinyimg": lambda: {"base_path": str(request.getfixturevalue("layouts"))},
        "seq-cub200": lambda: {"base_path": str(request.getfixturevalue("layouts")), "image_size": 16},
        "seq-imagenet-r": lambda: {
            "base_path": str(request.getfixturevalue("layouts")),
            "image_size": 8,
            "split": "proof",
            "allow_other_split": True,
        },
    }
    assert kind.NAME in sources, f"say in this fixture where the tests find {kind.NAME}"
    return sources[kind.NAME]()


@pytest.fixture(scope="module")
def dataset(kind: type[ContinualDataset], values: dict[str, Any]) -> ContinualDataset:
    return kind(SimpleNamespace(seed=3, **values), "cpu")


def build(kind: type[ContinualDataset], values: dict[str, Any], **more: Any) -> ContinualDataset:
    return kind(SimpleNamespace(**{**values, **more}), "cpu")


def test_the_registry_is_not_empty() -> None:
    assert {c.NAME for c in registered()} >= {
        "seq-digits",
        "seq-cifar100",
        "seq-folder",
        "seq-tinyimg",
        "seq-cub200",
        "seq-imagenet-r",
        "seq-cifar10",
        "seq-mnist",
        "seq-fashion-mnist",
        "seq-svhn",
    }


def test_images_and_labels(dataset: ContinualDataset) -> None:
    for split in (dataset.train, dataset.test):
        assert split.images.dtype == torch.uint8
        assert split.images.shape == (len(split.labels), 3, *dataset.SIZE)
        assert split.labels.dtype == torch.int64
        assert split.labels.unique().tolist() == list(range(dataset.N_CLASSES))


def test_tasks_part_the_classes_and_the_images(dataset: ContinualDataset) -> None:
    assert dataset.N_TASKS * dataset.N_CLASSES_PER_TASK == dataset.N_CLASSES
    assert [k for task in range(dataset.N_TASKS) for k in dataset.task_classes(task)] == list(range(dataset.N_CLASSES))
    for split, indices in ((dataset.train, dataset.train_indices), (dataset.test, dataset.test_indices)):
        for task in range(dataset.N_TASKS):
            assert split.labels[indices(task)].unique().tolist() == list(dataset.task_classes(task))
        rows = torch.cat([indices(task) for task in range(dataset.N_TASKS)])
        assert rows.sort().values.tolist() == list(range(len(split.labels)))


def test_names_and_order_fit_the_labels(dataset: ContinualDataset) -> None:
    assert len(dataset.class_names) == len(set(dataset.class_names)) == dataset.N_CLASSES
    assert len(set(dataset.class_order)) == dataset.N_CLASSES


def test_mean_and_std_are_those_of_the_images(dataset: ContinualDataset) -> None:
    batch = dataset.normalise(dataset.train.images)
    assert batch.mean((0, 2, 3)).abs().max() < 0.15
    assert (batch.std((0, 2, 3)) - 1).abs().max() < 0.15


def test_plain_batches_are_the_task_as_it_is(dataset: ContinualDataset) -> None:
    batches = list(dataset.plain_batches(1, "test", batch_size=7))
    rows = dataset.test_indices(1)
    assert [len(labels) for _, labels in batches[:-1]] == [7] * (math.ceil(len(rows) / 7) - 1)
    assert torch.equal(torch.cat([labels for _, labels in batches]), dataset.test.labels[rows])
    pixels = (dataset.denormalise(torch.cat([images for images, _ in batches])) * 255).round().to(torch.uint8)
    assert torch.equal(pixels, dataset.test.images[rows])


def test_an_epoch_shows_every_image_once(dataset: ContinualDataset) -> None:
    expected = dataset.train.images[dataset.train_indices(0)]
    ((inputs, labels, shown),) = dataset.train_batches(0, 0, batch_size=len(expected))
    assert torch.equal(shown.flatten(1).long().sum(1).sort().values, expected.flatten(1).long().sum(1).sort().values)
    assert not torch.equal(shown, expected)
    assert inputs.shape == shown.shape == (len(labels), 3, *dataset.SIZE)
    assert inputs.dtype == torch.float32
    assert inputs.is_contiguous(memory_format=torch.channels_last)
    assert set(labels.tolist()) <= set(dataset.task_classes(0))


def test_equal_seeds_give_equal_batches_and_others_do_not(
    dataset: ContinualDataset, kind: type[ContinualDataset], values: dict[str, Any]
) -> None:
    first = next(dataset.train_batches(0, 1, batch_size=16))
    again = next(build(kind, values, seed=3).train_batches(0, 1, batch_size=16))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    for other in (
        build(kind, values, seed=4).train_batches(0, 1, 16),
        dataset.train_batches(0, 2, 16),
        dataset.train_batches(1, 1, 16),
    ):
        assert not torch.equal(first[0], next(other)[0])


def test_an_epoch_resumes_at_any_step_bit_for_bit(dataset: ContinualDataset) -> None:
    whole = list(dataset.train_batches(1, 4, batch_size=4))
    assert len(whole) > 2
    for start in (0, 2, len(whole) - 1, len(whole)):
        rest = list(dataset.train_batches(1, 4, batch_size=4, start=start))
        assert len(rest) == len(whole) - start
        assert all(
            torch.equal(a, b) for x, y in zip(rest, whole[start:], strict=True) for a, b in zip(x, y, strict=True)
        )


def test_the_last_batch(dataset: ContinualDataset) -> None:
    count = len(dataset.train_indices(0))
    size = count // 2 - 1  # two full batches and a rest of two or three
    assert [len(batch[1]) for batch in dataset.train_batches(0, 0, size)] == [size, size]
    assert dataset.steps_per_epoch(0, size) == 2 and dataset.steps_per_epoch(0, count + 1) == 1
    assert [len(batch[1]) for batch in dataset.train_batches(0, 0, count + 1)] == [count]


def test_augmentation_takes_pixels_and_normalised_images(dataset: ContinualDataset) -> None:
    images = dataset.train.images[:12]
    from_pixels = dataset.augment(images, seeded(0))
    assert torch.equal(from_pixels, dataset.augment(dataset.normalise(images), seeded(0)))
    assert not torch.equal(from_pixels, dataset.augment(images, seeded(1)))


def test_every_number_of_tasks_that_divides(
    dataset: ContinualDataset, kind: type[ContinualDataset], values: dict[str, Any]
) -> None:
    divisors = [n for n in range(1, dataset.N_CLASSES + 1) if dataset.N_CLASSES % n == 0]
    for n_tasks in divisors:
        kind.check(SimpleNamespace(**values, n_tasks=n_tasks))
    split = build(kind, values, n_tasks=divisors[1])
    assert [len(split.task_classes(task)) for task in range(split.N_TASKS)] == [
        dataset.N_CLASSES // divisors[1]
    ] * divisors[1]
    assert torch.equal(split.train.labels, dataset.train.labels)
    assert len(split.train_indices(0)) == int((split.train.labels < split.N_CLASSES_PER_TASK).sum())


def test_the_class_order_renames_the_labels(
    dataset: ContinualDataset, kind: type[ContinualDataset], values: dict[str, Any]
) -> None:
    natural = build(kind, {k: v for k, v in values.items() if k != "n_classes"}, class_order="natural")
    shuffled = build(kind, {k: v for k, v in values.items() if k != "n_classes"}, class_order="seed:5")
    assert natural.class_order == list(range(natural.N_CLASSES))
    assert shuffled.class_order == numpy.random.RandomState(5).permutation(natural.N_CLASSES).tolist()
    assert torch.equal(torch.tensor(shuffled.class_order)[shuffled.test.labels], natural.test.labels)
    assert [natural.class_names[k] for k in shuffled.class_order] == shuffled.class_names


def test_fewer_classes_are_the_first_of_the_order(kind: type[ContinualDataset], values: dict[str, Any]) -> None:
    full = build(kind, {**values, "class_order": "seed:5"})
    few = build(kind, {**values, "class_order": "seed:5", "n_classes": 4, "n_tasks": 2})
    assert few.N_CLASSES == kind.n_classes(SimpleNamespace(**{**values, "n_classes": 4})) == 4
    assert few.class_names == full.class_names[:4]
    for split, whole in ((few.train, full.train), (few.test, full.test)):
        rows = whole.labels < 4
        assert torch.equal(split.images, whole.images[rows])
        assert torch.equal(split.labels, whole.labels[rows])


def test_fewer_images_are_the_first_of_each_class(
    dataset: ContinualDataset, kind: type[ContinualDataset], values: dict[str, Any]
) -> None:
    few = build(kind, values, train_per_class=3)
    assert few.train.labels.bincount().tolist() == [3] * few.N_CLASSES
    assert torch.equal(few.test.images, dataset.test.images)
    for label in (0, few.N_CLASSES - 1):
        assert torch.equal(
            few.train.images[few.train.labels == label], dataset.train.images[dataset.train.labels == label][:3]
        )


def test_a_held_out_part_replaces_the_test_split(kind: type[ContinualDataset], values: dict[str, Any]) -> None:
    whole_values = {k: v for k, v in values.items() if k != "train_per_class"}
    whole, part = build(kind, whole_values), build(kind, whole_values, validation=0.15)
    counts = whole.train.labels.bincount().tolist()
    held = [math.ceil(round(0.15 * count, 9)) for count in counts]
    assert part.test.labels.bincount().tolist() == held
    assert part.train.labels.bincount().tolist() == [count - h for count, h in zip(counts, held, strict=True)]
    both = torch.cat([part.train.images, part.test.images]).flatten(1).long()
    weight = torch.arange(both.shape[1])
    assert torch.equal((both @ weight).sort().values, (whole.train.images.flatten(1).long() @ weight).sort().values)
    assert not torch.equal(part.test.images, build(kind, whole_values, validation=0.15, seed=9).test.images)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"n_tasks": 0}, "do not split into 0 equal tasks"),
        ({"n_tasks": -2}, "do not split into -2 equal tasks"),
        ({"n_tasks": 1000}, "do not split into 1000 equal tasks"),
        ({"n_classes": 1}, "--n_classes 1:"),
        ({"n_classes": 201}, "choose 2 to"),
        ({"train_per_class": 0}, "--train_per_class 0:"),
        ({"validation": -0.1}, "--validation -0.1:"),
        ({"validation": 1.0}, "--validation 1:"),
        ({"class_order": "alphabetical"}, "unknown class order 'alphabetical'"),
        ({"class_order": "0,1"}, "the class order lacks 2,"),
    ],
)
def test_values_that_do_not_fit_are_refused(
    kind: type[ContinualDataset], values: dict[str, Any], wrong: dict[str, Any], message: str
) -> None:
    args = SimpleNamespace(**{**values, **wrong})
    for refuse in (kind.check, lambda args: kind(args, "cpu")):
        with pytest.raises(UserError) as caught:
            refuse(args)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_held_out_part_that_leaves_nothing_is_refused(kind: type[ContinualDataset], values: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="would hold out all"):
        build(kind, values, validation=0.999)


def test_checking_needs_no_torch() -> None:
    program = (
        "import sys; from types import SimpleNamespace as N; "
        "from pmi_cl.datasets import seq_cifar100, seq_digits, seq_folder;"
        "seq_digits.SeqDigits.check(N(n_tasks=2)); seq_cifar100.SeqCifar100.check(N(base_path='nowhere', n_tasks=20));"
        "print(seq_digits.SeqDigits.n_classes(N()), 'torch' in sys.modules)"
    )
    root = Path(__file__).resolve().parent.parent
    run = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["10", "False"]


def test_evenly_spread() -> None:
    assert evenly_spread(10, 0.2) == [4, 9]
    assert evenly_spread(7, 0.2) == [6]
    assert evenly_spread(2, 0.9) == [1]
    for count in range(2, 60):
        for fraction in (0.01, 0.2, 0.5, 0.9):
            places = evenly_spread(count, fraction)
            assert len(set(places)) == len(places) == min(max(round(fraction * count), 1), count - 1)
            assert 0 <= min(places) <= max(places) < count


def test_every_template_takes_a_name(dataset: ContinualDataset) -> None:
    for template in (dataset.PROMPT, *dataset.TEMPLATES):
        assert template.count("{}") == 1
        assert "walrus" in template.format("walrus")
    assert len(set(dataset.TEMPLATES)) == len(dataset.TEMPLATES) > 0
    assert len(dataset.prompt_names) == len(set(dataset.prompt_names)) == dataset.N_CLASSES
    assert dataset.NAME == "seq-imagenet-r" or not any("_" in name for name in dataset.prompt_names)
