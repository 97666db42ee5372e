"""Stateless seeds: equal for equal keys, different for any change of them."""

from __future__ import annotations

import numpy
import pytest
import torch

from pmi_cl.seeding import global_seed, mix, seeded


def draw(*keys: int | str) -> list[int]:
    return torch.randint(0, 2**31, (4,), generator=seeded(*keys)).tolist()  # type: ignore[arg-type]


def test_equal_keys_draw_equal_numbers() -> None:
    assert draw(3, "augment", 1, 2, 3) == draw(3, "augment", 1, 2, 3)
    assert draw(3, "augment", 1) == draw(3, "augment", numpy.int64(1))


@pytest.mark.parametrize(
    "other", [(4, "a", 1), (3, "b", 1), (3, "a", 2), (3, 1, "a"), (3, "a", "1"), (3, "a"), (3, "a", 1, 0), (3, "a1")]
)
def test_any_change_of_the_keys_changes_the_numbers(other: tuple[int | str, ...]) -> None:
    assert draw(3, "a", 1) != draw(*other)


def test_the_mix_is_the_same_on_every_machine() -> None:
    assert mix(0, "order", 1, 2) == 1111858610757377674
    assert 0 <= mix(-1) < 2**63


def test_nothing_global_moves() -> None:
    before = torch.random.get_rng_state()
    draw(1, "x")
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_global_seed_gives_torchs_own_numbers_and_puts_everything_back(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = torch.rand(3, generator=seeded(1, "network"))
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("a GPU is seeded that nobody named"))
    monkeypatch.setattr(torch.cuda, "manual_seed", lambda seed: pytest.fail("a GPU is seeded that nobody named"))
    before = torch.random.get_rng_state()
    for device in (None, torch.device("cpu")):
        with global_seed(1, "network", device=device):
            assert torch.equal(torch.rand(3), expected)
        assert torch.equal(before, torch.random.get_rng_state())
    with pytest.raises(ZeroDivisionError), global_seed(1, "network"):
        raise ZeroDivisionError
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_gpu_that_is_named_is_seeded_alone_and_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for torch.cuda's functions, so that it is tested where there is no GPU."""
    chosen: list[str] = []
    states = {"cuda:0": torch.tensor([1]), "cuda:1": torch.tensor([2])}

    class Chosen:
        def __init__(self, gpu: torch.device) -> None:
            self.gpu = str(gpu)

        def __enter__(self) -> None:
            chosen.append(self.gpu)

        def __exit__(self, *error: object) -> None:
            chosen.pop()

    monkeypatch.setattr(torch.cuda, "device", Chosen)
    monkeypatch.setattr(torch.cuda, "manual_seed", lambda seed: states.update({chosen[-1]: torch.tensor([seed])}))
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("all GPUs are seeded"))
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda gpu: states[str(gpu)])
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, gpu: states.update({str(gpu): state}))
    with global_seed(1, "step", device=torch.device("cuda:1")):
        assert states == {"cuda:0": torch.tensor([1]), "cuda:1": torch.tensor([mix(1, "step")])}
    assert states == {"cuda:0": torch.tensor([1]), "cuda:1": torch.tensor([2])}
