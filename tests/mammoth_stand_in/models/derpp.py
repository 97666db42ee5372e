"""Rehearsal: what a method of the host asks of a data set and of a backbone."""

import torch

from models.utils.continual_model import ContinualModel


class Derpp(ContinualModel):
    NAME = "derpp"
    COMPATIBILITY = ["class-il"]

    @staticmethod
    def get_parser(parser):
        parser.add_argument("--buffer_size", type=int, required=True)
        parser.add_argument("--alpha", type=float, required=True)
        parser.add_argument("--beta", type=float, required=True)
        return parser

    def __init__(self, backbone, loss, args, transform, dataset=None):
        super().__init__(backbone, loss, args, transform, dataset)
        assert len(transform.transforms) == 2 and hasattr(transform.transforms[-1], "transforms"), (
            "kornia could not be told"
        )
        self.buffer = []

    def observe(self, inputs, labels, not_aug_inputs, epoch=None):
        self.opt.zero_grad()
        outputs = self.net(inputs)
        loss = self.loss(outputs, labels)
        if self.buffer:
            old = [self.buffer[place] for place in torch.randperm(len(self.buffer))[: len(labels)].tolist()]
            images = torch.stack([self.transform(image) for image, _, _ in old])
            found = self.net(images)
            loss = loss + self.args.alpha * (found - torch.stack([logits for _, _, logits in old])).square().mean()
            loss = loss + self.args.beta * self.loss(found, torch.stack([label for _, label, _ in old]))
        loss.backward()
        self.opt.step()
        if self.args.buffer_size > len(self.buffer):
            self.buffer += list(zip(not_aug_inputs, labels, outputs.detach(), strict=True))
        return loss.item()
