"""Stateless seeds: equal for equal keys, different for any change of them."""

from __future__ import annotations

import numpy
import pytest
import torch

from pmi_cl.seeding import mix, seeded


def draw(*keys: int | str) -> list[int]:
    return torch.randint(0, 2**31, (4,), generator=seeded(*keys)).tolist()  # type: ignore[arg-type]


def test_equal_keys_draw_equal_numbers() -> None:
    assert draw(3, "augment", 1, 2, 3) == draw(3, "augment", 1, 2, 3)
    assert draw(3, "augment", 1) == draw(3, "augment", numpy.int64(1))


@pytest.mark.parametrize("other", [(4, "a", 1), (3, "b", 1), (3, "a", 2), (3, 1, "a"), (3, "a", "1"), (3, "a"), (3, "a", 1, 0), (3, "a1")])
def test_any_change_of_the_keys_changes_the_numbers(other: tuple[int | str, ...]) -> None:
    assert draw(3, "a", 1) != draw(*other)


def test_the_mix_is_the_same_on_every_machine() -> None:
    assert mix(0, "order", 1, 2) == 1111858610757377674
    assert 0 <= mix(-1) < 2**63


def test_nothing_global_moves() -> None:
    before = torch.random.get_rng_state()
    draw(1, "x")
    assert torch.equal(before, torch.random.get_rng_state())
