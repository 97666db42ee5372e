"""Train CODA-Prompt (Smith et al., CVPR 2023) on a frozen CLIP.

The prompts of each image are composed from a pool that grows by task.

In each of the lowest five blocks stands a pool of components. The query of an image is the class
token that the bare tower gives it, above the last LayerNorm. It is compared with each component's
key under the component's attention. The cosines weigh the components' prompts, with no softmax, and
the sum is put before the keys and values of the block's attention. Each task adds components,
orthogonal to the earlier ones, which are frozen. A linear head over all classes is trained with
them; the logits of old classes are masked, so that the loss is over the task's own classes.

What deviates from the authors, and why: the tower is a CLIP (theirs: a ViT of ImageNet-21k). SGD at
0.1 for 5 epochs (theirs: Adam at 1e-3 for 20 or 50) is that of PMI's Table 9. The head reads CLIP's
image features, which are what PMI inverts, normalised: those of clip-tiny are 14 units long, and at
a rate of 0.1 the head swings on raw ones (64 instead of 80 % on seq-digits). The Gram-Schmidt makes
new components orthogonal to all that the old ones span, also where training has made the old ones
oblique (theirs leaves a rest then).
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pmi_cl.backbones.prompts import PromptPool
from pmi_cl.errors import UserError
from pmi_cl.machine.state_fields import whole_field
from pmi_cl.models.clip.clip_model import ClipModel
from pmi_cl.models.clip.clip_training_options import ClipTrainingOptions
from pmi_cl.models.run_outline import RunOutline
from pmi_cl.options import new_default, option
from pmi_cl.seeding import seeded

if TYPE_CHECKING:
    from pmi_cl.backbones.clip_network import ClipNetwork
    from pmi_cl.backbones.clip_outline import ClipOutline

QUERY = "above the last LayerNorm"  # where the query is taken


@dataclass(frozen=True)
class CodaPromptOptions(ClipTrainingOptions):
    """The flags of CODA-Prompt: Table 9's values, and the authors' pool under Mammoth's names."""

    lr: float = new_default(0.1, "PMI Table 9")
    pool_size: int = option(
        100, "components of each block, in equal parts for the tasks", low=1, high=100_000, source="CODA-Prompt"
    )
    prompt_len: int = option(
        8,
        "vectors of a prompt, half before the keys and half before the values",
        unit="vectors",
        low=2,
        high=10_000,
        source="CODA-Prompt",
    )
    prompt_blocks: int = option(
        5,
        "blocks that have a pool, from the lowest (all where there are fewer)",
        low=1,
        high=1_000,
        source="CODA-Prompt",
    )
    mu: float = option(0.0, "weight of the components' orthogonality", low=0, source="CODA-Prompt's final scripts")
    head_input: str = option(
        "unit",
        "what the head reads: image features normalised, or as they are",
        choices=("unit", "raw"),
        source="[INF]; CODA-Prompt: raw, of another tower",
    )


def check_width(pool_size: int, network: ClipNetwork | ClipOutline) -> None:
    """Raise UserError for a pool with more components than there are orthogonal keys."""
    if pool_size > network.width:
        raise UserError(
            f"--pool_size {pool_size}: only {network.width} directions are orthogonal in {network.name}, give no more"
        )


