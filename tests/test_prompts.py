"""Test prompts: VPT's start, CODA-Prompt's weights, its Gram-Schmidt, and which of a pool train."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pmi_cl.backbones.prompts import DeepPrompt, PromptPool, component_weights, orthogonal_to, orthogonality
from pmi_cl.seeding import seeded


def test_deep_prompts_start_uniform_within_vpts_bound() -> None:
    prompt = DeepPrompt(tokens=50, width=768, patch_size=16, generator=seeded(0, "prompt"))
    bound = math.sqrt(6 / (3 * 16 * 16 + 768))
    tokens = prompt().detach()
    assert tokens.shape == (50, 768) and [name for name, _ in prompt.named_parameters()] == ["tokens"]
    assert float(tokens.abs().max()) <= bound and float(tokens.abs().max()) > 0.999 * bound
    np.testing.assert_allclose([float(tokens.mean()), float(tokens.std())], [0, bound / math.sqrt(3)], atol=2e-3)


def test_component_weights_are_the_cosines_of_two_loops() -> None:
    generator = seeded(1, "weights")
    query, attention, keys = (torch.randn(n, 6, generator=generator, dtype=torch.float64) for n in (3, 4, 4))
    found = component_weights(query, attention, keys)
    for sample in range(3):
        for component in range(4):
            attended = (query[sample] * attention[component]).numpy()
            key = keys[component].numpy()
            expected = attended @ key / (np.linalg.norm(attended) * np.linalg.norm(key))
            assert float(found[sample, component]) == pytest.approx(expected, abs=1e-12)


def test_component_weights_of_a_zero_query_are_zero_and_have_gradients() -> None:
    attention = torch.randn(4, 6, requires_grad=True)
    weights = component_weights(torch.zeros(2, 6), attention, torch.randn(4, 6))
    weights.sum().backward()
    assert (
        torch.equal(weights.detach(), torch.zeros(2, 4))
        and attention.grad is not None
        and bool(attention.grad.isfinite().all())
    )


def test_new_components_are_those_of_numpys_qr() -> None:
    old = torch.randn(3, 8, generator=seeded(2, "old"), dtype=torch.float64)  # oblique, as training leaves them
    new = orthogonal_to(old, 4, seeded(2, "new"))
    drawn = torch.randn(4, 8, generator=seeded(2, "new"), dtype=torch.float64)
    expected = np.linalg.qr(np.concatenate([old.numpy(), drawn.numpy()]).T)[0].T[3:]
    signs = np.sign((new.numpy() * expected).sum(1, keepdims=True))  # a basis vector and its opposite are as good
    np.testing.assert_allclose(new.numpy(), signs * expected, atol=1e-12)
    np.testing.assert_allclose(new @ old.T, 0, atol=1e-12)
    np.testing.assert_allclose(new @ new.T, np.eye(4), atol=1e-12)


def test_orthogonality_is_the_mean_square_of_a_loop() -> None:
    rows = torch.randn(3, 2, 5, generator=seeded(3, "rows"))
    flat = rows.reshape(3, 10).numpy()
    entries = [(flat[i] @ flat[j] - float(i == j)) ** 2 for i in range(3) for j in range(3)]
    assert float(orthogonality(rows)) == pytest.approx(np.mean(entries), rel=1e-5)
    assert float(orthogonality(torch.eye(4))) == 0


def grown(tasks: int, per_task: int = 3) -> PromptPool:
    pool = PromptPool(length=4, width=16, per_task=per_task)
    for task in range(tasks):
        pool.grow(seeded(4, "pool", task))
    return pool


def test_a_pools_prefixes_are_the_weighted_sums_of_its_prompts() -> None:
    pool, query = grown(2), torch.randn(5, 16, generator=seeded(5, "query"))
    keys, values = pool(query)
    assert keys.shape == values.shape == (5, 2, 16)
    weights = component_weights(query, torch.cat(list(pool.attentions)), torch.cat(list(pool.keys)))
    expected = sum(weights[:, m, None, None] * component for m, component in enumerate(torch.cat(list(pool.prompts))))
    torch.testing.assert_close(torch.cat([keys, values], dim=1), expected)


def test_a_pool_grows_orthogonally_and_only_its_newest_components_train() -> None:
    pool = grown(1)
    with torch.no_grad():  # training leaves the components oblique
        for tensor in pool.parameters():
            tensor.add_(0.3 * torch.randn(tensor.shape, generator=seeded(6, "train")))
    first = {name: value.detach().clone() for name, value in pool.named_parameters()}
    pool.grow(seeded(6, "second"))
    for tensors in (pool.prompts, pool.keys, pool.attentions):
        old, new = (tensor.detach().flatten(1) for tensor in tensors)
        torch.testing.assert_close(new @ old.T, torch.zeros(3, 3), rtol=0, atol=1e-6)
        torch.testing.assert_close(new @ new.T, torch.eye(3), rtol=0, atol=1e-6)
    assert all(torch.equal(value, first[name]) for name, value in pool.named_parameters() if name in first)
    assert {name for name, value in pool.named_parameters() if value.requires_grad} == {
        "prompts.1",
        "keys.1",
        "attentions.1",
    }
    assert pool.tasks == 2 and len(list(pool.penalties())) == 3


def test_old_components_take_part_but_have_no_gradient() -> None:
    pool = grown(2)
    sum(part.square().sum() for part in pool(torch.randn(5, 16))).backward()
    assert {name for name, value in pool.named_parameters() if value.grad is not None} == {
        "prompts.1",
        "keys.1",
        "attentions.1",
    }


def test_a_pool_refuses_an_odd_length() -> None:
    with pytest.raises(ValueError, match="half keys, half values"):
        PromptPool(length=5, width=16, per_task=2)
