"""Optimise with SGD, momentum and weight decay: torch's numbers, without its slow start."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class MomentumSGD(torch.optim.Optimizer):
    """Compute what ``torch.optim.SGD(lr, momentum, weight_decay)`` computes, bit for bit.

    It loads the state of torch's SGD. The first step of torch's SGD takes half a second, because it
    imports torch's compiler even if nothing is compiled. The weight decay is added to the gradients
    in place.
    """

    def __init__(self, parameters: Any, lr: float, momentum: float = 0.0, weight_decay: float = 0.0) -> None:
        """
        Args:
            parameters: parameters or groups as torch takes them. A group is on one device.
            lr: the learning rate.
            momentum: the factor of the running sum of gradients.
            weight_decay: the factor of the parameters that is added to their gradients.
        """
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
        """Return the direction of each parameter: gradient with decay, or its running sum."""
        gradients = [parameter.grad for parameter in moving if parameter.grad is not None]
        if group["weight_decay"]:
            # In place, because a copy is as large as the network.
            torch._foreach_add_(gradients, moving, alpha=group["weight_decay"])
        if not group["momentum"]:
            return gradients
        states = [self.state[parameter] for parameter in moving]
        buffers, new = [], []
        for state, gradient in zip(states, gradients, strict=True):
            if state.get("momentum_buffer") is None:
                state["momentum_buffer"] = gradient.clone()
            else:
                buffers.append(state["momentum_buffer"])
                new.append(gradient)
        if buffers:
            torch._foreach_mul_(buffers, group["momentum"])
            torch._foreach_add_(buffers, new)
        return [state["momentum_buffer"] for state in states]
