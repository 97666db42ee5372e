"""Train ABD, "Always Be Dreaming" (Smith et al., ICCV 2021), on a ResNet.

A generator inverts the frozen network after each task. In the next task its images are replayed
under three losses: cross-entropy of real images over the new classes alone, cross-entropy over all
classes that moves the classifier alone, and a distance of features, measured by the frozen old
classifier. Facts were read in the authors' released code (``50d9c2e``).

What deviates from it, and why:

* The network is the backbone that was asked for, whose heads have no bias. The original's is a
  ResNet-32 with a ReLU after each addition and one biased head. The distance of features does not
  depend on the bias.
* The classifier's loss takes the features of the same pass, detached. The original computes them in
  a second pass in training mode, which gives the same features, but moves the running statistics of
  BatchNorms twice per step.
* That loss and the first task's are over the classes seen so far. The original's are over all
  classes of the run, those of tasks to come included.
* The class weights have an entry for each class. The original's vector is as long as the batch, and
  fails where there are more classes than that.
* The generator makes images of any side that is 8 or more times a power of two.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pmi_cl.models.resnet.joint_replay import JointReplay, JointReplayOptions
from pmi_cl.models.training.distillation import feature_distillation
from pmi_cl.models.training.losses import share_weights, weighted_cross_entropy
from pmi_cl.options import option


@dataclass(frozen=True)
class AbdOptions(JointReplayOptions):
    """Hold ABD's own values. ``models/config/abd.yaml`` has smaller ones."""

    lambda_ce: float = option(1.0, "weight of the cross-entropy over new classes, in later tasks", low=0, source="ABD")
    lambda_ft: float = option(1.0, "weight of the classifier's cross-entropy over all classes", low=0, source="ABD")
    lambda_kd: float = option(0.1, "weight of the distillation of features", low=0, source="ABD: mu")


class Abd(JointReplay):
    """ABD: a generator inverts the network; local cross-entropy, distillation of features."""

    NAME = "abd"
    Options = AbdOptions
    options: AbdOptions

    def replay_losses(self, images: Tensor, labels: Tensor, teacher_logits: Tensor) -> dict[str, Tensor]:
        """Return local CE (real images), CE on detached features and feature distillation (all).

        Each sample is weighted by the share of the other classes (:func:`share_weights`). See the
        base class for the arguments.
        """
        o, real, old = self.options, slice(len(images) - len(teacher_logits)), self.n_past_classes
        logits, features = self.net(images, returnt="both")
        with torch.no_grad():
            teacher_features = self.teacher(images, returnt="features")
        weights = share_weights(labels, old, self.cpt)
        local = weighted_cross_entropy(logits[real, old:], labels[real] - old, weights[real])
        everything = weighted_cross_entropy(self.net.head(features.detach()), labels, weights)
        return {
            "ce": o.lambda_ce * local,
            "ft": o.lambda_ft * everything,
            "kd": o.lambda_kd * feature_distillation(features, teacher_features, self.teacher.head),
        }
