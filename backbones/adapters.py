"""Define mixtures of bottleneck adapters beside the MLP of a transformer block.

MoE-Adapters (Yu et al., CVPR 2024) use them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Adapter(nn.Module):
    """A bottleneck: width -> bottleneck, ReLU, dropout, -> width, times a constant.

    The way up starts at zero, so an untrained adapter adds nothing. It has no LayerNorm, because it
    reads the residual stream itself.
    """

    def __init__(self, width: int, bottleneck: int = 64, dropout: float = 0.1, scale: float = 0.1) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, bottleneck), nn.Linear(bottleneck, width)
        self.dropout, self.scale = dropout, scale
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, x: Tensor) -> Tensor:
        """Return what is added to tokens (b, n, width), of the same shape."""
        return self.up(F.dropout(F.relu(self.down(x)), self.dropout, self.training)) * self.scale


def top_k_gates(logits: Tensor, k: int) -> Tensor:
    """Return the softmax over the ``k`` largest of each row (b, experts), and zero elsewhere."""
    largest, experts = logits.topk(k, dim=1)
    return torch.zeros_like(logits).scatter(1, experts, largest.softmax(dim=1))


class MixtureOfAdapters(nn.Module):
    """Adapters weighted by a gate that looks at the first token.

    That is the class token of the image tower, and the start token of the text tower. The start
    token is the same in every text, and attention is causal, so the gate of the text tower does not
    depend on the text.

    In training the logits of the gate carry Gaussian noise of a learned size (softplus(x W_noise) +
    0.01: Shazeer et al., 2017). In evaluation there is none. The authors' code keeps the noise in
    evaluation, because its blocks remember the mode in which they were built: test accuracy is then
    random. Router and noise matrix start at zero: every expert weighs the same but for the noise.
    """

    NOISE_FLOOR = 1e-2

    def __init__(
        self, width: int, experts: int = 2, top_k: int = 2, bottleneck: int = 64, dropout: float = 0.1
    ) -> None:
        super().__init__()
        if not 1 <= top_k <= experts:
            raise ValueError(f"{top_k} of {experts} experts cannot be chosen")
        self.experts = nn.ModuleList(Adapter(width, bottleneck, dropout) for _ in range(experts))
        self.router, self.noise = nn.Parameter(torch.zeros(width, experts)), nn.Parameter(torch.zeros(width, experts))
        self.top_k = top_k

    def gates(self, first: Tensor) -> Tensor:
        """Return the weight of each expert (b, experts), zero for all but the ``top_k``.

        ``first`` (b, width) are first tokens.
        """
        logits = first @ self.router
        if self.training:
            logits = logits + torch.randn_like(logits) * (F.softplus(first @ self.noise) + self.NOISE_FLOOR)
        return top_k_gates(logits, self.top_k)

    def forward(self, x: Tensor) -> Tensor:
        """Return the weighted sum of the experts' outputs for tokens (b, n, width), of that shape.

        Every expert sees every sample, also those that do not choose it: with the 2 experts of
        class-incremental learning all are chosen.
        """
        weights = self.gates(x[:, 0]).unsqueeze(1)  # (b, 1, experts)
        outputs = [expert(x) * weights[..., number : number + 1] for number, expert in enumerate(self.experts)]
        return torch.stack(outputs).sum(0)
