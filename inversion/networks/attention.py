"""Self-attention of a frozen copy, laid out for speed, and the attention of the class token."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class FrozenAttention(nn.Module):
    """Replace a frozen ``nn.MultiheadAttention`` where tokens attend to themselves.

    It carries the parameters of the module under their names. On a CPU it multiplies matrices
    itself: in bfloat16 torch's module spends six sevenths of the step of a block on copying heads
    that lie apart (measured on ViT-B/16), and its fused kernel takes twice as long as plain
    products at 197 tokens.
    """

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        if (
            attention.in_proj_weight is None
            or not attention.batch_first
            or attention.bias_k is not None
            or attention.add_zero_attn
        ):
            raise ValueError("only plain self-attention, batch first, can be frozen")
        self.num_heads, self.out_proj = attention.num_heads, attention.out_proj
        self.in_proj_weight, self.in_proj_bias = attention.in_proj_weight, attention.in_proj_bias

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map tokens (b, n, width) to queries, keys and values (b, heads, n, width / heads)."""
        projected = F.linear(x, self.in_proj_weight, self.in_proj_bias).unflatten(2, (3, self.num_heads, -1))
        query, key, value = projected.permute(2, 0, 3, 1, 4).unbind(0)
        return query, key, value

    def forward(self, query: Tensor, key: Tensor, value: Tensor, **options: object) -> tuple[Tensor, None]:
        """Map tokens (b, n, width), given three times, to (tokens (b, n, width), None).

        Raises:
            ValueError: a mask is given, or weights are asked for.
        """
        if options.get("attn_mask") is not None or options.get("need_weights"):
            raise ValueError("a frozen attention has no mask and gives no weights")
        out = attended(*self.heads(query))
        return self.out_proj(out.transpose(1, 2).flatten(2)), None


def attended(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return softmax(q k' / sqrt(d)) v for heads (b, heads, n, d)."""
    if query.is_cuda:
        return F.scaled_dot_product_attention(query, key, value)
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
    return scores.softmax(-1) @ value


def with_frozen_attention(module: nn.Module) -> None:
    """Replace every ``nn.MultiheadAttention`` inside ``module`` by a :class:`FrozenAttention`."""
    for name, child in module.named_children():
        if isinstance(child, nn.MultiheadAttention):
            setattr(module, name, FrozenAttention(child))
        else:
            with_frozen_attention(child)


def class_attention(attention: FrozenAttention, x: Tensor, prefix: Tensor | None = None) -> Tensor:
    """Return how much the first token attends to each (b, n), averaged over the heads.

    Args:
        attention: of the block.
        x: (b, n, width), what enters the attention.
        prefix: (b, m, width), projected keys that stand before those of the tokens and take their
            share of the attention.
    """
    query, key, _ = attention.heads(x)
    if prefix is not None:
        key = torch.cat([prefix.to(key.dtype).unflatten(2, (attention.num_heads, -1)).transpose(1, 2), key], dim=2)
    scores = (query[:, :, :1].float() * query.shape[-1] ** -0.5) @ key.float().transpose(-2, -1)
    return scores.softmax(-1).mean(1)[:, 0, -x.shape[1] :]
