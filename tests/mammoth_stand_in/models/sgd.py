"""Fine-tuning, under a name that ours has, too."""

from models.utils.continual_model import ContinualModel


class Sgd(ContinualModel):
    NAME = "sgd"
    COMPATIBILITY = ["class-il"]

    def observe(self, inputs, labels, not_aug_inputs, epoch=None):
        self.opt.zero_grad()
        loss = self.loss(self.net(inputs), labels)
        loss.backward()
        self.opt.step()
        return loss.item()
