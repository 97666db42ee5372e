"""Define learned prompts for a vision transformer.

VPT has tokens for each block. CODA-Prompt has a pool of components that a query weighs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F


class DeepPrompt(nn.Module):
    """VPT-deep's prompt of one block.

    Its tokens stand between the class token and the patches in that block alone. They carry no
    position. They start uniform in +-sqrt(6 / (3 p^2 + width)), p the patch size, as in VPT's code.
    """

    def __init__(self, tokens: int, width: int, patch_size: int, generator: Generator) -> None:
        super().__init__()
        bound = math.sqrt(6 / (3 * patch_size**2 + width))
        self.tokens = nn.Parameter((torch.rand(tokens, width, generator=generator) * 2 - 1) * bound)

    def forward(self) -> Tensor:
        """Return the tokens (p, width)."""
        return self.tokens


def component_weights(query: Tensor, attention: Tensor, keys: Tensor) -> Tensor:
    """Return CODA-Prompt's weight of each component for each sample: cos(q * A_m, K_m).

    There is no softmax over the components. Both factors of the cosine are products of matrices, so
    nothing of size (b, m, d) is made.

    Args:
        query: (b, d).
        attention, keys: (m, d).

    Returns:
        (b, m), each in [-1, 1].
    """
    products = query @ (attention * F.normalize(keys, dim=1)).T
    lengths = (query.square() @ attention.square().T).clamp_min(1e-24).sqrt()
    return products / lengths


def orthogonal_to(old: Tensor, count: int, generator: Generator) -> Tensor:
    """Return random orthonormal rows (count, d), orthogonal to every row of ``old`` (m, d).

    This is CODA-Prompt's Gram-Schmidt. Its code subtracts the projection on each old row in turn.
    That leaves a rest where training has made the old rows oblique. Here the rows are orthogonal to
    all that the old ones span. m + count must not exceed d. It computes in float64.
    """
    drawn = torch.randn(count, old.shape[1], generator=generator, dtype=torch.float64)
    basis = torch.linalg.qr(torch.cat([old.detach().cpu().double(), drawn]).T).Q
    return basis.T[len(old) :].to(old.dtype).contiguous()


def orthogonality(rows: Tensor) -> Tensor:
    """Return the mean squared entry of R R^T - I for ``rows`` (m, ...), each flattened.

    This is CODA-Prompt's penalty. It is 0 for orthonormal rows.
    """
    flat = rows.flatten(1)
    return (flat @ flat.T - torch.eye(len(flat), dtype=flat.dtype, device=flat.device)).square().mean()


class PromptPool(nn.Module):
    """CODA-Prompt's pool of one block.

    Each component has a prompt P (length, width), a key K (width) and an attention A (width). The
    pool grows by the components of one task at a time. Those of earlier tasks are frozen, those of
    later ones do not exist yet. The first half of a weighted prompt is put before the keys of the
    block's attention, the second half before its values.

    Attributes:
        prompts, keys, attentions: one tensor per task so far: (m, length, width), (m, width), (m,
            width).
    """

    def __init__(self, length: int, width: int, per_task: int) -> None:
        super().__init__()
        if length < 2 or length % 2:
            raise ValueError(
                f"a prompt of CODA-Prompt is half keys, half values: {length} is not an even number above zero"
            )
        self.length, self.width, self.per_task = length, width, per_task
        self.prompts, self.keys, self.attentions = nn.ParameterList(), nn.ParameterList(), nn.ParameterList()

    @property
    def tasks(self) -> int:
        """Return how many tasks have components here."""
        return len(self.keys)

    def grow(self, generator: Generator, device: torch.device | str = "cpu") -> None:
        """Freeze the components and add those of one more task.

        The new ones are orthonormal and orthogonal to the earlier ones, P as flat vectors. They are
        new parameters: build an optimiser afterwards.
        """
        self.requires_grad_(False)
        shapes = (
            (self.prompts, (self.length, self.width)),
            (self.keys, (self.width,)),
            (self.attentions, (self.width,)),
        )
        for tensors, shape in shapes:
            old = (
                torch.cat([tensor.flatten(1) for tensor in tensors])
                if len(tensors)
                else torch.zeros(0, math.prod(shape))
            )
            new = orthogonal_to(old, self.per_task, generator)
            tensors.append(nn.Parameter(new.view(self.per_task, *shape).to(device)))

    def forward(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Return the prefixes of keys and values for queries (b, width).

        Each is (b, length / 2, width).
        """
        prompts, keys, attentions = (torch.cat(list(tensors)) for tensors in (self.prompts, self.keys, self.attentions))
        weights = component_weights(context, attentions, keys)
        weighted = (weights @ prompts.flatten(1)).view(-1, self.length, self.width)
        return weighted[:, : self.length // 2], weighted[:, self.length // 2 :]

    def penalties(self) -> Iterator[Tensor]:
        """Yield the orthogonality penalty of K, of A and of P, over all components so far."""
        for tensors in (self.keys, self.attentions, self.prompts):
            yield orthogonality(torch.cat(list(tensors)))
