"""Classify by the texts of a CLIP.

The classifier has the names and templates of the classes, the features of their texts, and logits
by cosines.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from pmi_cl.backbones.clip_pieces import bare
from pmi_cl.errors import UserError

if TYPE_CHECKING:
    from pmi_cl.backbones.clip_network import ClipNetwork

CHUNK = 256  # texts that pass the tower together


class ClassTexts:
    """The texts of classes 0, 1, ..., each under one or several templates.

    The features of several texts of a class are averaged as CLIP's authors do it: each is
    normalised, then the mean is normalised.

    Attributes:
        names: the names of the classes, as a sentence has them.
        templates: for each class, its sentences.
        tokens: (texts, length), the token numbers, class by class.
    """

    def __init__(self, net: ClipNetwork, names: Sequence[str], templates: Sequence[Sequence[str]]) -> None:
        """Tokenise every text.

        Args:
            net: whose tokenizer and text tower are used.
            names: one for each class.
            templates: for each class, the sentences with ``{}`` in the place of the name.

        Raises:
            UserError: a class has no name, or a text is longer than the network's context.
        """
        nameless = [label for label, name in enumerate(names) if not name.strip()]
        if nameless:
            raise UserError(
                f"class {nameless[0]} of the data set has no name, and a CLIP needs one to know a class by: give it one"
            )
        self.net, self.names, self.templates = net, list(names), [tuple(sentences) for sentences in templates]
        pairs = zip(self.names, self.templates, strict=True)
        texts = [template.replace("{}", name) for name, sentences in pairs for template in sentences]
        self.tokens = net.without_padding(net.tokenize(texts))
        self._frozen = torch.zeros(0, net.feature_dim, device=self.tokens.device)

    def same_texts(self) -> tuple[int, int] | None:
        """Return the first two classes with the same tokens, None if all differ.

        Such classes have one feature, and the later one is never recognised.
        """
        first: dict[bytes, int] = {}
        rows = self.tokens.cpu().split([len(sentences) for sentences in self.templates])
        for label, tokens in enumerate(rows):
            same = first.setdefault(tokens.numpy().tobytes(), label)
            if same != label:
                return same, label
        return None

    def features(self, classes: range) -> Tensor:
        """Return the features (n, d), normalised, of the text tower as it is now.

        They have a gradient where gradients are on.
        """
        counts = [len(sentences) for sentences in self.templates]
        asked, first = counts[classes.start : classes.stop], sum(counts[: classes.start])
        tokens = self.tokens[first : first + sum(asked)]
        features = torch.cat([F.normalize(self.net.encode_text(part), dim=1) for part in tokens.split(CHUNK)])
        return F.normalize(torch.cat([part[None].mean(1) for part in features.split(asked)]), dim=1)

    @torch.no_grad()
    def frozen(self, classes: range) -> Tensor:
        """Return the features (n, d), normalised, of the text tower without adapters.

        Each class is computed once, and by itself. In a batch the last bits would depend on which
        classes are computed together, and a resumed run would differ from one without a stop.
        """
        if len(self._frozen) < classes.stop:
            with bare(self.net.text_blocks):
                new = [self.features(range(label, label + 1)) for label in range(len(self._frozen), classes.stop)]
            self._frozen = torch.cat([self._frozen, *new])
        return self._frozen[classes.start : classes.stop]


class TextClassifier:
    """Classifies image features by their cosines with the features of the classes' texts.

    It needs a network that encodes texts and has a scale for cosines. What trains the network is
    not its concern.

    Attributes:
        texts: the classes under the training prompt.
        evaluation_texts: the classes under the templates of the evaluation.
        trains: whether the text tower trains. If not, the features of a text are computed once.
    """

    def __init__(
        self,
        net: ClipNetwork,
        names: Sequence[str],
        prompts: Sequence[str],
        ensembles: Sequence[Sequence[str]] = (),
        trains: bool = False,
    ) -> None:
        """Tokenise the texts of all classes.

        Args:
            net: whose text tower is used.
            names: the name of each class.
            prompts: the template of the training, for each class.
            ensembles: the templates of the evaluation, for each class. Empty: the prompts alone.
            trains: whether the text tower trains.

        Raises:
            UserError: as :class:`ClassTexts`.
        """
        self.net, self.trains = net, trains
        self.texts = ClassTexts(net, names, [(prompt,) for prompt in prompts])
        self.evaluation_texts = ClassTexts(net, names, ensembles) if ensembles else self.texts
        self._evaluated: dict[range, Tensor] = {}
        self._held: tuple[range, Tensor] | None = None

    def refuse_same_texts(self, class_names: Sequence[str]) -> None:
        """Refuse classes that the evaluation cannot tell apart.

        Args:
            class_names: the names of all classes, as the data set has them.

        Raises:
            UserError: names two classes whose texts have the same tokens.
        """
        texts = self.evaluation_texts
        same = texts.same_texts()
        if same is not None:
            one, other = (f"{label} '{class_names[label]}'" for label in same)
            text = texts.templates[same[1]][0].replace("{}", texts.names[same[1]])
            raise UserError(
                f"the classes {one} and {other} are one and the same text for a CLIP ('{text}'): give one of them "
                "another name, since nothing else tells them apart"
            )

    def features(self, classes: range, trained: bool = True) -> Tensor:
        """Return the features (n, d), normalised, of classes under the training prompt.

        Args:
            classes: the classes that are asked for.
            trained: True: by the text tower as it is now, with a gradient. False: by the frozen
                tower, computed once a run. Where the text tower does not train, both are the same.
        """
        if not (trained and self.trains):
            return self.texts.frozen(classes)
        if self._held is None:
            return self.texts.features(classes)
        held, text = self._held
        return text[classes.start - held.start : classes.stop - held.start]

    @contextmanager
    def held(self, classes: range) -> Iterator[None]:
        """Compute the texts of ``classes`` once; inside, :meth:`features` returns parts of them."""
        if self.trains:
            self._held = classes, self.texts.features(classes)
        try:
            yield
        finally:
            self._held = None

    def evaluation_features(self, classes: range) -> Tensor:
        """Return the features (n, d), normalised, of classes under the templates of the evaluation.

        Those of a tower that trains are kept until :meth:`forget`.
        """
        if classes not in self._evaluated and not self.trains:
            return self.evaluation_texts.frozen(classes)
        if classes not in self._evaluated:
            with torch.no_grad():
                self._evaluated[classes] = self.evaluation_texts.features(classes)
        return self._evaluated[classes]

    def keep_evaluation_features(self, features: Tensor) -> None:
        """Take the features (n, d) of classes 0 to n - 1 as given, until :meth:`forget`."""
        classes = range(len(features))
        if features.shape != (len(classes), self.net.feature_dim) or len(classes) > len(self.texts.names):
            raise ValueError("these are not the features of the texts of this run's classes")
        self._evaluated[classes] = features

    def forget(self) -> None:
        """Drop the kept features of the evaluation: the text tower has changed."""
        self._evaluated.clear()

    def logits(self, features: Tensor, text: Tensor) -> Tensor:
        """Return the scaled cosines (b, n) of image features (b, d) and text features (n, d).

        The text features are normalised already.
        """
        return self.net.scale() * F.normalize(features, dim=1) @ text.T
