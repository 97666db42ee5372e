"""Compute the losses of UCIR (Hou et al., CVPR 2019)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def less_forget(features: Tensor, teacher_features: Tensor) -> Tensor:
    """Return 1 minus the cosine of student's and teacher's features, averaged over the batch.

    It is UCIR's less-forget constraint (Eq. 6). Both arguments are (b, d). The teacher's get no
    gradient.
    """
    return 1 - F.cosine_similarity(features, teacher_features.detach()).mean()


def margin_ranking(cosines: Tensor, labels: Tensor, n_old: int, margin: float, nearest: int) -> Tensor:
    """Return UCIR's margin ranking loss, averaged over the samples of old classes (Eq. 8).

    For each such sample it adds max(margin - own cosine + cosine of a new class, 0) over the
    ``nearest`` new classes of the highest cosines. It is 0 if there is no such sample. The released
    code averages over these classes, too.

    Args:
        cosines: (b, classes), without a scale. The old classes come first.
        labels: (b,), global.
        n_old: the number of old classes.
        margin: m.
        nearest: K. If there are fewer new classes, all of them count.
    """
    old = labels < n_old
    own = cosines.gather(1, labels[:, None])
    rivals = cosines[:, n_old:].topk(min(nearest, cosines.shape[1] - n_old)).values
    each = F.relu(margin - own + rivals).sum(1)
    return (each * old).sum() / old.sum().clamp_min(1)
