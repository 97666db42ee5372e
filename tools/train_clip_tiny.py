"""Train backbones/clip_tiny.safetensors on glyphs of matplotlib's fonts.

    OMP_NUM_THREADS=1 python tools/train_clip_tiny.py [--report]

It takes about six minutes on one core. The model is open_clip's. The loss takes all pictures and
captions of one concept as positives of each other. No choice is made by real digits and none is
trained on: the fonts in ``HELD_OUT`` judge. ``--report`` shows the accuracy on the real ones.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from glyphs import CONCEPTS, Glyphs, draw, font_files, render
from torch import Tensor, nn
from torch.nn import functional as F

from pmi_cl.backbones import clip_tiny
from pmi_cl.backbones.open_clip_library import open_clip_module
from pmi_cl.datasets.seq_digits import upscaled
from pmi_cl.seeding import seeded

HELD_OUT = ("DejaVuSansMono-Oblique.ttf", "DejaVuSerif-Italic.ttf", "STIXGeneralItalic.ttf", "cmss10.ttf", "cmti10.ttf")
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
DIGIT_TEMPLATES = (
    "a photo of the digit {}.",
    "the digit {}.",
    "a picture of the number {}.",
    "the number {} written by hand.",
    'a photo of the number: "{}".',
)
LETTER_TEMPLATES = ("a photo of the letter {}.", "the letter {}.", "the letter {} written by hand.")
TEMPLATES = (
    "a bad photo of a {}.",
    "a photo of a {}.",
    "a handwritten {}.",
    "a printed {}.",
    "a drawing of a {}.",
    "a blurry photo of a {}.",
    "{}",
)
DIGIT_SHARE = 0.6  # of the pictures of a batch
MAX_SCALE = 100.0  # of the cosines, as CLIP has it


@dataclass(frozen=True)
class Recipe:
    """The settings of the training."""

    steps: int = 1000
    batch: int = 256  # pictures; each step has one caption of each concept
    rate: float = 1e-3
    warmup: int = 100
    decay: float = 0.1
    seed: int = 0


def captions(concept: int) -> list[str]:
    """Return all captions of a concept: every template with every name."""
    sign = CONCEPTS[concept]
    if concept < len(WORDS):
        names, own = [sign, WORDS[concept]], DIGIT_TEMPLATES
        general = [*names, *(f"digit {name}" for name in names)]
    else:
        names, own, general = [sign], LETTER_TEMPLATES, [f"letter {sign}"]
    return [template.format(name) for template in own for name in names] + [
        t.format(name) for t in TEMPLATES for name in general
    ]


def tokens(texts: list[str]) -> Tensor:
    """Return open_clip's token numbers, (n, 77)."""
    result: Tensor = open_clip_module("tokenizer").tokenize(texts)
    return result


def pictures(counts: Tensor) -> Tensor:
    """Turn counts (n, 8, 8) into network input (n, 3, 16, 16) by way of the pixels of
    ``seq-digits``.
    """
    form = clip_tiny.read_config()["preprocess_cfg"]
    mean, std = (torch.tensor(form[name])[:, None, None] for name in ("mean", "std"))
    return (upscaled(counts).float() / 255 - mean) / std


def contrastive_loss(images: Tensor, texts: Tensor, concepts: Tensor, scale: Tensor) -> Tensor:
    """Return the cross-entropy over captions for each picture, and over pictures for each caption.

    The second is spread over all positives of a caption, and leaves out captions that have none.
    Source: J. Yang et al., Unified contrastive learning in image-text-label space, CVPR 2022, with
    one caption per concept.

    Args:
        images: (n, d) normalised.
        texts: (c, d) normalised; row k describes concept k.
        concepts: (n,).
    """
    logits = scale * images @ texts.T
    positive = F.one_hot(concepts, len(texts)).float()
    count = positive.sum(0)
    by_text = -(logits.log_softmax(0) * positive).sum(0)[count > 0] / count[count > 0]
    return (F.cross_entropy(logits, concepts) + by_text.mean()) / 2


def choose(glyphs: Glyphs, n: int, generator: torch.Generator) -> Tensor:
    """Choose ``n`` glyphs, every digit equally often and every letter equally often.

    Return their rows.
    """
    is_digit = glyphs.concepts < len(WORDS)
    share = torch.where(is_digit, DIGIT_SHARE / len(WORDS), (1 - DIGIT_SHARE) / (len(CONCEPTS) - len(WORDS)))
    weights = share / torch.bincount(glyphs.concepts, minlength=len(CONCEPTS))[glyphs.concepts]
    return torch.multinomial(weights, n, replacement=True, generator=generator)


