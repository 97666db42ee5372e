"""SGD with momentum and weight decay, number for number torch's own, without the half second that torch's takes to begin."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


class MomentumSGD(torch.optim.Optimizer):
    """``torch.optim.SGD(lr, momentum, weight_decay)``, whose states it takes up.

    The step of torch's own imports torch's compiler, compiled or not. The decay is added to the gradients themselves.
    """

    def __init__(self, parameters: Any, lr: float, momentum: float = 0.0, weight_decay: float = 0.0) -> None:
        """Args: as torch's; all parameters of a group are on one device."""
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        assert closure is None, "gradients come from backward()"
        for group in self.param_groups:
            moving = [parameter for parameter in group["params"] if parameter.grad is not None]
            if moving:
                torch._foreach_add_(moving, self._directions(moving, group), alpha=-group["lr"])

    def _directions(self, moving: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
        """Each gradient with the decay, then the running sum that is its momentum."""
        gradients = [parameter.grad for parameter in moving if parameter.grad is not None]
        if group["weight_decay"]:
            torch._foreach_add_(
                gradients, moving, alpha=group["weight_decay"]
            )  # in place: a copy is as large as the network
        if not group["momentum"]:
            return gradients
        states = [self.state[parameter] for parameter in moving]
        known = [place for place, state in enumerate(states) if state.get("momentum_buffer") is not None]
        self._carry_on(
            [states[place]["momentum_buffer"] for place in known],
            [gradients[place] for place in known],
            group["momentum"],
        )
        for place in set(range(len(moving))) - set(known):
            states[place]["momentum_buffer"] = gradients[place].clone()
        return [state["momentum_buffer"] for state in states]

    def _carry_on(self, buffers: list[Tensor], gradients: Iterable[Tensor], momentum: float) -> None:
        if buffers:
            torch._foreach_mul_(buffers, momentum)
            torch._foreach_add_(buffers, list(gradients))
