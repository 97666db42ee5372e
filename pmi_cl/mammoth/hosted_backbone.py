"""Offer our networks to Mammoth: under its own methods, and as placeholders for ours."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pmi_cl.errors import UserError
from pmi_cl.mammoth.flags import Flags, run_arguments
from pmi_cl.registry.catalogue import INSTALLED, Entry
from pmi_cl.seeding import global_seed
from pmi_cl.utils.arguments.command_line import check_kind
from pmi_cl.utils.run.building import build_backbone


class HostedBackbone:
    """Put one of our networks under a method of Mammoth, with all classes from the start.

    This is a mixin, to stand in front of Mammoth's ``MammothBackbone``.

    Attributes:
        ENTRY: the network's entry in the catalogue.
        FLAGS: the network's flags.
        body: the network. Its own head stays empty.
    """

    ENTRY: Entry
    FLAGS: Flags

    def __init__(self, num_classes: int, **own: Any) -> None:
        super().__init__()
        if self.ENTRY.constants.get("KIND", "resnet") != "resnet":
            raise UserError(f"--backbone {self.ENTRY.name} has no classifier: it serves pmi-cl's methods only")
        with global_seed(torch.initial_seed(), "network"):
            self.body: Any = build_backbone(self.ENTRY, run_arguments(self.FLAGS.values(own)))
        self.num_classes, self.feature_dim = int(num_classes), self.body.feature_dim
        self.classifier = nn.Linear(self.feature_dim, self.num_classes)

    def forward(self, x: Tensor, returnt: str = "out") -> Any:
        """Return logits, pooled features, both, or (logits, output of each piece).

        Args:
            x: images (b, 3, h, w).
            returnt: "out", "features", "both", or "full" and "all" for the outputs of the pieces.
        """
        outputs: list[Tensor] = []
        for piece in self.body.pieces():
            x = piece(x)
            outputs.append(x)
        if returnt == "features":
            return x
        logits = self.classifier(x)
        return {"both": (logits, x), "full": (logits, outputs), "all": (logits, outputs)}.get(returnt, logits)


class BackbonePlaceholder(nn.Module):
    """Stand in for the backbone that Mammoth expects until our method has built its own.

    Attributes:
        entry: the backbone's entry in the catalogue.
        options: the values of its options.
    """

    def __init__(self, entry: Entry, options: dict[str, Any]) -> None:
        super().__init__()
        self.entry, self.options = entry, options


def make_placeholder(model: Entry, backbone: Entry | None, flags: Flags | None, args: Any) -> BackbonePlaceholder:
    """Return what Mammoth gets in place of a backbone for one of our methods.

    Args:
        backbone: the backbone's entry. None if the backbone is Mammoth's.
        flags: its flags.
        args: Mammoth's arguments.

    Raises:
        UserError: the backbone is Mammoth's, or of a kind that the method cannot use.
    """
    if backbone is None or flags is None:
        raise UserError(
            f"--backbone {args.backbone} is Mammoth's: "
            f"{model.name} inverts its network layer by layer and needs one of pmi-cl's"
        )
    check_kind(model, backbone, INSTALLED)
    return BackbonePlaceholder(backbone, flags.values(vars(args)))
