"""Exemplars: herding against an exhaustive search, the memory's budget, draws and states."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pmi_cl.models.resnet.exemplars import ExemplarMemory, choose_exemplars, exemplars_at, herding
from pmi_cl.registry import catalogue
from pmi_cl.seeding import seeded

CPU = torch.device("cpu")


def digits(**flags: Any) -> Any:
    args = SimpleNamespace(**{"n_tasks": 2, "n_classes": 4, "train_per_class": 12, **flags})
    return catalogue.load("dataset", "seq-digits")(args, CPU)


def a_memory(*counts: int) -> ExemplarMemory:
    """Return a memory with so many images of each class. Every pixel is the number of the row."""
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    rows = torch.arange(len(labels), dtype=torch.uint8)
    return ExemplarMemory(rows[:, None, None, None].expand(-1, 3, 2, 2).clone(), labels)


def by_exhaustive_search(points: np.ndarray, count: int) -> list[int]:
    """Choose one row after the other: of all that are left, the one by which the mean is best."""
    chosen: list[int] = []
    for _ in range(count):
        left = [row for row in range(len(points)) if row not in chosen]
        misses = [np.linalg.norm(points.mean(0) - points[[*chosen, row]].mean(0)) for row in left]
        chosen.append(left[int(np.argmin(misses))])
    return chosen


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("count", [1, 3, 5])
def test_herding_is_an_exhaustive_search_on_five_points(seed: int, count: int) -> None:
    points = F.normalize(torch.randn(5, 3, generator=seeded(seed), dtype=torch.float64))
    assert herding(points, count).tolist() == by_exhaustive_search(points.numpy(), count)


def test_herding_keeps_the_mean_better_than_a_random_choice() -> None:
    points = torch.randn(200, 8, generator=seeded(1))
    misses = [(points[rows].mean(0) - points.mean(0)).norm() for rows in (herding(points, 10), torch.arange(10))]
    assert misses[0] < 0.2 * misses[1]


def test_a_smaller_memory_keeps_the_first_of_each_class() -> None:
    memory = a_memory(5, 2, 4).first_of_each(3)
    assert memory.images[:, 0, 0, 0].tolist() == [0, 1, 2, 5, 6, 7, 8, 9]
    assert memory.labels.tolist() == [0, 0, 0, 1, 1, 2, 2, 2]


def test_draws_have_all_classes_alike_and_images_with_their_labels() -> None:
    memory = a_memory(5, 20, 4)
    drawn = memory.draw(10, seeded(0))
    assert sorted(drawn.labels.bincount().tolist()) == [3, 3, 4]
    assert torch.equal(memory.labels[drawn.images[:, 0, 0, 0].long()], drawn.labels)


def test_the_bytes_are_those_of_pixels_and_labels() -> None:
    assert a_memory(5, 2).nbytes == 7 * (3 * 2 * 2 + 8)


def test_herding_takes_the_images_whose_features_it_has_seen() -> None:
    dataset = digits()
    chosen = choose_exemplars(dataset, 1, 3, seed=0, encode=lambda images: images.flatten(1))
    assert chosen.labels.tolist() == [2, 2, 2, 3, 3, 3]
    rows = dataset.train_indices(1)[dataset.train.labels[dataset.train_indices(1)] == 3]
    pixels = dataset.train.pixels(rows)
    expected = by_exhaustive_search(F.normalize(dataset.normalise(pixels).flatten(1)).double().numpy(), 3)
    assert torch.equal(chosen.images[3:], pixels[expected])


def test_a_random_choice_follows_seed_and_class_alone() -> None:
    one, again, other = (choose_exemplars(digits(), 0, 5, seed).images for seed in (0, 0, 1))
    assert torch.equal(one, again) and not torch.equal(one, other)
    split = digits(n_tasks=4)
    parts = [choose_exemplars(split, task, 5, 0).images for task in (0, 1)]
    assert torch.equal(torch.cat(parts), one)


def test_a_class_with_fewer_images_gives_all_of_them() -> None:
    chosen = choose_exemplars(digits(train_per_class=2), 0, 5, 0)
    assert chosen.labels.tolist() == [0, 0, 1, 1]


def test_a_state_is_restored_and_checked() -> None:
    dataset = digits()
    memory = exemplars_at(dataset, dataset.train_indices(0)[:4])
    again = ExemplarMemory.from_state(memory.state(), dataset, 2)
    assert torch.equal(again.images, memory.images) and torch.equal(again.labels, memory.labels)
    assert len(ExemplarMemory.from_state(ExemplarMemory.empty(dataset).state(), dataset, 2)) == 0
    wrong: list[tuple[dict[str, Any], type[Exception]]] = [
        ({"images": memory.images.float()}, TypeError),
        ({"images": memory.images[:3]}, ValueError),
        ({"images": memory.images[..., 1:]}, ValueError),
        ({"labels": memory.labels + 2}, ValueError),
        ({"labels": memory.labels.float()}, TypeError),
    ]
    for change, error in wrong:
        with pytest.raises(error):
            ExemplarMemory.from_state({**memory.state(), **change}, dataset, 2)


def test_some_are_taken_out_and_the_rest_is_without_them() -> None:
    memory = a_memory(5, 2, 4)
    some = memory.part(torch.tensor([8, 0, 3, 6]))
    rest = memory.without(some)
    assert rest.images[:, 0, 0, 0].tolist() == [1, 2, 4, 5, 7, 9, 10]
    assert memory.contains(torch.cat([some.images, some.images + 50])).tolist() == [True] * 4 + [False] * 4