class CodaPrompt(ClipModel):
    """Prompts composed from a growing pool by each image's query, and a linear head.

    ``learned`` has "prompts", a pool for each of the lowest blocks, and "head", which is linear
    over all classes of the run.
    """

    NAME = "coda_prompt"
    NAMES_UNSEEN = False  # a linear head says nothing about classes it was not trained on
    Options: type = CodaPromptOptions
    options: CodaPromptOptions

    @classmethod
    def check(cls, args: SimpleNamespace, outline: RunOutline) -> None:
        """Refuse an odd prompt, and a pool that does not fit the tasks or the network.

        Raises:
            UserError: says which of these it is.
        """
        super().check(args, outline)
        if args.prompt_len % 2:
            raise UserError(
                f"--prompt_len {args.prompt_len}: half goes to the keys and half to the values, give an even number"
            )
        if args.pool_size < outline.n_tasks:
            raise UserError(
                f"--pool_size {args.pool_size}: give at least one component for each of the {outline.n_tasks} tasks"
            )
        if outline.network is not None:
            check_width(args.pool_size, outline.network)

    def build(self) -> nn.ModuleDict:
        """Put empty pools into the lowest blocks, and make the head.

        Raises:
            UserError: the pool does not fit the network.
        """
        options, net, n_tasks = self.options, self.net, self.dataset.N_TASKS
        check_width(options.pool_size, net)  # again: not every network has an outline that was checked before
        pools = nn.ModuleList()
        for block in net.blocks[: options.prompt_blocks]:
            block.prefix = PromptPool(options.prompt_len, net.width, options.pool_size // n_tasks)
            pools.append(block.prefix)
        return nn.ModuleDict({"prompts": pools, "head": nn.Linear(net.feature_dim, self.dataset.N_CLASSES)})

    @property
    def pools(self) -> list[PromptPool]:
        """The pools, the lowest block's first, also while the blocks are bare."""
        return list(self.learned["prompts"])  # type: ignore[call-overload]

    def extend_learned(self) -> None:
        """Add the current task's components, unless they are there (after a resumption)."""
        self._grow_pools(self.current_task + 1)

    def _grow_pools(self, tasks: int) -> None:
        for depth, pool in enumerate(self.pools):
            while pool.tasks < tasks:
                pool.grow(seeded(self.args.seed, "components", depth, pool.tasks), self.device)

    def context(self, maps: Tensor, kept: Tensor | None = None) -> Tensor:
        """Return the queries (b, width) of maps: the bare tower's class tokens, normalised.

        Args:
            maps: (b, width, g, g).
            kept: (b, k), the patches of each map that are looked at. None: all.
        """
        return self.net.query_from(maps, kept)

    def class_logits(self, features: Tensor, classes: range) -> Tensor:
        """Return the head's logits (b, n) of classes. Others are left out, as if masked."""
        inputs = F.normalize(features, dim=1) if self.options.head_input == "unit" else features
        return self.learned["head"](inputs)[:, classes.start : classes.stop]

    def logits_and_features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the head's logits (b, seen classes) and the features (b, d) of images."""
        features = self.image_features(x)
        return self.class_logits(features, range(self.n_seen_classes)), features

    def losses(self, inputs: Tensor, labels: Tensor, epoch: int, step: int) -> dict[str, Tensor]:
        """Return the losses of every CLIP method, and the orthogonality of the components.

        The orthogonality is left out if its weight is 0.
        """
        losses = super().losses(inputs, labels, epoch, step)
        if self.options.mu:
            penalties = [penalty for pool in self.pools for penalty in pool.penalties()]
            losses["orthogonality"] = self.options.mu * torch.stack(penalties).sum()
        return losses

    def state(self) -> dict[str, Any]:
        """Return the state of every CLIP method, the tasks of the pools, the place of queries."""
        return {**super().state(), "pool_tasks": self.pools[0].tasks, "query": QUERY}

    def load_network(self, state: dict[str, Tensor], task: int) -> None:
        """Make the components of the tasks up to ``task``, then restore what is learned."""
        self._grow_pools(task + 1)
        super().load_network(state, task)

    def load_weights(self, state: dict[str, Any]) -> None:
        """Make as many components as the state has, then restore the task and what is learned.

        Raises:
            UserError: the components have learned queries of another place in the tower.
        """
        if "pool_tasks" in state and state.get("query") != QUERY:
            raise UserError(
                "the checkpoint's prompts were trained with queries below the last LayerNorm, "
                "as in version 0.1.0: train anew"
            )
        self._grow_pools(whole_field(state["pool_tasks"], high=self.dataset.N_TASKS))
        super().load_weights(state)
