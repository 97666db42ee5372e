"""Deep visual prompts (VPT; Jia et al., ECCV 2022) in a frozen CLIP, with the texts as classifier.

Before each block, learned tokens are put between the class token and the patches. After it they are
dropped, and the next block gets its own. One set of prompts is trained on task after task. Nothing
is done against forgetting.

What deviates from VPT, and why: PMI's protocol has no linear head (the frozen text features
classify), 4 tokens in every block (the released base learner's defaults; VPT: 5), 5 epochs a task
and a loss over the task's own classes. Neither PMI's appendix nor its code says which momentum and
weight decay: 0.9 is VPT's, and there is no weight decay.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from pmi_cl.backbones.prompts import DeepPrompt
from pmi_cl.models.clip.clip_model import ClipModel
from pmi_cl.models.clip.clip_training_options import ClipTrainingOptions
from pmi_cl.options import option
from pmi_cl.seeding import seeded


@dataclass(frozen=True)
class VptOptions(ClipTrainingOptions):
    """The flags of VPT, with Table 9's values for CIFAR-100.

    The presets have those of other data sets.
    """

    vpt_tokens: int = option(
        4, "prompt tokens of each block", unit="tokens", low=1, high=1_000, source="PMI released base learner; VPT: 5"
    )
    vpt_depth: int | None = option(
        None,
        "blocks that have prompts, from the lowest; none: all",
        unit="blocks",
        low=1,
        high=1_000,
        source="VPT-deep",
    )


class Vpt(ClipModel):
    """Deep visual prompts in a frozen CLIP; the texts classify.

    ``learned``: "prompts", one set for each block.
    """

    NAME = "vpt"
    Options: type = VptOptions
    options: VptOptions

    def build(self) -> nn.ModuleDict:
        """Put prompts into the lowest ``vpt_depth`` blocks."""
        options, net = self.options, self.net
        prompts = nn.ModuleList()
        for depth, block in enumerate(net.blocks[: options.vpt_depth]):
            block.prompt = DeepPrompt(
                options.vpt_tokens, net.width, net.patch_size, seeded(self.args.seed, "prompts", depth)
            )
            prompts.append(block.prompt)
        return nn.ModuleDict({"prompts": prompts})