def optimiser(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Return an AdamW that decays matrices only.

    The tables of tokens and positions are left alone: most of their rows are never used.
    """
    matrices = {name for name, value in model.named_parameters() if value.ndim >= 2 and "embedding" not in name}
    groups = [
        {
            "params": [value for name, value in model.named_parameters() if name in matrices],
            "weight_decay": recipe.decay,
        },
        {"params": [value for name, value in model.named_parameters() if name not in matrices], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.rate, betas=(0.9, 0.98), fused=True)


def rate_factor(step: int, recipe: Recipe) -> float:
    """Return the part of the full rate at a step.

    A linear warm-up, then half a cosine down to 0.
    """
    return min(1.0, (step + 1) / recipe.warmup) * (1 + math.cos(math.pi * step / recipe.steps)) / 2


def train(glyphs: Glyphs, recipe: Recipe) -> nn.Module:
    """Train from the seeded start."""
    model = clip_tiny.build(clip_tiny.read_config())
    optimizer = optimiser(model, recipe)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_factor(step, recipe))
    texts = [tokens(captions(concept)) for concept in range(len(CONCEPTS))]
    start = time.perf_counter()
    for step in range(recipe.steps):
        generator = seeded(recipe.seed, "glyphs", step)
        rows = choose(glyphs, recipe.batch, generator)
        chosen = torch.stack([some[torch.randint(len(some), (), generator=generator)] for some in texts])
        images = model.encode_image(pictures(draw(glyphs, rows, generator)), normalize=True)
        loss = contrastive_loss(
            images, model.encode_text(chosen, normalize=True), glyphs.concepts[rows], model.logit_scale.exp()
        )
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=torch.tensor(MAX_SCALE).log().item())
        if step % 100 == 99:
            print(f"step {step + 1}: loss {loss.item():.3f}, {time.perf_counter() - start:.0f} s", flush=True)
    return model.eval()


@torch.no_grad()
def text_features(model: nn.Module, templates: tuple[str, ...], names: list[str]) -> Tensor:
    """Return the mean of the normalised features over the templates, normalised: (number of names,
    d).
    """
    each = [
        model.encode_text(tokens([template.format(name) for name in names]), normalize=True) for template in templates
    ]
    return F.normalize(torch.stack(each).mean(0), dim=1)


@torch.no_grad()
def predicted(model: nn.Module, counts: Tensor, templates: tuple[str, ...] = DIGIT_TEMPLATES) -> Tensor:
    """Return the digit whose caption is nearest to each picture: (n, 8, 8) counts to (n,) int64."""
    features = torch.cat([model.encode_image(pictures(part)) for part in counts.split(256)])
    return (features @ text_features(model, templates, list(WORDS)).T).argmax(1)


def held_out_accuracy(model: nn.Module, glyphs: Glyphs, repeats: int = 20) -> float:
    """Return the percentage of right digits on bent samples of the held-out fonts."""
    rows = (glyphs.concepts < len(WORDS)).nonzero().squeeze(1).repeat(repeats)
    right = predicted(model, draw(glyphs, rows, seeded(0, "held out"))) == glyphs.concepts[rows]
    return 100 * right.float().mean().item()


def packed(model: nn.Module) -> dict[str, Tensor]:
    """Return what the file holds: float16, and of the token table the rows of the captions' tokens
    only.
    """
    state = {name: value.detach().half().contiguous() for name, value in model.state_dict().items()}
    used = tokens([text for concept in range(len(CONCEPTS)) for text in captions(concept)]).unique()
    table = state.pop(f"{clip_tiny.TOKENS}.weight")
    return {**state, f"{clip_tiny.TOKENS}.rows": table[used].contiguous(), f"{clip_tiny.TOKENS}.numbers": used.int()}


def report(model: nn.Module) -> None:
    """Print the zero-shot accuracy on the real digits. Nothing is decided by it."""
    import numpy

    from pmi_cl.datasets.seq_digits import FILE, SeqDigits

    with numpy.load(FILE) as file:
        images, labels = torch.from_numpy(file["images"]), torch.from_numpy(file["labels"]).long()
    ensembles = {
        "all of the data set": SeqDigits.TEMPLATES,
        "its prompt": (SeqDigits.PROMPT,),
        "plain": ("a bad photo of a {}.",),
    }
    for name, templates in ensembles.items():
        right = (predicted(model, images, templates) == labels).float()
        each = " ".join(f"{digit}:{100 * right[labels == digit].mean():.1f}" for digit in range(10))
        print(f"real digits, templates {name}: {100 * right.mean():.2f} % of {len(labels)}; {each}")


def main() -> None:
    """Train and write the weights, or report on those that are there."""
    from safetensors.torch import save_file

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).resolve().parent.parent / "backbones" / "clip_tiny.safetensors"
    )
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    parser.add_argument(
        "--report",
        action="store_true",
        help="train nothing; zero-shot accuracy of the shipped weights on the real digits",
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.report:
        report(clip_tiny.open_clip_model())
        return
    held = [path for path in font_files() if path.name in HELD_OUT]
    model = train(render([path for path in font_files() if path not in held]), Recipe(steps=arguments.steps))
    print(f"digits of held-out fonts: {held_out_accuracy(model, render(held)):.2f} % right")
    save_file(packed(model), arguments.out)
    print(f"{arguments.out}: {arguments.out.stat().st_size} bytes")


if __name__ == "__main__":
    sys.exit(main())
