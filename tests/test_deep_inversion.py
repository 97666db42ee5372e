"""Test the terms of DeepInversion, which optimises images, against hooks, loops and autograd."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Categorical, kl_divergence

from pmi_cl.inversion.config import InversionConfig
from pmi_cl.inversion.features.statistics import moment_distance
from pmi_cl.inversion.networks.frozen import FrozenNetwork
from pmi_cl.inversion.objectives import Batch, BatchTV, Competition, CrossEntropy, StatisticsMatch, jensen_shannon
from pmi_cl.inversion.transforms import Transforms
from pmi_cl.seeding import seeded
from tests.support.preset_runs import built
from tests.support.slow_references import channel_moments
from tests.support.small_inversions import finished
from tests.support.small_networks import two_blocks


def images(n: int = 6, side: int = 8) -> Tensor:
    return torch.randn(n, 3, side, side, generator=seeded(0, n, side))


def test_the_distance_of_moments_against_a_loop() -> None:
    mean, var = torch.tensor([0.5, -1.0]), torch.tensor([2.0, 0.5])
    real_mean, real_var, scale = torch.tensor([0.0, 1.0]), torch.tensor([1.0, 1.0]), torch.tensor([2.0, -3.0])
    means = sum((float(s) * (float(m) - float(r))) ** 2 for m, r, s in zip(mean, real_mean, scale, strict=True))
    squares = sum((float(s) ** 2 * (float(v) - float(r))) ** 2 for v, r, s in zip(var, real_var, scale, strict=True))
    found = moment_distance(mean, var, real_mean, real_var, scale)
    assert float(found) == pytest.approx(means**0.5 + squares**0.5, rel=1e-6)
    assert float(moment_distance(mean, var, mean, var)) == 0


def hooked_distances(model: nn.Module, x: Tensor) -> list[Tensor]:
    """Return DeepInversion's distance at the input of every BatchNorm, caught by a hook."""
    found: list[Tensor] = []

    def compare(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        mean, var = channel_moments(inputs[0])
        found.append((mean - norm.running_mean).norm() + (var - norm.running_var).norm())  # type: ignore[operator]

    norms = [part for part in model.modules() if isinstance(part, nn.BatchNorm2d)]
    handles = [norm.register_forward_pre_hook(compare) for norm in norms]
    model.eval()(x)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("gamma", [None, -0.4, 0.0])
def test_folded_layers_compare_what_the_network_itself_has_there(gamma: float | None) -> None:
    """Values, and gradients with respect to the images.

    A negative scale turns a channel around; one of zero is not folded.
    """
    network = two_blocks()
    if gamma is not None:
        with torch.no_grad():
            for norm in [part for part in network.modules() if isinstance(part, nn.BatchNorm2d)]:
                norm.weight[1], norm.bias[1] = gamma, 0.7
    frozen = FrozenNetwork(network.pieces(), network.head, direction="l2")
    x, y = images().requires_grad_(), images().requires_grad_()
    found, expected = torch.stack(frozen(x)[1]), torch.stack(hooked_distances(network, y))
    assert len(found) == 5
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    found.sum().backward()
    expected.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-2, atol=1e-4)


def a_batch(x: Tensor, features: Tensor, seen: Tensor | None = None) -> Batch:
    return Batch(x, features, [], None, torch.zeros(len(x), dtype=torch.long), nn.Identity(), seen)


def test_the_smoothness_of_a_batch_against_a_loop() -> None:
    x = torch.randn(2, 3, 4, 5, generator=seeded(3))
    total = 0.0
    for down, across in ((1, 0), (0, 1), (1, 1), (1, -1)):
        squares = 0.0
        for channel in x.flatten(0, 1):
            for row in range(4 - down):
                for column in range(5):
                    if 0 <= column + across < 5:
                        squares += float(channel[row + down, column + across] - channel[row, column]) ** 2
        total += squares**0.5
    assert float(BatchTV(0.5)(a_batch(x, x.flatten(1)))) == pytest.approx(0.5 * total, rel=1e-5)


def test_the_divergence_against_torch_distributions() -> None:
    one, other = torch.randn(4, 3, generator=seeded(1)), 3 * torch.randn(4, 3, generator=seeded(2))
    p, q = one.softmax(1), other.softmax(1)
    middle = Categorical((p + q) / 2)
    expected = (kl_divergence(Categorical(p), middle) + kl_divergence(Categorical(q), middle)).mean() / 2
    torch.testing.assert_close(jensen_shannon(one, other), expected)
    assert float(jensen_shannon(one, one + 2)) == pytest.approx(0, abs=1e-6)
    far = torch.tensor([[60.0, 0, 0]]), torch.tensor([[0, 60.0, 0]])
    assert float(jensen_shannon(*far)) == pytest.approx(0.693147, rel=1e-5)  # log 2, the most there is


class Student(nn.Module):
    """A linear student of four classes, one more than the network's."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(3 * 4 * 4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.map(x.flatten(1))


def test_the_student_competes_on_the_images_as_they_are_seen_and_stays_as_it_is() -> None:
    torch.manual_seed(0)
    student, x = Student(), torch.randn(5, 3, 4, 4, generator=seeded(4))
    seen, logits = x.flip(-1).requires_grad_(), torch.randn(5, 3, generator=seeded(5))
    before = copy.deepcopy(student.state_dict())
    value = Competition(0.2, student)(a_batch(x, logits, seen))
    expected = 0.2 * (1 - jensen_shannon(logits, student(seen)[:, :3]))
    torch.testing.assert_close(value, expected.detach())
    value.backward()
    assert seen.grad is not None and bool(seen.grad.any())
    assert all(parameter.grad is None for parameter in student.parameters()) and student.training
    with torch.no_grad():
        apart = Competition(0.2, student)(a_batch(x, logits, seen - 0.5 * seen.grad / seen.grad.norm()))
    assert apart < value  # a step down divides the two
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())


def test_the_settings_of_deep_inversion() -> None:
    config = InversionConfig.deep_inversion()
    assert config.terms == (CrossEntropy(1.0), StatisticsMatch(10.0), BatchTV(2.5e-5))
    assert (config.steps, config.lr, config.batch, config.direction) == (2000, 0.05, 256, "l2")
    assert config.transforms == Transforms(roll=2, flip=True)
    adaptive = InversionConfig.deep_inversion(Student(), steps=5)
    assert isinstance(adaptive.terms[-1], Competition) and adaptive.terms[-1].weight == 0.2 and adaptive.steps == 5


def test_deep_inversion_lowers_its_loss_from_labels_alone() -> None:
    student = two_blocks(seed=1)
    done = finished(InversionConfig.deep_inversion(student, steps=12, lr=0.3, batch=10), targets=None)
    losses = done.report.losses[0]["losses"]
    assert done.images().shape == (10, 3, 8, 8) and losses[-1] < 0.9 * losses[0]


def test_the_preset_of_pmi_rdfcil_has_the_terms_of_deep_inversion(monkeypatch: pytest.MonkeyPatch) -> None:
    (made,) = built(monkeypatch, "pmi_rdfcil", "deepinversion", "seq-cifar100").inversions
    config, original = made["config"], InversionConfig.deep_inversion()
    weighing = [term for term in config.terms if term.weight]  # the squared distance to features weighs nothing
    assert sorted(map(str, weighing)) == sorted(map(str, original.terms))
    assert (config.steps, config.lr, config.batch) == (original.steps, original.lr, original.batch)
    assert (config.start, config.direction, config.transforms) == ("noise", "l2", original.transforms)
    assert config.keep_best and made["network"].direction == "l2"
