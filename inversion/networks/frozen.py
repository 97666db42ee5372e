"""A network made ready for inversion: frozen, BatchNorm folded into the convolutions, statistics tapped without hooks."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, fx, nn

from pmi_cl.inversion.features.statistics import Axis, Direction, tap_kl
from pmi_cl.inversion.networks.in_place import without_in_place

DEAD_CHANNEL = 1e-3  # a variance below this share of BatchNorm's eps belongs to a dead channel, whose KL would explode
# A channel whose |gamma| is smaller than this, or than this share of its |beta|, would lose its statistics to rounding once both are
# folded in: with |beta| = 30 |gamma|, the KL's gradient is 1e-3 off in float32 and nonsense in bfloat16.
FOLDABLE_GAMMA = 0.03
FOLDABLE_SHARE = 0.1


class StatisticsTap(nn.Module):
    """Passes a layer's values through and compares their batch moments with stored ones (mean, var: (c,))."""

    def __init__(self, mean: Tensor, var: Tensor, direction: Direction, axis: Axis = "channel") -> None:
        super().__init__()
        self.direction: Direction = direction
        self.axis: Axis = axis
        self.mean: Tensor
        self.var: Tensor
        self.register_buffer("mean", mean.detach().clone())
        self.register_buffer("var", var.detach().clone())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Values (b, c, ...) or tokens (b, t, c) to (the same values, their KL to the stored moments)."""
        return tap_kl(x, self.mean, self.var, self.direction, self.axis)


class ChannelAffine(nn.Module):
    """x * scale_c + shift_c: what remains of a BatchNorm that cannot be folded."""

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.scale: Tensor
        self.shift: Tensor
        self.register_buffer("scale", scale.detach().clone())
        self.register_buffer("shift", shift.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """Maps (b, c, h, w) or features (b, c) to the same shape."""
        shape = (1, -1) + (1,) * (x.dim() - 2)
        return x * self.scale.view(shape) + self.shift.view(shape)


class _BatchNormTracer(fx.Tracer):
    """Traces a piece down to torch's own layers."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, nn.modules.batchnorm._BatchNorm) or super().is_leaf_module(m, module_qualified_name)


def _scaled_convolution(conv: nn.Conv2d, scale: Tensor, shift: Tensor) -> nn.Conv2d:
    """A convolution whose output is scale_c * conv(x) + shift_c."""
    folded = copy.deepcopy(conv)
    bias = torch.zeros_like(scale) if conv.bias is None else conv.bias.detach()
    folded.weight = nn.Parameter(conv.weight.detach() * scale.view(-1, 1, 1, 1))
    folded.bias = nn.Parameter(bias * scale + shift)
    return folded


def _replacement(conv: nn.Conv2d | None, bn: nn.modules.batchnorm._BatchNorm, direction: Direction) -> list[nn.Module]:
    """The modules that stand for (conv, BatchNorm in evaluation mode): the tap among them sees the BatchNorm's normalised input.

    A per-channel KL does not change under the channel's own affine map. So after folding, the target at the BatchNorm's *output* is
    (beta, gamma^2), and the input never has to exist. Layers with a tiny gamma keep the affine map as a step of its own.
    """
    assert bn.running_mean is not None and bn.running_var is not None
    mean, sigma = bn.running_mean, (bn.running_var + bn.eps).sqrt()
    gamma = torch.ones_like(mean) if bn.weight is None else bn.weight.detach()
    beta = torch.zeros_like(mean) if bn.bias is None else bn.bias.detach()
    floored = bn.running_var.clamp_min(DEAD_CHANNEL * bn.eps)
    real_var = floored / sigma**2  # the stored variance, after normalisation with eps: a little below 1
    if conv is None:
        return [StatisticsTap(mean, floored, direction), ChannelAffine(gamma / sigma, beta - gamma * mean / sigma)]
    if bool((gamma.abs() >= (FOLDABLE_SHARE * beta.abs()).clamp_min(FOLDABLE_GAMMA)).all()):
        folded = _scaled_convolution(conv, gamma / sigma, beta - gamma * mean / sigma)
        return [folded, StatisticsTap(beta, gamma**2 * real_var, direction)]
    folded = _scaled_convolution(conv, 1 / sigma, -mean / sigma)
    return [folded, StatisticsTap(torch.zeros_like(mean), real_var, direction), ChannelAffine(gamma, beta)]


