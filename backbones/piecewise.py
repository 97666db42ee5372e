"""Define what every network of the ResNet methods can do: it is made of pieces and a head."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor, nn

from pmi_cl.backbones.heads import GrowingHead


class PiecewiseNetwork(nn.Module):
    """Pieces that composed give the features, and a head that grows by task.

    Attributes:
        feature_dim: the width of the features.
        head: gives the logits of features.
    """

    feature_dim: int
    head: GrowingHead

    @abstractmethod
    def pieces(self) -> list[nn.Module]:
        """Return the layers of the inversion, bottom to top."""

    @abstractmethod
    def features(self, x: Tensor) -> Tensor:
        """Return the features (b, feature_dim) of images (b, 3, h, w)."""

    def forward(self, x: Tensor, returnt: str = "out") -> Tensor | tuple[Tensor, Tensor]:
        """Return logits, ``"features"``, or ``"both"`` as (logits, features), as Mammoth has it."""
        features = self.features(x)
        if returnt == "features":
            return features
        logits = self.head(features)
        return (logits, features) if returnt == "both" else logits
