"""Learn without forgetting with one sigmoid for each class: LwF-MC (Rebuffi et al., CVPR 2017).

It is the baseline of the iCaRL paper: LwF's idea with the loss of iCaRL, without exemplars. The
sigmoid of a new class learns its labels. That of an old class learns what the network of the task
before says of the same image.

What the sources do, and what is done here: the loss is computed from logits, while ABD takes the
binary cross-entropy of sigmoids, which loses digits and is infinite in low precision. ABD adds the
classes, Mammoth averages them (``bce_classes``): one learning rate means different steps. Both have
a bias in the head, which is absent here (R-DFCIL's head). Mammoth's ``wd_reg``, a second weight
decay whose default is 0, is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

from torch import Tensor

from pmi_cl.models.continual_model import TrainingOptions
from pmi_cl.models.training.distillation import sigmoid_distillation, sigmoid_targets
from pmi_cl.models.with_teacher import WithTeacher
from pmi_cl.options import option


@dataclass(frozen=True)
class LwfMcOptions(TrainingOptions):
    """Hold how the loss is summed."""

    bce_classes: str = option(
        "sum",
        "how the binary cross-entropies of the classes of an image are put together",
        choices=("sum", "mean"),
        source="iCaRL Alg. 3; ABD: sum; Mammoth: mean",
    )


class LwfMc(WithTeacher):
    """LwF-MC: binary cross-entropy with labels for new classes, the teacher's sigmoids for old."""

    NAME = "lwf_mc"
    Options = LwfMcOptions
    options: LwfMcOptions

    def observe(
        self, inputs: Tensor, labels: Tensor, not_aug_inputs: Tensor, epoch: int = 0, step: int = 0
    ) -> dict[str, Tensor]:
        """Take a step down the binary cross-entropy over all classes seen so far."""
        logits = self.net(inputs)
        teacher_logits = None if self.teacher is None else self.teacher_logits(inputs)
        targets = sigmoid_targets(labels, teacher_logits, self.n_seen_classes)
        over = cast(Literal["sum", "mean"], self.options.bce_classes)
        return self.descend({"loss": sigmoid_distillation(logits, targets, over)})
