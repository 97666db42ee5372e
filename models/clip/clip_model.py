"""The base of the CLIP methods: frozen towers, a few trained modules in them, classes known by their texts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pmi_cl.errors import UserError
from pmi_cl.inversion.ways.buffer import SyntheticBuffer
from pmi_cl.models.clip.class_texts import ClassTexts
from pmi_cl.models.continual_model import ContinualModel, RunOutline
from pmi_cl.models.training.schedules import learning_rate
from pmi_cl.options import option
from pmi_cl.seeding import global_seed

if TYPE_CHECKING:
    from pmi_cl.backbones.clip_network import ClipNetwork
    from pmi_cl.datasets.continual_dataset import ContinualDataset


@dataclass(frozen=True)
class ClipOptions:
    """What every CLIP method may be told about its images and texts."""

    resize: str = option(
        "squash",
        "how images get the network's size: squash changes the sides alone, crop keeps the middle (CLIP's own)",
        choices=("squash", "crop"),
        source="PROOF's protocol, which PMI's tables follow",
    )
    prompt_template: str | None = option(
        None,
        "sentence that a class is known by, with {} for its name; none: the data set's",
        source="PMI released code",
    )
    eval_templates: str = option(
        "prompt",
        "texts of the evaluation: the prompt_template, or the mean over the data set's templates",
        choices=("prompt", "ensemble"),
        source="PMI released code: prompt; PROOF: ensemble",
    )


@dataclass(frozen=True)
class ClipTrainingOptions(ClipOptions):
    """What every CLIP method that trains may be told about it. The rates are those of Table 9 for most data sets."""

    n_epochs: int = option(
        5, "epochs of each task", unit="epochs", low=1, high=100_000, source="PMI Table 9", as_in_mammoth=True
    )
    batch_size: int = option(
        64,
        "real images of a step",
        unit="images",
        low=1,
        high=1_000_000,
        source="PMI released code",
        memory="training",
        as_in_mammoth=True,
    )
    optimizer: str = option(
        "sgd", "of what is trained", choices=("sgd", "adamw"), source="PMI Table 9", as_in_mammoth=True
    )
    lr: float = option(0.02, "learning rate at its highest", above=0, source="PMI Table 9", as_in_mammoth=True)
    optim_mom: float = option(0.9, "momentum of SGD", low=0, high=1, source="VPT; PMI does not say", as_in_mammoth=True)
    optim_wd: float = option(
        0.0, "weight decay", low=0, source="PMI released code (MoE-Adapter); [INF] for the others", as_in_mammoth=True
    )
    lr_schedule: str = option(
        "cosine",
        "of the rate over a task, step by step: to zero along a half or a quarter of a cosine, or not at all",
        choices=("cosine", "quarter", "constant"),
        source="PMI released code",
    )
    warmup_steps: int = option(
        0,
        "steps of a task in which the rate rises first",
        unit="steps",
        low=0,
        high=10_000_000,
        source="[INF]; MoE-Adapter: 30",
    )
    clip_augment: str = option(
        "none",
        "how training images are varied: not at all, or cropped at random to nine tenths or more",
        choices=("none", "crop"),
        source="PROOF's protocol; MoE-Adapters4CL, ZSCL: crop",
    )


Inputs = Tensor | SyntheticBuffer  # of a step: images (b, 3, h, w), or synthetic samples in their place


class ClipModel(ContinualModel):
    """A CLIP whose towers are frozen; a subclass puts modules of its own into their blocks (:meth:`build`), and these alone train.

    Images are classified by the cosine of their feature and those of the seen classes' texts. A task is trained by cross-entropy over its
    own classes.

    Attributes:
        learned: the method's own modules, by name. They are all of the network that a checkpoint holds: the towers come back from their
            weights.
        texts: the classes under the training prompt.
        evaluation_texts: the classes under the templates of the evaluation.
    """

    BACKBONE_KIND = "clip"
    NAMES_UNSEEN = True
    DEFAULTS: ClassVar[dict[str, Any]] = {"backbone": "clip-vit-b-16"}
    EVALUATION_BATCH = 128
    TRAINS_TEXT = False  # True: modules in the text tower, so that its features change with every step
    Options: type = ClipTrainingOptions
    options: ClipTrainingOptions  # zsclip, which trains nothing, has ClipOptions alone
    net: ClipNetwork

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.net.requires_grad_(False).eval()
        self._present_images()
        self.texts, self.evaluation_texts = self._class_texts()
        self._seen_text: Tensor | None = None
        self._every_text: Tensor | None = None
        self._held_text: tuple[range, Tensor] | None = None
        with global_seed(self.args.seed, "learned"):
            self.learned = self.build().to(self.device)

    def _present_images(self) -> None:
        """Let the data set give images in the network's form (the program has told it which), resized and varied as the options say."""
        form = self.dataset.form
        assert form is not None, "dataset.present_as() comes before the method"
        augment = getattr(self.options, "clip_augment", form.augment)
        self.dataset.present_as(dataclasses.replace(form, resize=self.options.resize, augment=augment))

    def _class_texts(self) -> tuple[ClassTexts, ClassTexts]:
        """Make the texts of the classes under the training prompt, and under the templates of the evaluation."""
        dataset, prompt = self.dataset, self.options.prompt_template or self.dataset.PROMPT
        texts = ClassTexts(self.net, dataset.prompt_names, [prompt])
        if self.options.eval_templates == "prompt":
            return texts, texts
        return texts, ClassTexts(self.net, dataset.prompt_names, dataset.TEMPLATES)

    @classmethod
    def check(cls, args: SimpleNamespace, outline: RunOutline) -> None:
        """The prompt must have a place for the name, and fit into the network's context. Raises UserError."""
        prompt = args.prompt_template
        if prompt is not None and "{}" not in prompt:
            raise UserError(f"--prompt_template '{prompt}' has no place for the name: write {{}} there")
        if prompt is not None and set("{}") & set(prompt.replace("{}", "")):
            raise UserError(
                f"--prompt_template '{prompt}': {{}} is the place for the name, and there is no other field"
            )
        if prompt is not None and outline.network is not None:
            outline.network.tokenize([prompt.replace("{}", "")])

    def build(self) -> nn.ModuleDict:
        """Make the modules that train and put them into the network's blocks. Their random numbers are those of the run's seed."""
        return nn.ModuleDict()

    def extend_learned(self) -> None:
        """Add to ``learned`` what the current task brings, unless it is there (after a resumption)."""

    def trainable_parameters(self) -> list[nn.Parameter]:
        """List what the optimiser moves."""
        return [parameter for parameter in self.learned.parameters() if parameter.requires_grad]

    # Texts, images and logits.

    def text_features(self, classes: range, trained: bool = True) -> Tensor:
        """Features (n, d), normalised, of classes under the training prompt.

        Args:
            trained: with what the method has put into the text tower, and a gradient; else those of the frozen tower, computed once a run.
                Without modules in the text tower both are the latter.
        """
        if not (trained and self.TRAINS_TEXT):
            return self.texts.frozen(classes)
        if self._held_text is None:
            return self.texts.features(classes)
        held, text = self._held_text
        return text[classes.start - held.start : classes.stop - held.start]

    @contextmanager
    def texts_held(self, classes: range) -> Iterator[None]:
        """While entered, :meth:`text_features` gives parts of one answer for ``classes``, where the text tower trains."""
        if self.TRAINS_TEXT:
            self._held_text = classes, self.texts.features(classes)
        try:
            yield
        finally:
            self._held_text = None

    def seen_text(self) -> Tensor:
        """Features (seen classes, d), normalised, for the evaluation; those of a trained tower are kept until the next step."""
        seen = range(self.n_seen_classes)
        if not self.TRAINS_TEXT:
            return self.evaluation_texts.frozen(seen)
        if self._seen_text is None or len(self._seen_text) != len(seen):
            with torch.no_grad():
                self._seen_text = self.evaluation_texts.features(seen)
        return self._seen_text

    def context(self, maps: Tensor, kept: Tensor | None = None) -> Tensor | None:
        """Give what the method's prompts choose by, (b, dq), from maps (b, width, g, g) or from their patches ``kept`` (b, k).

        None: they do not choose."""
        return None

    def features_of_maps(self, maps: Tensor, context: Tensor | None = None, kept: Tensor | None = None) -> Tensor:
        """Maps (b, width, g, g) that the patch convolution gave, or that stand for such, to features (b, d), not normalised.

        Args:
            context: (b, dq) of each sample; None: that of the maps themselves.
            kept: (b, k), the patches of each map that are looked at; None: all.
        """
        return self.net.features_from(maps, 1, self.context(maps, kept) if context is None else context, kept)

    def image_features(self, images: Tensor) -> Tensor:
        """Images (b, 3, h, w) to features (b, d), not normalised."""
        return self.features_of_maps(self.net.pieces()[0](images))

    def logits(self, features: Tensor, text: Tensor) -> Tensor:
        """Features (b, d) of images and those of texts (n, d), normalised, to scaled cosines (b, n)."""
        return self.net.scale() * F.normalize(features, dim=1) @ text.T

    def class_logits(self, features: Tensor, classes: range) -> Tensor:
        """Features (b, d) to the logits (b, n) of classes, as they are trained."""
        return self.logits(features, self.text_features(classes))

    def forward(self, x: Tensor) -> Tensor:
        """Images (b, 3, h, w), normalised, to logits (b, seen classes), as they are evaluated."""
        return self.logits(self.image_features(x), self.seen_text())

    def every_class(self, x: Tensor) -> Tensor:
        """Images (b, 3, h, w), normalised, to logits (b, all classes of the run), by the names of the classes."""
        every = range(self.dataset.N_CLASSES)
        if not self.TRAINS_TEXT:
            return self.logits(self.image_features(x), self.evaluation_texts.frozen(every))
        if self._every_text is None:
            self._every_text = self.evaluation_texts.features(every)
        return self.logits(self.image_features(x), self._every_text)

    # Training.

    def local_loss(self, features: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy over the current task's classes alone; ``features`` (b, d), ``labels`` (b,) global."""
        current = range(self.n_past_classes, self.n_seen_classes)
        return self.loss(self.class_logits(features, current), labels - self.n_past_classes)

    def ce_factor(self) -> float:
        """The weight of :meth:`local_loss` in this task."""
        return 1.0

    def extra_losses(self, features: Tensor, labels: Tensor, epoch: int, step: int) -> dict[str, Tensor]:
        """Give what a method adds to the local loss, weighted; ``features`` (b, d) and ``labels`` (b,) are those of the step's images."""
        return {}

    def features_in_training(self, inputs: Inputs) -> Tensor:
        """Features (b, d) of what a step is given: images, where a method says no more."""
        assert isinstance(inputs, Tensor), (
            "a method whose train_batches() gives other samples says what their features are"
        )
        return self.image_features(inputs)

    def losses(self, inputs: Inputs, labels: Tensor, epoch: int, step: int) -> dict[str, Tensor]:
        """All losses of a step, weighted; their sum is minimised."""
        features = self.features_in_training(inputs)
        local = self.ce_factor() * self.local_loss(features, labels)
        return {"ce": local, **self.extra_losses(features, labels, epoch, step)}

    def observe(
        self, inputs: Inputs, labels: Tensor, not_aug_inputs: Tensor, epoch: int = 0, step: int = 0
    ) -> dict[str, Tensor]:
        """Take a step down the sum of :meth:`losses`. Dropout and noise draw from the generator of this step."""
        self.set_rate(self.rate(epoch, step))
        with global_seed(self.args.seed, "step", self.current_task, epoch, step, device=self.device):
            losses = self.losses(inputs, labels, epoch, step)
        told = self.descend(losses)
        self._seen_text = self._every_text = None
        return told

    def rate(self, epoch: int, step: int) -> float:
        """The learning rate of a step of the current task."""
        options, steps = self.options, self.steps_per_epoch()
        return learning_rate(
            epoch * steps + step, self.n_epochs() * steps, options.lr, options.lr_schedule, options.warmup_steps
        )

    def new_optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Make SGD with momentum, or AdamW, over the parameters."""
        options = self.options
        if options.optimizer == "adamw":
            return torch.optim.AdamW(parameters, lr=options.lr, weight_decay=options.optim_wd)
        return torch.optim.SGD(parameters, lr=options.lr, momentum=options.optim_mom, weight_decay=options.optim_wd)

    def set_modes(self) -> None:
        """Keep the towers in evaluation mode and let what is learned train."""
        self.net.eval()
        self.learned.train()

    # A task's turn, and what a checkpoint holds.

    def grow(self) -> None:
        """End the optimiser of the task before; there is no head to grow."""
        self.opt = None

    def begin_task(self, dataset: ContinualDataset) -> None:
        """Add what the task brings to ``learned``, and make a new optimiser."""
        self.extend_learned()
        self.opt = self.new_optimizer(self.trainable_parameters())

    def begin_epoch(self, epoch: int, dataset: ContinualDataset) -> None:
        """Do nothing: the rate is set step by step."""

    def state(self) -> dict[str, Any]:
        """Give the task, what is learned and the optimiser; not the towers."""
        opt = None if self.opt is None else self.opt.state_dict()
        return {"task": self.current_task, "learned": self.learned.state_dict(), "opt": opt}

    def load_weights(self, state: dict[str, Any]) -> None:
        """Take up the task and what is learned."""
        self.current_task, self._seen_text, self._every_text = state["task"], None, None
        self.learned.load_state_dict(state["learned"])

    def restore_optimizer(self) -> None:
        """Build ``opt`` over what trains, for its own state to be loaded into."""
        self.opt = self.new_optimizer(self.trainable_parameters())
