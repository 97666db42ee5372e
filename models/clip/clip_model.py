"""Define the base of the CLIP methods.

The towers are frozen, a few modules in them train, and classes are known by their texts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from pmi_cl.errors import UserError
from pmi_cl.machine.state_fields import whole_field
from pmi_cl.models.clip.clip_training_options import ClipTrainingOptions
from pmi_cl.models.clip.replay import Replay
from pmi_cl.models.clip.text_classifier import TextClassifier
from pmi_cl.models.continual_model import ContinualModel
from pmi_cl.models.run_outline import RunOutline
from pmi_cl.seeding import global_seed

if TYPE_CHECKING:
    from pmi_cl.backbones.clip_network import ClipNetwork
    from pmi_cl.datasets.continual_dataset import ContinualDataset
    from pmi_cl.models.clip.task_plan import TaskPlan


TEXT = "text_features"  # the name, among the tensors of a network, of (seen classes, d)


class ClipModel(ContinualModel):
    """A CLIP whose towers are frozen. A subclass puts modules of its own into their blocks.

    Only these modules train (:meth:`build`). Images are classified by the cosine of their feature
    with the features of the texts of the seen classes. A task is trained by cross-entropy over its
    own classes. How long, from which samples and at which rate is in the plan of the task.

    Attributes:
        learned: the method's own modules, by name. They are all of the network that a checkpoint
            holds: the towers come back from their weights.
        classifier: the texts of the classes, and logits by cosines.
        replay: what is done for the classes of earlier tasks.
    """

    BACKBONE_KIND = "clip"
    NAMES_UNSEEN = True
    DEFAULTS: ClassVar[dict[str, Any]] = {"backbone": "clip-vit-b-16"}
    EVALUATION_BATCH = 128
    TRAINS_TEXT = False  # True: modules in the text tower, so that its features change with every step
    REPLAY: type[Replay] = Replay
    Options: type = ClipTrainingOptions
    options: ClipTrainingOptions  # zsclip, which trains nothing, has ClipOptions alone
    net: ClipNetwork

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.net.requires_grad_(False).eval()
        self._present_images()
        self.classifier = self._new_classifier()
        with global_seed(self.args.seed, "learned"):
            self.learned = self.build().to(self.device)
        self.replay = self.REPLAY(self)

    def _present_images(self) -> None:
        """Let the data set resize and vary images as the options say, in the network's form."""
        form = self.dataset.form
        assert form is not None, "dataset.present_as() comes before the method"
        augment = getattr(self.options, "clip_augment", form.augment)
        self.dataset.present_as(dataclasses.replace(form, resize=self.options.resize, augment=augment))

    def _new_classifier(self) -> TextClassifier:
        """Return the classifier of all classes. Raise UserError if two have the same text."""
        o, dataset, labels = self.options, self.dataset, range(self.dataset.N_CLASSES)
        prompts = [o.prompt_template or dataset.prompt_of(label) for label in labels]
        ensembles = [] if o.eval_templates == "prompt" else [dataset.templates_of(label) for label in labels]
        classifier = TextClassifier(self.net, dataset.prompt_names, prompts, ensembles, self.TRAINS_TEXT)
        classifier.refuse_same_texts(dataset.class_names)
        return classifier

    @classmethod
    def check(cls, args: SimpleNamespace, outline: RunOutline) -> None:
        """Refuse a prompt without a place for the name, or too long for the network.

        Raises:
            UserError: says what is wrong, of the prompt or of the replay.
        """
        super().check(args, outline)
        if (augment := getattr(args, "augment", "rdfcil")) != "rdfcil":
            raise UserError(f"--augment {augment} is for ResNets: a CLIP's images vary as --clip_augment says")
        prompt = args.prompt_template
        if prompt is not None and "{}" not in prompt:
            raise UserError(f"--prompt_template '{prompt}' has no place for the name: write {{}} there")
        if prompt is not None and set("{}") & set(prompt.replace("{}", "")):
            raise UserError(
                f"--prompt_template '{prompt}': {{}} is the place for the name, and there is no other field"
            )
        if prompt is not None and outline.network is not None:
            outline.network.tokenize([prompt.replace("{}", "")])
        cls.REPLAY.check(args, outline)

    @classmethod
    def samples_mib(cls, args: SimpleNamespace, outline: RunOutline) -> float:
        """Return the most that the replay's samples take, in MiB."""
        return cls.REPLAY.samples_mib(args, outline)

    # What a subclass adds to the towers.

    def build(self) -> nn.ModuleDict:
        """Make the modules that train and put them into the network's blocks.

        They draw from torch's own generator, which is seeded with the run's seed.
        """
        return nn.ModuleDict()

    def extend_learned(self) -> None:
        """Add to ``learned`` what the current task needs.

        After a resumption it may be there already.
        """

    def trainable_parameters(self) -> list[nn.Parameter]:
        """Return what the optimiser moves."""
        return [parameter for parameter in self.learned.parameters() if parameter.requires_grad]

    # From images to logits.

    def context(self, maps: Tensor, kept: Tensor | None = None) -> Tensor | None:
        """Return what the method's prompts choose by, (b, dq). None: they do not choose.

        Args:
            maps: (b, width, g, g), of the patch convolution.
            kept: (b, k), the patches of each map that are looked at. None: all.
        """
        return None

    def features_of_maps(self, maps: Tensor, context: Tensor | None = None, kept: Tensor | None = None) -> Tensor:
        """Return the features (b, d), not normalised, of maps of the patch convolution.

        Args:
            maps: (b, width, g, g), real or synthetic.
            context: (b, dq) of each sample. None: that of the maps themselves.
            kept: (b, k), the patches of each map that are looked at. None: all.
        """
        return self.net.features_from(maps, 1, self.context(maps, kept) if context is None else context, kept)

    def image_features(self, images: Tensor) -> Tensor:
        """Return the features (b, d), not normalised, of images (b, 3, h, w)."""
        return self.features_of_maps(self.net.pieces()[0](images))

    def class_logits(self, features: Tensor, classes: range) -> Tensor:
        """Return the logits (b, n) of classes, as they are trained, from image features (b, d)."""
        return self.classifier.logits(features, self.classifier.features(classes))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (b, seen classes), as they are evaluated, of images (b, 3, h, w)."""
        return self.logits_and_features(x)[0]

    def logits_and_features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits (b, seen classes) and the features (b, d), unscaled, of images."""
        features = self.image_features(x)
        text = self.classifier.evaluation_features(range(self.n_seen_classes))
        return self.classifier.logits(features, text), features

    def every_class(self, x: Tensor) -> Tensor:
        """Return the logits (b, all classes of the run) of images, by the names of the classes."""
        text = self.classifier.evaluation_features(range(self.dataset.N_CLASSES))
        return self.classifier.logits(self.image_features(x), text)

    # A task, from its begin to its end.

    def plan(self) -> TaskPlan:
        """Return how the current task is learned."""
        return self.replay.plan()

    def n_epochs(self) -> int:
        """Return the epochs of the current task."""
        return self.plan().epochs()

    def steps_per_epoch(self) -> int:
        """Return the steps of an epoch of the current task."""
        return self.plan().steps_per_epoch()

    def train_batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield what :meth:`observe` is given in an epoch, from step ``start`` on."""
        return self.plan().batches(epoch, start)

    def grow(self) -> None:
        """End the optimiser of the task before. There is no head to grow."""
        self.opt = None

    def replay_samples(self) -> int:
        """Return how many synthetic samples are made for the current task."""
        return self.replay.samples()

    def begin_task(self, dataset: ContinualDataset) -> None:
        """Prepare the replay by the model as it is; then extend it, and make a new optimiser."""
        self.replay.prepare()
        self.extend_learned()
        self.opt = self.new_optimizer(self.trainable_parameters())

    def begin_epoch(self, epoch: int, dataset: ContinualDataset) -> None:
        """Do nothing: the rate is set step by step."""

    def set_modes(self) -> None:
        """Keep the towers in evaluation mode and let what is learned train."""
        self.net.eval()
        self.learned.train()

    def observe(
        self, inputs: Tensor, labels: Tensor, not_aug_inputs: Tensor, epoch: int = 0, step: int = 0
    ) -> dict[str, Tensor]:
        """Take a step down the sum of :meth:`losses`.

        Dropout and noise draw from torch's own generator, which is seeded for this step.

        Args:
            inputs: what the plan's batches hold: images (b, 3, h, w), normalised and augmented; in
                a task without images the numbers (b,) of synthetic samples.
            labels: (b,), global.
            not_aug_inputs: not used.
            epoch, step: their numbers in the task.
        """
        self.set_rate(self.plan().rate(epoch, step))
        with global_seed(self.args.seed, "step", self.current_task, epoch, step, device=self.device):
            losses = self.losses(inputs, labels, epoch, step)
        told = self.descend(losses)
        self.classifier.forget()
        return told

    def losses(self, inputs: Tensor, labels: Tensor, epoch: int, step: int) -> dict[str, Tensor]:
        """Return all losses of a step, weighted; their sum is minimised."""
        features = self.plan().features(inputs)
        local = self.replay.ce_factor() * self.local_loss(features, labels)
        return {"ce": local, **self.replay.losses(features, labels, epoch, step)}

    def local_loss(self, features: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy over the current task's classes alone.

        Args:
            features: (b, d).
            labels: (b,), global.
        """
        current = range(self.n_past_classes, self.n_seen_classes)
        return self.loss(self.class_logits(features, current), labels - self.n_past_classes)

    def new_optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Return a new optimiser of the parameters, as the plan says."""
        return self.plan().optimizer(parameters)

    def end_task(self, dataset: ContinualDataset) -> None:
        """Let the replay keep what it needs of the task."""
        self.replay.end_task(dataset)

    # What a record and a checkpoint hold.

    def stored(self) -> dict[str, int]:
        """Return the bytes that the replay holds: towers and what is learned classify."""
        return self.replay.stored()

    def inversion_figures(self) -> dict[str, float]:
        """Return what the replay's inversions have cost over the run so far."""
        return self.replay.figures()

    def state(self) -> dict[str, Any]:
        """Return the task, what is learned, the optimiser and the replay's state.

        The towers are left out.
        """
        opt = None if self.opt is None else self.opt.state_dict()
        return {
            "task": self.current_task,
            "learned": self.learned.state_dict(),
            "opt": opt,
            **self.replay.state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state` returned."""
        super().load_state(state)
        self.replay.load_state(state)

    def load_weights(self, state: dict[str, Any]) -> None:
        """Restore the task and what is learned."""
        self.current_task = whole_field(state["task"], high=self.dataset.N_TASKS - 1)
        self.classifier.forget()
        self.learned.load_state_dict(state["learned"])

    def network_state(self) -> dict[str, Tensor]:
        """Return what is learned, and the features of the texts of the seen classes."""
        with torch.no_grad():
            text = self.classifier.evaluation_features(range(self.n_seen_classes))
        return {**{f"learned.{name}": value for name, value in self.learned.state_dict().items()}, TEXT: text}

    def load_network(self, state: dict[str, Tensor], task: int) -> None:
        """Restore what is learned, and the features of the texts as they were computed then."""
        self.current_task = task
        self.classifier.forget()
        learned = {name.removeprefix("learned."): value for name, value in state.items() if name != TEXT}
        self.learned.load_state_dict(learned)
        self.classifier.keep_evaluation_features(state[TEXT].to(self.device))

    def backbone_state(self) -> dict[str, Tensor]:
        """Return the weights of both towers, without what is learned."""
        return {name: value.detach() for name, value in self._frozen().items()}

    def load_backbone(self, state: dict[str, Tensor]) -> None:
        """Restore the weights of both towers."""
        if state.keys() != self._frozen().keys():
            raise ValueError("these are not the weights of this network")
        self.net.load_state_dict(state, strict=False)

    def _frozen(self) -> dict[str, Tensor]:
        """Return the tensors of the network that are not those of ``learned``, by name."""
        learned = {id(value) for value in self.learned.state_dict(keep_vars=True).values()}
        return {name: value for name, value in self.net.state_dict(keep_vars=True).items() if id(value) not in learned}

    def restore_optimizer(self) -> None:
        """Build ``opt`` over what trains, for its own state to be loaded into."""
        self.opt = self.new_optimizer(self.trainable_parameters())
