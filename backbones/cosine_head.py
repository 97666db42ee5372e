"""Define a classifier by cosines that grows by task (UCIR)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pmi_cl.backbones.heads import GrowingHead


class CosineHead(GrowingHead):
    """Logits are cosines of features and class embeddings, times one scale that is learned.

    It is UCIR's (CVPR 2019, Sec. 3.2). The embeddings of a class are drawn from N(0, 1 / (3 d)), of
    the variance that uniform numbers of FACIL's port (``e0563c7``) have. The scale starts at 1, as
    there.
    """

    def __init__(self, feature_dim: int) -> None:
        super().__init__(feature_dim, std=(3 * feature_dim) ** -0.5)
        self.scale = nn.Parameter(torch.ones(()))

    def cosines(self, features: Tensor) -> Tensor:
        """Return the cosines (b, classes so far) of features (b, d)."""
        return F.linear(F.normalize(features), F.normalize(self.weight))

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits (b, classes so far) of features (b, d)."""
        return self.scale * self.cosines(features)
