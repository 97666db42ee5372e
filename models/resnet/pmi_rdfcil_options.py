"""The flags of ``pmi_rdfcil``: the buffer, the selection, the inversion."""

from __future__ import annotations

from dataclasses import dataclass

from pmi_cl.models.inverting import SelectionOptions
from pmi_cl.models.resnet.replay_options import ReplayOptions
from pmi_cl.options import option


@dataclass(frozen=True)
class PmiRdfcilOptions(SelectionOptions, ReplayOptions):
    """The flags of ``pmi_rdfcil``, with the appendix's values (App. I.1).

    ``models/config/pmi_rdfcil.yaml`` has those of the released code, R-DFCIL's schedule and ours.

    The appendix prints one weight of the statistics, 1.6, and does not say of which stage. It can
    be the weight itself. Or it is the base weight of the released code, which is the full model's
    there, and which PMI multiplies by the number of pieces. Both readings give ``inv_alpha`` 1.6.
    Version 0.1.0 took 1.6 as PMI's product and 1.6 / 16 = 0.1 as its base: ``--inv_alpha 0.1``.
    """

    buffer_images: int = option(
        20000,
        "synthetic images of a task",
        unit="images",
        low=2,
        high=10_000_000,
        source="PMI appendix I.1",
        memory="buffer",
    )
    buffer_per_task: int = option(
        0,
        "and so many more for each earlier task",
        unit="images",
        low=0,
        high=1_000_000,
        source="PMI appendix I.1; code: 1000 to 5000",
    )
    balanced: bool = option(
        False, "1: as many synthetic images of each class; 0: classes drawn at random", source="PMI released code: 0"
    )

    feature_augment: bool = option(
        False,
        "1: the Gaussians and contrastive models of new classes see their images cropped and flipped at random; "
        "0: as they are",
        source="the appendix is silent; PMI released code: 1",
    )
    cfs_steps: int = option(
        40, "nominal rounds of selection", unit="rounds", low=1, high=1_000_000, source="PMI appendix I.1"
    )

    inv_start: str = option(
        "pmi",
        "where the full-model stage starts: noise, stats, lowfreq, stem, pmi, "
        "or a start that a package of yours offers",
        source="PMI Alg. 3",
    )
    inv_batch: int = option(
        4000,
        "images that are inverted together",
        unit="images",
        low=2,
        high=10_000_000,
        source="PMI released code; Tiny-ImageNet: 1000",
        memory="inversion",
    )
    inv_steps: int = option(
        280, "steps of the full-model stage", unit="steps", low=1, high=1_000_000, source="PMI appendix I.1"
    )
    inv_lr: float = option(0.15, "Adam's rate in the full-model stage", above=0, source="PMI appendix I.1")
    inv_schedule: str = option(
        "constant", "of that rate", choices=("constant", "cosine", "released"), source="PMI appendix I.1"
    )
    inv_beta2: float = option(
        0.999, "Adam's second decay in the full-model stage", above=0, high=0.99999, source="Adam's default"
    )
    inv_feature: float = option(
        1.0, "weight of the squared distance to the sampled feature", low=0, source="PMI appendix I.1"
    )
    inv_alpha: float = option(
        1.6,
        "weight of the statistics in the full-model stage",
        low=0,
        source="PMI appendix I.1: 1.6 as printed, and 1.6 as a base that PMI's layers multiply; "
        "[INF] 0.1 = 1.6 / 16 blocks; code: 0.25",
    )
    inv_statistics: str = option(
        "kl",
        "how statistics are compared: kl, or l2, DeepInversion's distances of means and variances, added over layers",
        choices=("kl", "l2"),
        source="PMI App. Eq. 20-21; DeepInversion: l2",
    )
    inv_terms: tuple[str, ...] = option(
        (), "further terms, which packages of yours offer, as NAME or NAME=WEIGHT", source="ours"
    )
    inv_ce: float = option(
        0.0, "weight of the label's cross-entropy in the full-model stage", low=0, source="PMI released code: none"
    )
    inv_tv: float = option(
        0.0, "weight of the mean squared difference of neighbouring pixels", low=0, source="PMI appendix C.3: 0"
    )
    inv_batch_tv: float = option(
        0.0,
        "weight of DeepInversion's smoothness: the lengths of all differences of a batch in four directions",
        low=0,
        source="PMI has none; DeepInversion: 2.5e-5",
    )
    inv_roll: int = option(
        0,
        "roll the batch by up to so many pixels at every step",
        unit="pixels",
        low=0,
        high=1000,
        source="[paper: none]; ours",
    )
    inv_flip: bool = option(
        False, "1: mirror the batch at random at every step, where the data set allows it", source="[paper: none]; ours"
    )
    inv_noise: float = option(
        0.0, "standard deviation of noise added at every step", low=0, source="[paper: none]; ours"
    )
    inv_spectrum: float = option(
        0.0,
        "0: optimise pixels; above: frequencies, damped by 1 / f to this power",
        low=0,
        high=2,
        source="[paper: 0]; ours",
    )
    inv_boost: bool = option(
        False,
        "1: double the weight of a term of the full-model stage that exceeds its first value",
        source="the appendix has none; PMI released code: 1",
    )
    inv_colour: bool = option(
        False, "1: optimise in the colour space of the real images", source="[paper: no]; ours", binds="checkpoint"
    )
    inv_keep_best: bool = option(
        True,
        "1: keep the iterate after the step of the lowest loss; 0: the last",
        source="PMI released code: 1; the appendix is silent",
    )

    pmi_steps: int = option(
        100, "steps of each layer", unit="steps", low=1, high=1_000_000, source="PMI appendix I.1; code: 50"
    )
    pmi_batch: int | None = option(
        None,
        "targets whose layers are inverted together; none, or fewer than inv_batch: as many as inv_batch",
        unit="images",
        low=2,
        high=10_000_000,
        source="PMI released code: 4000",
        memory="inversion",
    )
    pmi_lr: float = option(0.8, "Adam's rate of each layer", above=0, source="PMI appendix I.1")
    pmi_alpha: float = option(1.6, "weight of the statistics of each layer", low=0, source="PMI appendix I.1; code: 80")
    pmi_prior: str = option(
        "measured",
        "what is known of a layer's input",
        choices=("measured", "bn_affine"),
        source="[INF]; code: bn_affine",
    )
    pmi_boost: bool = option(
        False, "1: double the weight of a term that exceeds its first value", source="PMI released code: 1"
    )
    stem_steps: int = option(10, "steps of the stem start", unit="steps", low=1, high=1_000_000, source="ours")
