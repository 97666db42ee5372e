"""Define classifiers that grow by one linear head per task."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class GrowingHead(nn.Module):
    """One linear map without bias per task on shared features.

    The logits of all tasks are concatenated in task order. This is R-DFCIL's classifier: weights
    are drawn from N(0, 0.001^2) (baselines: cl-lite ``f0ddf02``). Loading a state dict grows or
    shrinks the head to the tasks that the state holds, so a checkpoint alone decides how many
    classes there are.
    """

    def __init__(self, feature_dim: int, std: float = 0.001) -> None:
        super().__init__()
        self.feature_dim, self.std = feature_dim, std
        self.tasks = nn.ModuleList()
        self.place: Tensor
        # It moves with the network, and so tells the device of the first head, too.
        self.register_buffer("place", torch.empty(0), persistent=False)

    @property
    def sizes(self) -> list[int]:
        """Return the number of classes of each task."""
        return [int(linear.out_features) for linear in self.tasks]  # type: ignore[arg-type]

    def grow(self, n_classes: int, generator: torch.Generator | None = None) -> nn.Linear:
        """Add a head for ``n_classes`` new classes on the device of the network.

        Its weights are drawn from ``generator``, a CPU generator.
        """
        linear = nn.Linear(self.feature_dim, n_classes, bias=False)
        nn.init.normal_(linear.weight, std=self.std, generator=generator)
        self.tasks.append(linear.to(self.place.device))
        return linear

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits (b, classes so far) of features (b, d)."""
        return nn.functional.linear(features, self.weight)

    @property
    def weight(self) -> Tensor:
        """Return all heads as one matrix (classes so far, d)."""
        if not self.tasks:
            raise RuntimeError("the head has no classes yet: call grow() first")
        return torch.cat([parameter for linear in self.tasks for parameter in linear.parameters()])

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        saved = [key for key in state_dict if key.startswith(f"{prefix}tasks.")]
        sizes = {int(key[len(prefix) :].split(".")[1]): state_dict[key].shape[0] for key in saved}
        if sizes and self.sizes != [sizes[task] for task in sorted(sizes)]:
            heads = [
                nn.Linear(self.feature_dim, sizes[task], bias=False, device=self.place.device) for task in sorted(sizes)
            ]
            self.tasks = nn.ModuleList(heads)
        super()._load_from_state_dict(state_dict, prefix, *args)
