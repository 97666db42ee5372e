"""The engine as a whole: the naive loop's images, every start, what is counted, and resumption bit for bit wherever it stops."""

from __future__ import annotations

import functools
import io
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pmi_cl.backbones.resnet_cifar import resnet20
from pmi_cl.inversion.config import InversionConfig
from pmi_cl.inversion.engine.cost import input_shapes, layer_costs
from pmi_cl.inversion.engine.descent import NonFiniteInversion
from pmi_cl.inversion.engine.engine import Inversion
from pmi_cl.inversion.features.statistics import Moments, batch_moments
from pmi_cl.inversion.networks.frozen import FrozenNetwork
from pmi_cl.inversion.networks.pieces import measure_input_moments
from pmi_cl.inversion.objectives import CrossEntropy, FeatureMatch, StatisticsMatch, TotalVariation
from pmi_cl.inversion.parts.colour import Colour
from pmi_cl.inversion.starts import STARTS, low_frequency_noise, matched_noise, white_noise
from pmi_cl.inversion.transforms import Transforms
from pmi_cl.inversion.ways.pmi import PmiConfig
from pmi_cl.seeding import seeded
from tests.support.slow_references import hooked_kls
from tests.support.small_networks import trained_on_digits, two_blocks

SHAPE = (3, 8, 8)
FEATURES = 32  # of two_blocks
EVERYTHING = InversionConfig(
    steps=5,
    batch=4,
    schedule="cosine",
    beta2=0.95,
    keep_best=True,
    stem_steps=2,
    transforms=Transforms(roll=1, flip=True, noise=0.1),
    terms=(FeatureMatch(1.0), CrossEntropy(0.1), StatisticsMatch(0.1), TotalVariation(0.05)),
    pmi=PmiConfig(steps=3, boost=True),
)


@functools.cache
def moments() -> list[Moments]:
    real = torch.randn(64, *SHAPE, generator=seeded(1)) * 0.8 + 0.2
    return measure_input_moments(two_blocks().pieces(), real.split(20))


def inversion(config: InversionConfig, n: int = 10, seed: int = 0, **changes: Any) -> Inversion:
    network = two_blocks()
    given = {
        "targets": torch.randn(n, FEATURES, generator=seeded(2)),
        "labels": torch.arange(n) % 3,
        "input_moments": moments(),
    }
    return Inversion(network.pieces(), network.head, config, image_shape=SHAPE, seed=seed, **{**given, **changes})


def finished(config: InversionConfig, **changes: Any) -> Inversion:
    whole = inversion(config, **changes)
    for _ in whole.run():
        pass
    return whole


# --- what it computes ---------------------------------------------------------------------------------------------------------


def naive_batch(number: int, targets: Tensor, steps: int, transforms: Transforms) -> tuple[Tensor, list[float]]:
    """Full-model inversion by the loop that everybody writes first: hooks on every BatchNorm, in float64."""
    network = two_blocks().double()
    x = white_noise((len(targets), *SHAPE), seeded(0, "start", number, -1)).requires_grad_()
    optimizer = torch.optim.Adam([x], lr=0.15)
    losses = []
    for step in range(steps):
        optimizer.zero_grad()
        features, kls = hooked_kls(_Features(network), transforms(x, 0, number, step).double())
        loss = F.mse_loss(features, targets.double()) + 0.1 * torch.stack(kls).sum()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return x.detach(), losses


class _Features(torch.nn.Module):
    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network.features(x)


