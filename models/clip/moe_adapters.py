"""Train mixture-of-experts adapters in both towers of a frozen CLIP.

This is the class-incremental part of Yu et al., CVPR 2024.

Beside the MLP of every block, of the image tower and of the text tower, stands a mixture of two
small adapters. A noisy gate weighs them by the first token. Adapters and gates are trained on task
after task by cross-entropy over the task's own texts. Nothing is done against forgetting.

What deviates from the authors' code, and why: the gate has no noise in evaluation (theirs has, by
mistake: accuracy is random then). Test images are not cropped at random (theirs are: the training
transform is used). PMI trains 3 to 10 epochs a task (the authors: 1). With 2 experts of which 2 are
chosen, every expert is always active; the authors' 22 experts belong to their task-incremental
setting.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

from torch import nn

from pmi_cl.backbones.adapters import MixtureOfAdapters
from pmi_cl.errors import UserError
from pmi_cl.models.clip.clip_model import ClipModel
from pmi_cl.models.clip.clip_training_options import ClipTrainingOptions
from pmi_cl.models.run_outline import RunOutline
from pmi_cl.options import new_default, option


@dataclass(frozen=True)
class MoeAdaptersOptions(ClipTrainingOptions):
    """The flags of MoE-Adapters: Table 9's values for CIFAR-100 and ImageNet-R.

    The presets have those for CUB-200 and those of the authors.
    """

    n_epochs: int = new_default(3, "PMI Table 9; CUB-200: 10; the authors: 1")
    optimizer: str = new_default("adamw", "PMI Table 9; the authors")
    lr: float = new_default(0.001, "PMI Table 9; the authors")
    warmup_steps: int = new_default(30, "PMI released code; the authors")
    moe_experts: int = option(2, "adapters of each block", low=1, high=1_000, source="PMI released code; the authors")
    moe_top_k: int = option(
        2, "of them that the gate chooses", low=1, high=1_000, source="PMI released code; the authors"
    )
    moe_bottleneck: int = option(64, "width inside an adapter", low=1, high=65_536, source="the authors")
    moe_dropout: float = option(
        0.1, "part of an adapter's hidden values dropped in training", low=0, high=0.9, source="the authors"
    )


class MoeAdapters(ClipModel):
    """Mixtures of adapters in both towers of a frozen CLIP.

    ``learned``: "image" and "text", one mixture for each block of the tower.
    """

    NAME = "moe_adapters"
    TRAINS_TEXT = True
    Options: type = MoeAdaptersOptions
    options: MoeAdaptersOptions

    @classmethod
    def check(cls, args: SimpleNamespace, outline: RunOutline) -> None:
        """Raise UserError if more experts are to be chosen than there are."""
        super().check(args, outline)
        if args.moe_top_k > args.moe_experts:
            raise UserError(f"--moe_top_k {args.moe_top_k}: there are --moe_experts {args.moe_experts} to choose from")

    def build(self) -> nn.ModuleDict:
        """Put a mixture beside the MLP of every block of both towers."""
        net = self.net
        towers = {"image": (net.width, net.blocks), "text": (net.text_width, net.text_blocks)}
        learned = nn.ModuleDict()
        for tower, (width, blocks) in towers.items():
            adapters = nn.ModuleList(self.new_adapter(width) for _ in blocks)
            for block, adapter in zip(blocks, adapters, strict=True):
                block.adapter = adapter
            learned[tower] = adapters
        return learned

    def new_adapter(self, width: int) -> MixtureOfAdapters:
        """Return the mixture that stands beside one MLP."""
        o = self.options
        return MixtureOfAdapters(width, o.moe_experts, o.moe_top_k, o.moe_bottleneck, o.moe_dropout)
