"""Compute distillation losses: of softened logits, of sigmoids, and of features.

They are LwF's (Li and Hoiem, ECCV 2016), iCaRL's and LwF-MC's (Rebuffi et al., CVPR 2017), and
ABD's (Smith et al., ICCV 2021).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F


def soft_distillation(
    logits: Tensor,
    teacher_logits: Tensor,
    temperature: float = 2.0,
    *,
    over_all_classes: bool = False,
    times_squared_temperature: bool = False,
) -> Tensor:
    """Return the cross-entropy of softened probabilities, averaged over the batch (Hinton, 2015).

    It is -sum over classes of p log q, with p = softmax(teacher_logits / T) and
    q = softmax(logits / T). Its least value is the entropy of p, not 0.

    The gradient with respect to the logits is (q - p) / T, which itself shrinks as 1/T. So it falls
    as 1/T^2 (Hinton et al., section 2.1). LwF, ABD and Mammoth do not multiply the loss by T^2, and
    neither does the default. ZSCL and Hinton do: ``times_squared_temperature``.

    Args:
        logits: (b, classes), of the student.
        teacher_logits: (b, old classes), not more than the student's. They get no gradient.
        temperature: T, above 0.
        over_all_classes: whether q is a softmax over all logits of the student, where the teacher
            has probability 0 for new classes (ABD's ``DeepInversion``). Otherwise q is a softmax
            over the old classes alone, and the new logits are ignored (LwF).
        times_squared_temperature: whether the loss is multiplied by T^2.
    """
    n_old = teacher_logits.shape[1]
    targets = F.softmax(teacher_logits.detach() / temperature, dim=1)
    scores = logits if over_all_classes else logits[:, :n_old]
    log_shares = F.log_softmax(scores / temperature, dim=1)[:, :n_old]
    loss = -(targets * log_shares).sum(1).mean()
    return loss * temperature**2 if times_squared_temperature else loss


def sigmoid_targets(labels: Tensor, teacher_logits: Tensor | None, n_classes: int) -> Tensor:
    """Return what the sigmoids of LwF-MC and iCaRL are to become, (b, n_classes), from 0 to 1.

    They are one-hot labels, whose columns of old classes are the teacher's sigmoids instead. So a
    stored image of an old class has no hard label either (iCaRL, Alg. 3).

    Args:
        labels: (b,), global.
        teacher_logits: (b, old classes); None in the first task.
        n_classes: the number of classes, new ones included.
    """
    hard = F.one_hot(labels, n_classes)
    if teacher_logits is None:
        return hard.to(torch.get_default_dtype())
    shares = teacher_logits.detach().sigmoid()
    return torch.cat([shares, hard[:, shares.shape[1] :].to(shares.dtype)], dim=1)


def sigmoid_distillation(logits: Tensor, targets: Tensor, over_classes: Literal["sum", "mean"] = "sum") -> Tensor:
    """Return the binary cross-entropy of sigmoids, averaged over the batch.

    It is computed from logits, so that it stays finite in low precision.

    Args:
        logits: (b, classes), of the student.
        targets: (b, classes), from 0 to 1 (:func:`sigmoid_targets`).
        over_classes: "sum" adds the classes (iCaRL, Alg. 3; ABD), "mean" averages them (Mammoth).
            They differ by the number of classes, which grows, and so does the step of SGD.
    """
    each = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return (each.sum(1) if over_classes == "sum" else each.mean(1)).mean()


def feature_distillation(features: Tensor, teacher_features: Tensor, head: Callable[[Tensor], Tensor]) -> Tensor:
    """Return ABD's distillation of features, measured through the frozen head of the old classes.

    It is the squared difference of the logits that ``head`` gives the features of student and
    teacher, averaged over samples and old classes (ABD, Eq. 8). A bias of the head has no effect.

    Args:
        features: (b, d), of the student.
        teacher_features: (b, d). They get no gradient.
        head: maps (b, d) to the logits (b, old classes). It has to be frozen, as the teacher's is.
    """
    return F.mse_loss(head(features), head(teacher_features).detach())