@pytest.mark.parametrize("transforms", [Transforms(), Transforms(roll=2, flip=True, noise=0.1)])
def test_full_model_inversion_equals_the_naive_loop_batch_by_batch(transforms: Transforms) -> None:
    config = InversionConfig(steps=12, batch=4, precision=torch.float64, transforms=transforms)
    whole = inversion(config, n=8)
    losses = [float(progress.loss) for progress in whole.run()]
    assert whole.problem.targets is not None
    for number in range(2):
        rows = slice(4 * number, 4 * number + 4)
        images, expected = naive_batch(number, whole.problem.targets[rows], 12, transforms)
        assert losses[12 * number : 12 * number + 12] == pytest.approx(expected, rel=1e-5)
        torch.testing.assert_close(whole.images()[rows], images, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("spectrum", [0.0, 0.5])
@pytest.mark.parametrize("start", STARTS)
def test_the_loss_falls_from_every_start(start: Any, spectrum: float) -> None:
    config = InversionConfig(
        start=start,
        steps=30,
        spectrum=spectrum,
        pmi=PmiConfig(steps=10),
        terms=(FeatureMatch(), StatisticsMatch(), TotalVariation()),
    )
    whole = finished(config)
    losses = whole.report.losses[-1]["losses"]
    assert losses[-1] < 0.8 * losses[0]
    assert whole.images().shape == (10, *SHAPE) and whole.images().dtype == torch.float32
    assert bool(torch.isfinite(whole.images()).all()) and not whole.images().requires_grad


def test_the_stages_of_each_start() -> None:
    starts: tuple[Any, ...] = STARTS
    stages = {
        start: [e["stage"] for e in finished(replace(EVERYTHING, start=start, batch=10)).report.losses]
        for start in starts
    }
    assert stages["pmi"] == ["layer 2", "layer 1", "layer 0", "full model"]
    assert stages["stem"] == ["layer 0", "full model"]
    assert all(stages[start] == ["full model"] for start in ("noise", "stats", "lowfreq"))


@pytest.mark.parametrize("start", STARTS)
def test_the_seed_decides(start: Any) -> None:
    config = replace(EVERYTHING, start=start)
    first, again, other = (finished(config, seed=seed).images() for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_bfloat16_ends_near_float32() -> None:
    config = InversionConfig(steps=20)
    low, high = (finished(replace(config, precision=dtype)) for dtype in (torch.bfloat16, torch.float32))
    assert low.images().dtype == torch.float32
    assert float(low.report.losses[-1]["losses"][-1]) == pytest.approx(
        float(high.report.losses[-1]["losses"][-1]), rel=0.1
    )


# --- starts -------------------------------------------------------------------------------------------------------------------


def test_white_noise_is_standard_normal() -> None:
    noise = white_noise((200, 3, 8, 8), seeded(0))
    assert abs(float(noise.mean())) < 0.02 and float(noise.std()) == pytest.approx(1.0, abs=0.02)


def test_matched_noise_has_the_stored_moments() -> None:
    wanted = Moments(torch.tensor([-1.0, 0.0, 3.0]), torch.tensor([0.25, 1.0, 4.0]), 1)
    got = batch_moments(matched_noise((300, 3, 8, 8), wanted, seeded(0)))
    torch.testing.assert_close(got.mean, wanted.mean, rtol=0, atol=0.05)
    torch.testing.assert_close(got.var, wanted.var, rtol=0.05, atol=0)


@pytest.mark.parametrize("size", [(32, 32), (16, 8), (3, 5)])
def test_low_frequency_noise_is_smooth_with_unit_variance(size: tuple[int, int]) -> None:
    noise = low_frequency_noise((100, 3, *size), seeded(0))
    assert noise.shape == (100, 3, *size)
    assert float(noise.std()) == pytest.approx(1.0, abs=1e-4)
    assert float((noise[..., 1:] - noise[..., :-1]).std()) < 0.5


@pytest.mark.parametrize("spectrum", [0.0, 0.5])
@pytest.mark.parametrize("start", ["noise", "stats", "lowfreq"])
def test_without_steps_the_images_are_the_start(start: Any, spectrum: float) -> None:
    images = finished(InversionConfig(start=start, steps=0, schedule="cosine", spectrum=spectrum), n=4).images()
    generator, shape = seeded(0, "start", 0, -1), (4, *SHAPE)
    expected = {
        "noise": lambda: white_noise(shape, generator),
        "stats": lambda: matched_noise(shape, moments()[0], generator),
        "lowfreq": lambda: low_frequency_noise(shape, generator),
    }[start]()
    torch.testing.assert_close(images, expected, rtol=1e-4 if spectrum else 0, atol=1e-5 if spectrum else 0)


@pytest.mark.parametrize("spectrum", [0.0, 0.5])
def test_a_users_start_gives_images_also_where_another_space_is_optimised(spectrum: float) -> None:
    drawn = torch.tensor([1.0, -1.0, 0.5]).view(1, 3, 1, 1).expand(4, *SHAPE)
    config = InversionConfig(
        start=lambda shape, generator: drawn.clone(), steps=0, schedule="cosine", spectrum=spectrum
    )
    mixed = torch.randn(3, 3, generator=seeded(1))
    images = finished(config, n=4, colour=Colour.of(mixed @ mixed.T)).images()
    torch.testing.assert_close(images, drawn, rtol=1e-4, atol=1e-4)


# --- what it costs ------------------------------------------------------------------------------------------------------------


def test_steps_and_passes_are_counted() -> None:
    """10 samples in batches of 4: three batches of 3, 3 and 4."""
    whole = finished(replace(EVERYTHING, start="pmi"))
    assert [len(images) for images in whole.finished] == [3, 3, 4]
    report = whole.report
    assert report.images == 10 and report.seconds > 0
    assert report.steps == report.forward_passes == report.backward_passes == whole.total_steps == 3 * (3 * 3 + 5)
    assert [len(entry["losses"]) for entry in report.losses] == [3, 3, 3, 5] * 3
    assert report.seconds_per_image == pytest.approx(report.seconds / 10)
    assert report.summary()["steps"] == report.steps and "losses" not in report.summary()


@pytest.mark.parametrize("batch", [4, 10])
def test_a_sweep_over_all_layers_costs_one_full_step(batch: int) -> None:
    """Whatever the batches: the work is averaged over the images."""
    whole = finished(replace(EVERYTHING, start="pmi", batch=batch))
    assert whole.report.step_equivalents == pytest.approx(3 * 1.0 + 5)
    assert finished(replace(EVERYTHING, start="noise", batch=batch)).report.step_equivalents == pytest.approx(5)


def test_a_stem_step_costs_what_the_stem_does() -> None:
    whole = finished(replace(EVERYTHING, start="stem", batch=10))
    assert whole.report.step_equivalents == pytest.approx(2 * whole.problem.costs[0] + 5)
    assert whole.problem.costs[0] < 0.3


def test_layer_costs_are_those_of_the_convolutions() -> None:
    network = resnet20()
    network.head.grow(2)
    frozen = FrozenNetwork(network.pieces(), network.head)
    costs = layer_costs(frozen, input_shapes(frozen, torch.zeros(2, 3, 32, 32)))
    by_hand = [3 * 16 * 32**2, *[2 * 16 * 16 * 32**2] * 3]
    by_hand += [(16 * 32 + 32 * 32) * 16**2, 2 * 32 * 32 * 16**2, 2 * 32 * 32 * 16**2]
    by_hand += [(32 * 64 + 64 * 64) * 8**2, 2 * 64 * 64 * 8**2, 2 * 64 * 64 * 8**2]
    assert sum(costs) == pytest.approx(1.0)
    assert costs == pytest.approx([macs / sum(by_hand) for macs in by_hand], abs=0.01)


def test_progress_tells_the_stage_and_how_far() -> None:
    whole = inversion(replace(EVERYTHING, start="stem"))
    seen = list(whole.run())
    assert [step.done for step in seen] == list(range(1, len(seen) + 1))
    assert {step.total for step in seen} == {len(seen)} == {3 * 7}
    assert [step.stage for step in seen[:3]] == ["layer 0", "layer 0", "full model"]


def test_a_step_shows_its_images_when_it_is_asked() -> None:
    whole = inversion(replace(EVERYTHING, start="stem", keep_best=False, batch=10, spectrum=0.5))
    shown = []
    for step in whole.run():
        if step.stage == "layer 0":
            with pytest.raises(ValueError, match="full-model stage alone"):
                step.images()
        else:
            shown += [step.first_images(), step.images()] if step.number == 1 else [step.images()]
            assert not shown[-1].requires_grad and shown[-1].shape == (10, *SHAPE)
    assert len(shown) == 1 + 5 and not torch.equal(shown[0], shown[1])
    assert torch.equal(shown[-1], whole.images())


# --- resumption ---------------------------------------------------------------------------------------------------------------


def written(state: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    """Written and read as a checkpoint is: tensors and plain data only."""
    return torch.load(io.BytesIO(written(state)), weights_only=True)


def curves(whole: Inversion) -> list[tuple[int, str, list[float]]]:
    return [(entry["batch"], entry["stage"], entry["losses"].tolist()) for entry in whole.report.losses]


# the first step of a stage, its last, the last of a batch, the very last, and between; a batch has 14 steps, 7, or 5
STOPS = {"pmi": (0, 1, 3, 8, 9, 12, 14, 25, 33, 42), "stem": (0, 1, 2, 5, 7, 10, 16, 21)}


@pytest.mark.parametrize(("start", "spectrum"), [*((start, 0.0) for start in STARTS), ("lowfreq", 0.5)])
def test_resumes_bit_for_bit_wherever_it_stops(start: Any, spectrum: float) -> None:
    config = replace(EVERYTHING, start=start, spectrum=spectrum)
    whole = finished(config)
    for stop in STOPS.get(start, (0, 1, 4, 5, 9, 15)):
        first, second = inversion(config), inversion(config)
        steps = first.run()
        for _ in range(stop):
            next(steps)
        second.load(through_a_file(first.state()))
        done = [progress.done for progress in second.run()]
        assert done == list(range(stop + 1, whole.total_steps + 1))
        assert torch.equal(second.images(), whole.images()), f"stopped after {stop} steps"
        assert curves(second) == curves(whole)
        assert second.report.step_equivalents == pytest.approx(whole.report.step_equivalents)
        assert (second.report.images, second.report.steps) == (whole.report.images, whole.report.steps)


def test_a_finished_state_has_the_images() -> None:
    config = replace(EVERYTHING, start="lowfreq")
    whole, again = finished(config), inversion(config)
    again.load(through_a_file(whole.state()))
    assert torch.equal(again.images(), whole.images()) and list(again.run()) == []


def test_a_state_is_not_touched_by_further_steps_nor_by_being_loaded() -> None:
    config = replace(EVERYTHING, start="pmi")
    first, second = inversion(config), inversion(config)
    steps = first.run()
    for _ in range(20):
        next(steps)
    state = first.state()
    kept = written(state)
    for _ in steps:
        pass
    second.load(state)
    for _ in second.run():
        pass
    assert written(state) == kept
    assert torch.equal(first.images(), second.images())


# --- refusals -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "changes", "message"),
    [
        ("noise", {"targets": None, "labels": None}, r"targets .* or labels"),
        ("blue", {}, "unknown start 'blue'.*lowfreq"),
        ("pmi", {"input_moments": None}, "start 'pmi' needs input_moments, one for each of the 3 pieces"),
        ("stats", {"input_moments": None}, "start 'stats' needs input_moments"),
        ("stem", {"input_moments": []}, "start 'stem' needs input_moments"),
        ("pmi", {"targets": None}, "PMI inverts target features"),
        ("noise", {"labels": torch.arange(9)}, "10 targets but 9 labels"),
        ("noise", {"targets": torch.zeros(0, FEATURES), "labels": None}, r"one or more features \(n, d\)"),
        ("noise", {"targets": torch.zeros(10)}, r"not of the shape \(10,\)"),
        ("noise", {"contexts": torch.zeros(10, 3)}, "take no context"),
    ],
)
def test_what_is_missing_is_named(start: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        finished(replace(EVERYTHING, start=start, terms=(CrossEntropy(),)), **changes)


def test_a_network_in_one_piece_has_no_stem() -> None:
    network = torch.nn.Sequential(*two_blocks().pieces())
    config = replace(EVERYTHING, start="stem", terms=(FeatureMatch(),))
    with pytest.raises(ValueError, match="two pieces"):
        Inversion(
            [network], None, config, image_shape=SHAPE, targets=torch.zeros(2, FEATURES), input_moments=moments()[:1]
        )


@pytest.mark.parametrize("changed", [{"lr": 1e30}, {"pmi": PmiConfig(steps=3, lr=1e30)}])
def test_a_loss_that_is_not_finite_names_the_layer(changed: dict[str, Any]) -> None:
    name = "layer 2" if "pmi" in changed else "full model"
    with pytest.raises(NonFiniteInversion, match=name):
        finished(replace(EVERYTHING, start="pmi", **changed))


def test_images_before_the_first_batch_are_refused() -> None:
    with pytest.raises(RuntimeError, match="run"):
        inversion(EVERYTHING).images()


# --- on a trained network -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("terms", [(FeatureMatch(), StatisticsMatch(0.1)), (CrossEntropy(), StatisticsMatch(0.1))])
def test_a_trained_network_sees_what_was_asked_for(terms: tuple[Any, ...]) -> None:
    """From features sampled of its class Gaussians, and from labels alone."""
    trained = trained_on_digits()
    network, labels = trained.network, torch.arange(60) % 5
    targets = trained.gaussians.sample(labels, seeded(3)) if isinstance(terms[0], FeatureMatch) else None
    config = InversionConfig(start="lowfreq", steps=40, terms=terms)
    whole = Inversion(network.pieces(), network.head, config, image_shape=SHAPE, targets=targets, labels=labels)
    for _ in whole.run():
        pass
    logits = network(whole.images())
    assert isinstance(logits, Tensor) and (logits.argmax(1) == labels).float().mean() > 0.9
    if targets is not None:
        assert F.mse_loss(network.features(whole.images()), targets) < 0.1 * targets.var()
