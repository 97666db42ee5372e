"""Test the descent: against torch's Adam run by hand, its restarts, its resumption, its rates."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pmi_cl.inversion.config import Schedule, learning_rate
from pmi_cl.inversion.engine.descent import CHECK_EVERY, Descent, NonFiniteInversion
from pmi_cl.seeding import seeded

START = torch.randn(3, 2, 4, 4, generator=seeded(0))
GOAL = torch.randn(3, 2, 4, 4, generator=seeded(1))


def bumpy(x: Tensor, step: int) -> Tensor:
    """Return a loss that depends on the step and is not convex."""
    return ((x - GOAL) ** 2).mean() + 0.3 * torch.sin(3 * x + step).mean()


def falling_rate(step: int) -> float:
    return 0.2 / (1 + step)


def by_hand(steps: int, rate: Callable[[int], float], beta2: float = 0.999) -> tuple[list[Tensor], list[Tensor]]:
    """Run torch's Adam. Return every iterate before its step, then the last, and every loss."""
    x = START.clone().requires_grad_()
    optimizer = torch.optim.Adam([x], lr=1.0, betas=(0.9, beta2))
    iterates, losses = [], []
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate(step)
        iterates.append(x.detach().clone())
        loss = bumpy(x, step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return [*iterates, x.detach()], losses


@pytest.mark.parametrize("beta2", [0.999, 0.95])
def test_equals_adam_by_hand(beta2: float) -> None:
    descent = Descent(START, 30, falling_rate, beta2=beta2)
    losses = list(descent.run(bumpy))
    iterates, expected = by_hand(30, falling_rate, beta2)
    assert torch.equal(descent.result(), iterates[-1])
    assert torch.equal(torch.stack(losses), torch.stack(expected))
    assert not losses[0].requires_grad and not descent.result().requires_grad


def test_keeps_the_iterate_after_the_step_of_the_lowest_loss() -> None:
    def worsening(x: Tensor, step: int) -> Tensor:
        return ((x - GOAL) ** 2).mean() + (1.0 if step > 6 else 0.0)

    best, last = Descent(START, 20, lambda _: 0.3, keep_best=True), Descent(START, 20, lambda _: 0.3)
    for descent in (best, last):
        losses = list(descent.run(worsening))
    chosen = int(torch.stack(losses).argmin())
    assert 0 < chosen <= 6
    upto = Descent(START, chosen + 1, lambda _: 0.3)
    list(upto.run(worsening))
    assert torch.equal(best.result(), upto.result())
    assert not torch.equal(best.result(), last.result())


def test_no_steps_give_the_start() -> None:
    for keep_best in (False, True):
        descent = Descent(START, 0, falling_rate, keep_best=keep_best)
        assert list(descent.run(bumpy)) == [] and torch.equal(descent.result(), START)


def test_the_start_is_not_changed() -> None:
    start = START.clone()
    list(Descent(start, 5, falling_rate).run(bumpy))
    assert torch.equal(start, START)


# A loss that is not finite.


def cliff(limit: float) -> Callable[[Tensor, int], Tensor]:
    """Return a loss that is not a number beyond ``limit``. Adam climbs by its rate a step."""
    return lambda x, step: -x.sum() * (float("nan") if float(x.detach().max()) > limit else 1.0)


@pytest.mark.parametrize(("limit", "restarts"), [(100.0, 0), (3.0, 1), (1.5, 2)])
def test_a_loss_that_is_not_finite_restarts_at_half_the_rate(limit: float, restarts: int) -> None:
    descent = Descent(torch.zeros(4), 5, lambda _: 1.0)
    losses = list(descent.run(cliff(limit)))
    assert descent.restarts == restarts and len(losses) == 5 * (restarts + 1)
    torch.testing.assert_close(descent.result(), torch.full((4,), 5 * 0.5**restarts))


@pytest.mark.parametrize("keep_best", [False, True])
def test_after_two_restarts_it_stops_and_names_the_layer(keep_best: bool) -> None:
    descent = Descent(torch.zeros(4), 5, lambda _: 1.0, keep_best=keep_best, name="layer 7")
    with pytest.raises(NonFiniteInversion, match="layer 7"):
        list(descent.run(cliff(0.5)))


def test_an_iterate_that_is_not_finite_is_noticed_though_its_loss_was() -> None:
    """The root of |x| is 0 at 0, its gradient is not a number."""
    with pytest.raises(NonFiniteInversion, match="full model"):
        list(Descent(torch.zeros(4), 1, lambda _: 1.0).run(lambda x, step: x.abs().sqrt().sum()))


def test_it_is_noticed_within_a_few_steps() -> None:
    descent = Descent(torch.zeros(4), 10 * CHECK_EVERY, lambda _: 1.0)
    steps = descent.run(cliff(1.0))
    for _ in range(CHECK_EVERY):
        next(steps)
    assert descent.restarts == 1 and descent.step == 0


# Resumption.


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    """Write and read a state as a checkpoint is: tensors and plain data only."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("keep_best", [False, True])
@pytest.mark.parametrize("stop", range(13))
def test_resumes_bit_for_bit_at_every_step(stop: int, keep_best: bool) -> None:
    whole = Descent(START, 12, falling_rate, keep_best=keep_best)
    losses = list(whole.run(bumpy))
    first = Descent(START, 12, falling_rate, keep_best=keep_best)
    steps = first.run(bumpy)
    head = [next(steps) for _ in range(stop)]
    second = Descent(torch.zeros_like(START), 12, falling_rate, keep_best=keep_best)
    second.load(through_a_file(first.state()))
    assert torch.equal(torch.stack(head + list(second.run(bumpy))), torch.stack(losses))
    assert torch.equal(second.result(), whole.result())


def test_resumes_after_a_restart() -> None:
    whole, first = (Descent(torch.zeros(4), 5, lambda _: 1.0) for _ in range(2))
    list(whole.run(cliff(3.0)))
    steps = first.run(cliff(3.0))
    for _ in range(7):
        next(steps)
    second = Descent(torch.ones(4), 5, lambda _: 1.0)
    second.load(through_a_file(first.state()))
    assert second.restarts == 1 and second.step == 2
    list(second.run(cliff(3.0)))
    assert torch.equal(second.result(), whole.result())


def test_a_state_is_not_touched_by_further_steps_nor_by_being_loaded() -> None:
    first = Descent(START, 12, falling_rate, keep_best=True)
    steps = first.run(bumpy)
    for _ in range(4):
        next(steps)
    state = first.state()
    kept = through_a_file(state)
    list(steps)
    second = Descent(START, 12, falling_rate, keep_best=True)
    second.load(state)
    list(second.run(bumpy))
    for name in ("start", "x", "step", "restarts", "adam", "best", "best_loss"):
        torch.testing.assert_close(state[name], kept[name], rtol=0, atol=0)


# Learning rates.


def trace(schedule: Schedule, steps: int, lr: float = 0.4) -> list[float]:
    return [learning_rate(schedule, lr, step, steps) for step in range(steps)]


def test_constant_rate() -> None:
    assert trace("constant", 280) == [0.4] * 280


def test_cosine_rate_equals_torchs() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=50)
    expected = []
    for _ in range(50):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert trace("cosine", 50) == pytest.approx(expected)


def test_the_released_rate_warms_up_and_halves_twice() -> None:
    """There are 160 steps at 0.4 and a warm-up of 5. The halvings act at steps 85 and 125."""
    expected = [0.08, 0.08, 0.16, 0.24, 0.32] + [0.4] * 80 + [0.2] * 40 + [0.1] * 35
    assert trace("released", 160) == pytest.approx(expected)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "released"])
def test_a_stage_without_steps_still_has_a_first_rate(schedule: Schedule) -> None:
    assert learning_rate(schedule, 0.4, 0, 0) >= 0
