"""Train the row "DeepInversion" of the tables of ABD, R-DFCIL and PMI.

It is not DeepInversion itself, which optimises images (Yin et al., CVPR 2020). ABD's repository
replays the images of ABD's generator under plain losses instead: cross-entropy over all classes on
real images, and distillation of softened logits on real and generated images. No loss
favours an old class, so the network forgets: 18.8 % on CIFAR-100 in 5 tasks, where ABD has 43.9 %
(ABD's README).

Facts were read in the authors' released code (``50d9c2e``, ``DeepInversionGenBN``). What deviates
is said in ``abd.py``. DeepInversion of images is the preset ``deepinversion`` of ``pmi_rdfcil``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from pmi_cl.models.resnet.joint_replay import JointReplay, JointReplayOptions
from pmi_cl.models.training.distillation import soft_distillation
from pmi_cl.options import option


@dataclass(frozen=True)
class DeepInversionOptions(JointReplayOptions):
    """Hold the values of ABD's repository. The YAML file has smaller ones."""

    lambda_kd: float = option(1.0, "weight of both distillations", low=0, source="ABD: mu")
    kd_temperature: float = option(2.0, "logits are divided by it in the distillations", above=0, source="ABD")


class DeepInversion(JointReplay):
    """DeepInversion in the tables of ABD: its generator; cross-entropy over all classes, KD."""

    NAME = "deepinversion"
    Options = DeepInversionOptions
    options: DeepInversionOptions

    def replay_losses(self, images: Tensor, labels: Tensor, teacher_logits: Tensor) -> dict[str, Tensor]:
        """Return CE over all seen classes (real images), and KD on real and generated images.

        KD of real images is over the old classes. That of generated images is over all classes,
        where the teacher gives 0 to new ones. See the base class for the arguments.
        """
        o, n = self.options, len(images) - len(teacher_logits)
        logits = self.net(images)
        with torch.no_grad():
            real_logits = self.teacher(images[:n])
        on_real = soft_distillation(logits[:n], real_logits, o.kd_temperature)
        on_generated = soft_distillation(logits[n:], teacher_logits, o.kd_temperature, over_all_classes=True)
        return {
            "ce": F.cross_entropy(logits[:n], labels[:n]),
            "kd": o.lambda_kd * on_real,
            "kd_generated": o.lambda_kd * on_generated,
        }
