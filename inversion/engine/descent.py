"""Adam on an input, step by step and resumable.

It halves its rate when the loss stops being finite.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from pmi_cl.errors import RunFailed
from pmi_cl.machine.state_fields import load_optimizer, tensor_field, whole_field

CHECK_EVERY = 20  # steps between checks of the loss; each makes the host wait for an accelerator
MOST_RESTARTS = 2


class NonFiniteInversion(RunFailed):
    """The loss was not finite, not even at a quarter of the rate. The message names the layer.

    Attributes:
        name: of what was inverted, as in the message.
    """

    def __init__(self, text: str, name: str) -> None:
        super().__init__(text)
        self.name = name


class Descent:
    """Minimise a loss over one tensor.

    Attributes:
        x: the iterate, float32, the only tensor with a gradient.
        step: how many steps are done.
    """

    def __init__(
        self,
        start: Tensor,
        steps: int,
        rate: Callable[[int], float],
        *,
        beta2: float = 0.999,
        keep_best: bool = False,
        name: str = "the full model",
        locate: Callable[[Tensor, int], str | None] | None = None,
    ) -> None:
        """
        Args:
            start: the first iterate.
            steps: how many are taken.
            rate: maps the number of a step, from 0, to its learning rate.
            beta2: second decay of Adam.
            keep_best: whether the result is the best iterate, not the last. It is the one that the
                step of the lowest loss leads to, as in PMI's released code: stored after the step.
            name: of what is inverted, for the message if it fails.
            locate: names the layer in which the loss of (iterate, step) stops being finite. It is
                called once, when all restarts have failed.
        """
        self.start, self.steps, self.rate, self.name = start.detach(), steps, rate, name
        self.locate = locate
        self.beta2, self.keep_best = beta2, keep_best
        self.restarts = 0
        self._begin()

    def _begin(self) -> None:
        self.step = 0
        self.x = self.start.clone().requires_grad_()
        self.optimizer = torch.optim.Adam([self.x], lr=self.rate(0), betas=(0.9, self.beta2))
        self.best, self.best_loss = self.x.detach().clone() if self.keep_best else None, self.x.new_full((), torch.inf)

    def run(self, loss_of: Callable[[Tensor, int], Tensor]) -> Iterator[Tensor]:
        """Take the steps that are left. Yield the detached loss of each, 0-dim, on the device.

        Args:
            loss_of: maps (iterate, step) to a scalar.

        Raises:
            NonFiniteInversion: the loss is not finite after two restarts, each at half the rate.
        """
        while self.step < self.steps:
            loss = self._take_step(loss_of)
            if (self.step % CHECK_EVERY == 0 or self.step == self.steps) and not self._finite(loss):
                self._restart(loss_of)
            yield loss

    def _take_step(self, loss_of: Callable[[Tensor, int], Tensor]) -> Tensor:
        """Take one step. Return its loss, detached."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(self.step) / 2**self.restarts
        self.optimizer.zero_grad(set_to_none=True)
        loss = loss_of(self.x, self.step)
        loss.backward()
        self.optimizer.step()
        if self.best is not None:
            better = loss.detach() < self.best_loss
            self.best = torch.where(better, self.x.detach(), self.best)
            self.best_loss = torch.where(better, loss.detach(), self.best_loss)
        self.step += 1
        return loss.detach()

    def _finite(self, loss: Tensor) -> bool:
        return bool(torch.isfinite(loss) & torch.isfinite(self.x).all())

    def _restart(self, loss_of: Callable[[Tensor, int], Tensor]) -> None:
        if self.restarts == MOST_RESTARTS:
            found = ""
            if self.locate is not None:
                found = f" (first in {self.locate(*self._last_finite(loss_of)) or 'the step itself'})"
            rate = f"{self.rate(0):g}"
            failed = f"the inversion of {self.name} is not finite{found} even at a quarter of its rate {rate}: lower it"
            raise NonFiniteInversion(failed, self.name)
        self.restarts += 1
        self._begin()

    def _last_finite(self, loss_of: Callable[[Tensor, int], Tensor]) -> tuple[Tensor, int]:
        """Return the iterate whose step failed, and the number of that step.

        The steps since the start are taken again, and each is checked.
        """
        failed = self.step
        self._begin()
        while True:
            before, step = self.x.detach().clone(), self.step
            if not self._finite(self._take_step(loss_of)) or self.step == failed:
                return before, step

    def result(self) -> Tensor:
        """Return the iterate after the step of the lowest loss if it is kept, else the last."""
        return (self.x if self.best is None else self.best).detach()

    def state(self) -> dict[str, Any]:
        """Return plain data for a checkpoint: a copy, which further steps do not touch."""
        adam = copy.deepcopy(self.optimizer.state_dict())
        state = {"x": self.x.detach().clone(), "step": self.step, "restarts": self.restarts, "adam": adam}
        best = {"best": self.best, "best_loss": self.best_loss} if self.best is not None else {}
        return {"start": self.start, **state, **best}

    def load(self, state: dict[str, Any]) -> None:
        """Go on where :meth:`state` was taken."""
        shape = self.start.shape
        start, x = tensor_field(state["start"], *shape), tensor_field(state["x"], *shape)
        self.start, self.restarts = start.to(self.start.device), whole_field(state["restarts"], high=MOST_RESTARTS)
        self._begin()
        with torch.no_grad():
            self.x.copy_(x)
        load_optimizer(self.optimizer, state["adam"])
        self.step = whole_field(state["step"], high=self.steps)
        if self.best is not None:
            best, loss = tensor_field(state["best"], *shape), tensor_field(state["best_loss"])
            self.best, self.best_loss = best.to(self.x.device), loss.to(self.x.device)