def _rewrite(traced: fx.GraphModule, node: fx.Node, direction: Direction) -> fx.Node:
    """Replace one BatchNorm node (and the convolution before it, if it feeds nothing else); return the node of its KL."""
    bn = traced.get_submodule(str(node.target))
    before = node.args[0]
    assert isinstance(before, fx.Node) and isinstance(bn, nn.modules.batchnorm._BatchNorm)
    conv = traced.get_submodule(str(before.target)) if before.op == "call_module" else None
    folds = isinstance(conv, nn.Conv2d) and len(before.users) == 1
    value: fx.Node = before.args[0] if folds else before  # type: ignore[assignment]
    kl: fx.Node | None = None
    with traced.graph.inserting_before(node):
        for number, module in enumerate(_replacement(conv if folds else None, bn, direction)):  # type: ignore[arg-type]
            name = f"{node.name}_{number}"  # the node's, not the module's: a module may be called twice
            traced.add_submodule(name, module)
            value = traced.graph.call_module(name, (value,))
            if isinstance(module, StatisticsTap):
                pair = value
                value = traced.graph.call_function(operator.getitem, (pair, 0))
                kl = traced.graph.call_function(operator.getitem, (pair, 1))
    node.replace_all_uses_with(value)
    traced.graph.erase_node(node)
    if folds:
        traced.graph.erase_node(before)
    assert kl is not None
    return kl


def _has_statistics(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None


def keeps_statistics(network: nn.Module) -> bool:
    """Whether there is a BatchNorm with running statistics in it, without which nothing is tapped."""
    return any(map(_has_statistics, network.modules()))


def freeze_piece(piece: nn.Module, direction: Direction) -> fx.GraphModule:
    """One piece as a graph that maps its input to (output, list of KLs), a KL for every BatchNorm with running statistics.

    Folded in float64; the caller casts.

    Raises:
        ValueError: the piece cannot be traced (its forward branches on values).
    """
    piece, tracer = copy.deepcopy(piece).double().eval().requires_grad_(False), _BatchNormTracer()
    # a layer of torch's is traced as a call, not through its forward, which branches on shapes
    root = nn.Sequential(piece) if tracer.is_leaf_module(piece, "") else piece
    try:
        traced = fx.GraphModule(root, tracer.trace(root))
    except (fx.proxy.TraceError, TypeError) as error:
        name = type(piece).__name__
        raise ValueError(
            f"{name} cannot be traced for inversion ({error}); pass pieces whose forward does not branch on values"
        ) from error
    without_in_place(traced)
    nodes = [
        n for n in traced.graph.nodes if n.op == "call_module" and _has_statistics(traced.get_submodule(str(n.target)))
    ]
    kls = [_rewrite(traced, node, direction) for node in nodes]
    output = next(n for n in traced.graph.nodes if n.op == "output")
    output.args = ((output.args[0], kls),)
    traced.delete_all_unused_submodules()
    traced.graph.lint()
    traced.recompile()
    return traced.requires_grad_(False)


def cast_floats(network: nn.Module, dtype_of: Callable[[nn.Module], torch.dtype]) -> None:
    """Every parameter and buffer that is a floating-point number to the type that ``dtype_of`` gives for the module it belongs to."""
    for module in network.modules():
        for tensor in [*module.parameters(recurse=False), *module.buffers(recurse=False)]:
            if tensor.is_floating_point():
                tensor.data = tensor.data.to(dtype_of(module))


class FrozenNetwork(nn.Module):
    """Pieces that map an image to features, tapped, and the classifier on top; nothing in it can be trained.

    Attributes:
        pieces: the layers of the inversion, bottom to top; each maps its input to (output, KLs of the BatchNorms inside).
        head: features (b, d) to logits (b, classes), in float32; None where only features are wanted.
        input_prior: whether what is optimised has stored statistics of its own; an image has none.
        takes_context: whether its pieces take a context.
    """

    input_prior = False
    takes_context = False

    def __init__(
        self,
        pieces: Sequence[nn.Module],
        head: nn.Module | None = None,
        *,
        direction: Direction = "synthetic_to_real",
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.dtype, self.direction = dtype, direction
        frozen = [freeze_piece(piece, direction) for piece in pieces]
        self.pieces = nn.ModuleList(frozen).to(device)
        self.pieces.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        wide = torch.promote_types(dtype, torch.float32)  # statistics are compared in it
        cast_floats(self.pieces, lambda module: wide if isinstance(module, StatisticsTap) else dtype)
        self.head = None if head is None else copy.deepcopy(head).float().eval().requires_grad_(False).to(device)

    def train(self, mode: bool = True) -> FrozenNetwork:
        """Always in evaluation mode: batch statistics are compared, never used for normalising."""
        return super().train(False)

    def run(
        self, x: Tensor, first: int = 0, last: int | None = None, context: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Pieces ``first`` to ``last`` (exclusive) of ``x``: their output (float32 at least) and the KLs of the BatchNorms in them.

        Raises:
            ValueError: there is a ``context``, which is for networks whose pieces take one.
        """
        if context is not None:
            raise ValueError("the pieces of this network take no context")
        x = x.to(self.dtype)
        if x.dim() == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        kls: list[Tensor] = []
        for piece in self.pieces[first:last]:
            x, inside = piece(x)
            kls.extend(inside)
        return x.to(torch.promote_types(self.dtype, torch.float32)), kls

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        """Images (b, c, h, w) to features (b, d) and all KLs."""
        return self.run(x, context=context)

    def layer(self, number: int, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        """Piece ``number`` as :meth:`forward` runs it: its output and the KLs of the BatchNorms inside."""
        return self.run(x, number, number + 1, context)
