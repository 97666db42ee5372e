"""Train a class-conditional generator against a critic, and replay its images (DCMI)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pmi_cl.inversion.networks.pieces import in_evaluation_mode
from pmi_cl.inversion.ways.conditional_generator import (
    ConditionalGenerator,
    Critic,
    alignment_loss,
    class_profiles,
    critic_loss,
)
from pmi_cl.models.resnet.generated_replay import GeneratedReplay
from pmi_cl.models.resnet.replay_options import ControlOptions
from pmi_cl.models.storage import bytes_of
from pmi_cl.models.training.schedules import learning_rate
from pmi_cl.options import option
from pmi_cl.seeding import global_seed, seeded


@dataclass(frozen=True)
class ConditionalReplayOptions(ControlOptions):
    """Hold the options of DCMI's generator and critic."""

    generator_epochs: int = option(
        100,
        "epochs of the generator on the new task's images, before each task",
        unit="epochs",
        low=1,
        high=100_000,
        source="DCMI",
    )
    generator_lr: float = option(
        1e-3,
        "learning rate of generator and critic, which falls to 0 along a cosine",
        above=0,
        source="DCMI",
    )
    generator_critic_steps: int = option(
        5,
        "steps of the critic for each of the generator",
        unit="steps",
        low=1,
        high=1000,
        source="DCMI (CIFAR-100)",
    )
    generator_critic_width: int = option(
        64, "channels of the critic's first layer", unit="channels", low=1, high=4096, source="DCMI"
    )
    generator_alignment: float = option(10.0, "weight of the alignment with the prototypes", low=0, source="DCMI")
    generator_adversarial: float = option(0.5, "weight of the critic's score", low=0, source="DCMI")
    generator_penalty: float = option(10.0, "weight of the critic's gradient penalty", low=0, source="DCMI")
    generator_gamma: float = option(
        10.0, "factor of the cosines to prototypes in softmaxes", above=0, source="DCMI (CIFAR-100)"
    )


class ConditionalReplay(GeneratedReplay):
    """Replay images of old classes that a generator makes from prototypes.

    Attributes:
        prototypes: the mean feature of each class of the tasks that have ended, (classes, d).
        generator, critic: new in each task. None in the first task and between two tasks.
        generator_opts: the Adam of the generator and that of the critic.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.prototypes = torch.zeros(0, int(self.net.feature_dim), device=self.device)
        self.critic: Critic | None = None
        self.generator_opts: list[torch.optim.Optimizer] = []

    def new_generator(self) -> None:
        """Build generator, critic and their Adams."""
        with global_seed(self.args.seed, "generator", self.current_task):
            generator = ConditionalGenerator(self.n_past_classes, self.dataset.SIZE)
            critic = Critic(self.dataset.SIZE, self.options.generator_critic_width)
        self.generator = generator.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.critic = critic.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.generator_opts = [
            torch.optim.Adam(part.parameters(), lr=self.options.generator_lr, betas=(0.0, 0.9))
            for part in (self.generator, self.critic)
        ]
        self.generator_step = 0

    def drop_generator(self) -> None:
        """Forget generator, critic and their Adams."""
        self.generator, self.critic, self.generator_opts = None, None, []

    def generator_parts(self) -> dict[str, Any]:
        """Return generator, critic and their Adams."""
        opt, critic_opt = self.generator_opts
        return {"net": self.generator, "critic": self.critic, "opt": opt, "critic_opt": critic_opt}

    def generator_training(self) -> tuple[int, Callable[[int], Tensor]]:
        """Return the steps of all epochs, and :meth:`_generator_step`."""
        return self.options.generator_epochs * self.steps_per_epoch(), self._generator_step

    def _set_generator_rate(self, epoch: int) -> None:
        rate = learning_rate(epoch, self.options.generator_epochs, self.options.generator_lr, "cosine")
        for group in (group for optimizer in self.generator_opts for group in optimizer.param_groups):
            group["lr"] = rate

    def _generator_step(self, step: int) -> Tensor:
        """Take the critic's steps and one of the generator, on images of the same classes.

        Return the loss of the generator.
        """
        o, (opt, critic_opt) = self.options, self.generator_opts
        assert self.critic is not None
        self._set_generator_rate(step // self.steps_per_epoch())
        real = self._new_images(step)
        labels = self._old_classes(len(real), "generator", step)
        for number in range(o.generator_critic_steps):
            with torch.no_grad():
                fake = self._made(labels, "critic", step, number)
            parts = torch.rand(len(real), generator=self._random("parts", step, number))
            critic_opt.zero_grad()
            critic_loss(
                self.critic, real, fake, parts.to(self.device, non_blocking=True), o.generator_penalty
            ).backward()
            critic_opt.step()
        fake = self._made(labels, "generator", step)
        features = self.teacher(fake, returnt="features")
        aligned = alignment_loss(features, labels, self.prototypes, o.generator_gamma)
        loss = o.generator_alignment * aligned - o.generator_adversarial * self.critic(fake).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
        return loss.detach()

    def _new_images(self, step: int) -> Tensor:
        """Return the batch of the new task's images (b, c, h, w) that a generator's step takes."""
        epoch, number = divmod(step, self.steps_per_epoch())
        return next(self.train_batches(epoch, start=number))[0]

    def _random(self, *keys: int | str) -> torch.Generator:
        return seeded(self.args.seed, "z", self.current_task, *keys)

    def _old_classes(self, n: int, *keys: int | str) -> Tensor:
        """Draw old classes (n,) at random."""
        random = self._random("classes", *keys)
        return torch.randint(self.n_past_classes, (n,), generator=random).to(self.device, non_blocking=True)

    def _made(self, labels: Tensor, *keys: int | str) -> Tensor:
        """Make images (n, c, h, w) of old classes (n,)."""
        z = torch.randn(len(labels), ConditionalGenerator.NOISE, generator=self._random(*keys))
        shares = class_profiles(self.prototypes[labels], self.prototypes, self.options.generator_gamma).exp()
        return self.generator(z.to(self.device, non_blocking=True), shares)

    def draw_replay(self, n: int, epoch: int, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Make new images at every step.

        Returns:
            Normalised images (n, c, h, w), labels (n,) and the teacher's logits (n, old classes).
        """
        with torch.no_grad(), in_evaluation_mode([self.generator]):
            labels = self._old_classes(n, "replay", epoch, step)
            images = self._made(labels, "replay", epoch, step)
            return images, labels, self.teacher(images)

    def stored(self) -> dict[str, int]:
        """Return the bytes of the teacher and, within a task, the generator; of the prototypes."""
        own = super().stored()
        networks = own["networks"] + bytes_of(self.generator, self.critic)
        return {**own, "networks": networks, "statistics": bytes_of(self.prototypes)}
