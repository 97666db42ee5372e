"""The buffer of synthetic samples: balanced draws, and states."""

from __future__ import annotations

import pytest
import torch

from pmi_cl.inversion.ways.buffer import SyntheticBuffer
from pmi_cl.seeding import seeded

COUNTS = {0: 3, 2: 40, 5: 7}  # labels need not be consecutive


def a_buffer() -> SyntheticBuffer:
    """Return a buffer in which every image and every row of logits says which row it is."""
    labels = torch.repeat_interleave(torch.tensor(list(COUNTS)), torch.tensor(list(COUNTS.values())))
    labels = labels[torch.randperm(50, generator=seeded(0))]
    rows = torch.arange(50).float()
    return SyntheticBuffer(
        rows[:, None, None, None].expand(-1, 3, 2, 2).clone(), labels, rows[:, None].expand(-1, 4).clone()
    )


@pytest.mark.parametrize("n", [1, 2, 3, 8, 90, 128])
def test_draws_are_balanced_to_within_one(n: int) -> None:
    images, labels, logits = a_buffer().draw(n, seeded(n))
    counts = [int((labels == label).sum()) for label in COUNTS]
    assert sum(counts) == n and max(counts) - min(counts) <= 1
    rows = images[:, 0, 0, 0].long()
    assert torch.equal(rows, logits[:, 0].long()) and torch.equal(labels, a_buffer().labels[rows])


def test_the_class_with_one_more_changes() -> None:
    buffer = a_buffer()
    firsts = {int(buffer.draw(1, seeded(seed))[1]) for seed in range(30)}
    assert firsts == set(COUNTS)


def test_every_image_is_drawn_about_equally_often_within_its_class() -> None:
    images, _, _ = a_buffer().draw(12_000, seeded(1))
    times = torch.bincount(images[:, 0, 0, 0].long(), minlength=50)
    for label, count in COUNTS.items():
        of_class = times[a_buffer().labels == label]
        assert of_class.min() > 0.6 * 4000 / count and of_class.max() < 1.4 * 4000 / count


def test_the_generator_decides() -> None:
    first, again, other = (a_buffer().draw(20, seeded(seed))[0] for seed in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_a_buffer_in_half_precision_is_replayed_in_float32() -> None:
    buffer = a_buffer()
    half = SyntheticBuffer(buffer.images.bfloat16(), buffer.labels, buffer.logits)
    assert half.draw(4, seeded(0))[0].dtype == torch.float32


def test_a_buffer_made_of_a_state_is_the_same() -> None:
    buffer = a_buffer()
    again = SyntheticBuffer.from_state(buffer.state())
    assert len(again) == 50 and set(buffer.state()) == {"images", "labels", "logits"}
    for name, value in buffer.state().items():
        assert torch.equal(again.state()[name], value)
    assert all(
        torch.equal(one, other) for one, other in zip(buffer.draw(9, seeded(0)), again.draw(9, seeded(0)), strict=True)
    )
