"""What a CLIP knows its classes by: the features of their texts, of the frozen tower once a run, of a trained one when asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from pmi_cl.backbones.clip_pieces import bare
from pmi_cl.errors import UserError

if TYPE_CHECKING:
    from pmi_cl.backbones.clip_network import ClipNetwork

CHUNK = 256  # texts that pass the tower together


class ClassTexts:
    """The texts of classes 0, 1, ... under one or several templates.

    Attributes:
        names: of the classes, as a sentence has them.
        templates: sentences with ``{}`` for the name; the features of several are averaged, as CLIP's authors do: each normalised, then
            the mean, then the mean normalised.
    """

    def __init__(self, net: ClipNetwork, names: Sequence[str], templates: Sequence[str]) -> None:
        """Raises UserError for a class without a name, and for a text longer than the network's context."""
        nameless = [label for label, name in enumerate(names) if not name.strip()]
        if nameless:
            raise UserError(
                f"class {nameless[0]} of the data set has no name, and a CLIP needs one to know a class by: give it one"
            )
        self.net, self.names, self.templates = net, list(names), tuple(templates)
        texts = [template.replace("{}", name) for name in self.names for template in self.templates]
        tokens = net.without_padding(net.tokenize(texts))
        self.tokens = tokens.view(len(self.names), len(self.templates), -1)
        self._frozen = torch.zeros(0, net.feature_dim, device=self.tokens.device)

    def features(self, classes: range) -> Tensor:
        """Compute the features (n, d), normalised, of the text tower as it now is; with a gradient where gradients are on."""
        tokens = self.tokens[classes.start : classes.stop].flatten(0, 1)
        features = torch.cat([F.normalize(self.net.encode_text(part), dim=1) for part in tokens.split(CHUNK)])
        return F.normalize(features.view(len(classes), len(self.templates), -1).mean(1), dim=1)

    @torch.no_grad()
    def frozen(self, classes: range) -> Tensor:
        """Give the features (n, d), normalised, of the text tower with no adapters in it.

        Each class is computed once, and by itself: in a batch the last bits would depend on which classes are computed together, and a
        run that goes on from a checkpoint would differ from one that was never stopped.
        """
        if len(self._frozen) < classes.stop:
            with bare(self.net.text_blocks):
                new = [self.features(range(label, label + 1)) for label in range(len(self._frozen), classes.stop)]
            self._frozen = torch.cat([self._frozen, *new])
        return self._frozen[classes.start : classes.stop]
