"""Test mixtures of adapters.

They change nothing at first, gate as a slow loop does, are without noise in evaluation, and have
the paper's number of parameters.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pmi_cl.backbones.adapters import Adapter, MixtureOfAdapters, top_k_gates
from pmi_cl.seeding import global_seed


def trained(width: int = 8, **settings: int) -> MixtureOfAdapters:
    """Return a mixture with no zeros left in it."""
    with global_seed(0, "mixture"):
        mixture = MixtureOfAdapters(width, bottleneck=4, **settings)
        for parameter in mixture.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    return mixture


def tokens() -> Tensor:
    with global_seed(1, "tokens"):
        return torch.randn(5, 7, 8)


@pytest.mark.parametrize("training", [False, True])
def test_untrained_adapters_add_exactly_nothing(training: bool) -> None:
    mixture = MixtureOfAdapters(8).train(training)
    assert torch.equal(mixture(tokens()), torch.zeros(5, 7, 8))


def test_an_adapter_is_its_formula() -> None:
    with global_seed(2, "adapter"):
        adapter = Adapter(8, bottleneck=4, scale=0.3).eval()
        torch.nn.init.normal_(adapter.up.weight)
    x = tokens()
    hidden = (x.numpy() @ adapter.down.weight.detach().numpy().T).clip(0)
    np.testing.assert_allclose(
        adapter(x).detach(), 0.3 * hidden @ adapter.up.weight.detach().numpy().T, rtol=1e-4, atol=1e-6
    )


def test_gates_are_those_of_a_slow_loop() -> None:
    logits = torch.randn(6, 5, generator=torch.Generator().manual_seed(3))
    found = top_k_gates(logits, 2).numpy()
    for row, gates in zip(logits.tolist(), found, strict=True):
        order = sorted(range(5), key=lambda expert: -row[expert])[:2]
        total = sum(np.exp(row[expert]) for expert in order)
        expected = [np.exp(row[expert]) / total if expert in order else 0.0 for expert in range(5)]
        np.testing.assert_allclose(gates, expected, rtol=1e-5)


@pytest.mark.parametrize(("experts", "top_k"), [(2, 2), (4, 2)])
def test_the_mixture_is_its_experts_weighted_by_the_gate_of_the_first_token(experts: int, top_k: int) -> None:
    mixture, x = trained(experts=experts, top_k=top_k).eval(), tokens()
    found = mixture(x)
    for sample in range(5):
        gates = top_k_gates(x[sample, :1] @ mixture.router, top_k)[0]
        assert int((gates > 0).sum()) == top_k
        expected = sum(gate * expert(x[sample]) for gate, expert in zip(gates, mixture.experts, strict=True))
        torch.testing.assert_close(found[sample], expected)


def test_the_gate_looks_at_the_first_token_alone() -> None:
    mixture, x = trained().eval(), tokens()
    other = torch.cat([x[:, :1], torch.zeros(5, 6, 8)], dim=1)
    torch.testing.assert_close(mixture(x)[:, 0], mixture(other)[:, 0])


def test_noise_in_training_has_the_learned_size_and_none_in_evaluation() -> None:
    mixture = trained()
    x = torch.ones(20000, 8)
    mixture.eval()
    assert torch.equal(mixture.gates(x), mixture.gates(x)) and len(mixture.gates(x).unique(dim=0)) == 1
    mixture.train()
    with global_seed(4, "noise"):
        gates = mixture.gates(x).detach()
    logits = gates.log()[:, 0] - gates.log()[:, 1]  # of two experts: the difference of their noisy logits
    sizes = F.softplus(x[0] @ mixture.noise).detach() + 0.01
    clean = (x[0] @ mixture.router).detach()
    np.testing.assert_allclose(float(logits.mean()), float(clean[0] - clean[1]), atol=0.1)
    np.testing.assert_allclose(float(logits.std()), float(sizes.square().sum().sqrt()), rtol=0.03)


def test_training_repeats_itself_under_one_seed_only() -> None:
    mixture, x = trained().train(), tokens()

    def out(seed: int) -> Tensor:
        with global_seed(seed, "step"):
            return mixture(x)

    assert torch.equal(out(0), out(0)) and not torch.equal(out(0), out(1))


def test_both_towers_of_vit_b_16_have_the_papers_number_of_parameters() -> None:
    count = {
        width: sum(parameter.numel() for parameter in MixtureOfAdapters(width).parameters()) for width in (768, 512)
    }
    assert 12 * count[768] + 12 * count[512] == 4_027_392


def test_every_parameter_has_a_gradient_once_trained() -> None:
    mixture = trained().train()
    with global_seed(5, "step"):
        mixture(tokens()).square().sum().backward()
    assert all(parameter.grad is not None and bool(parameter.grad.any()) for parameter in mixture.parameters())


def test_more_experts_than_there_are_cannot_be_chosen() -> None:
    with pytest.raises(ValueError, match="3 of 2 experts"):
        MixtureOfAdapters(8, experts=2, top_k=3)
