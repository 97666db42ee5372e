"""Traces a piece of a convolutional network and folds its BatchNorms into the convolutions.

A per-channel KL does not change under the affine map of the channel. So the statistics are compared
at the output of each BatchNorm, without a hook and without an unfolded copy.
"""

from __future__ import annotations

import copy
import operator

import torch
from torch import Tensor, fx, nn

from pmi_cl.inversion.features.statistics import Direction, StatisticsTap
from pmi_cl.inversion.networks.pieces import frozen_copy

# A variance below this share of the eps of BatchNorm means a dead channel: its KL would explode.
DEAD_CHANNEL = 1e-3
# A channel whose |gamma| is smaller than this, or than this share of its |beta|, would lose its
# statistics to rounding once both are folded in: with |beta| = 30 |gamma|, the gradient of the KL
# is 1e-3 off in float32 and meaningless in bfloat16.
FOLDABLE_GAMMA = 0.03
FOLDABLE_SHARE = 0.1


class ChannelAffine(nn.Module):
    """x * scale_c + shift_c, for the part of a BatchNorm that cannot be folded."""

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.scale: Tensor
        self.shift: Tensor
        self.register_buffer("scale", scale.detach().clone())
        self.register_buffer("shift", shift.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """Map a map (b, c, h, w) or features (b, c) to the same shape."""
        shape = (1, -1) + (1,) * (x.dim() - 2)
        return x * self.scale.view(shape) + self.shift.view(shape)


class _BatchNormTracer(fx.Tracer):
    """Trace a piece down to the layers of torch."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, nn.modules.batchnorm._BatchNorm) or super().is_leaf_module(m, module_qualified_name)


def _scaled_convolution(conv: nn.Conv2d, scale: Tensor, shift: Tensor) -> nn.Conv2d:
    """Return a convolution whose output is scale_c * conv(x) + shift_c."""
    folded = copy.deepcopy(conv)
    bias = torch.zeros_like(scale) if conv.bias is None else conv.bias.detach()
    folded.weight = nn.Parameter(conv.weight.detach() * scale.view(-1, 1, 1, 1))
    folded.bias = nn.Parameter(bias * scale + shift)
    return folded


def _replacement(conv: nn.Conv2d | None, bn: nn.modules.batchnorm._BatchNorm, direction: Direction) -> list[nn.Module]:
    """Return the modules that replace (conv, BatchNorm in evaluation mode), a tap among them.

    A per-channel KL does not change under the affine map of the channel (for "l2" the tap is told
    the factor). So after folding, the
    statistics are compared at the *output* of the BatchNorm, with (beta, gamma^2), and its input
    is never computed. Layers with a tiny gamma keep the affine map as a step of its own: there the
    tap sees the normalised input.
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
        return [folded, StatisticsTap(beta, gamma**2 * real_var, direction, scale=sigma / gamma)]
    folded = _scaled_convolution(conv, 1 / sigma, -mean / sigma)
    tap = StatisticsTap(torch.zeros_like(mean), real_var, direction, scale=sigma)
    return [folded, tap, ChannelAffine(gamma, beta)]


def _rewrite(traced: fx.GraphModule, node: fx.Node, direction: Direction) -> fx.Node:
    """Replace a BatchNorm node and the convolution before it, if that feeds nothing else.

    Return the node of the KL.
    """
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
    """Return whether a BatchNorm of the network keeps running statistics to compare with."""
    return any(map(_has_statistics, network.modules()))


def _with_plain_norms(module: nn.Module) -> nn.Module:
    """Take apart the BatchNorms of timm, which have their activation inside."""
    for name, part in list(module.named_children()):
        setattr(module, name, _with_plain_norms(part))
    if not isinstance(module, nn.BatchNorm2d) or not (hasattr(module, "act") and hasattr(module, "drop")):
        return module
    plain = nn.BatchNorm2d(module.num_features, module.eps, module.momentum, module.affine).eval()
    for name in ("weight", "bias", "running_mean", "running_var"):
        setattr(plain, name, getattr(module, name))
    return nn.Sequential(plain, module.get_submodule("drop"), module.get_submodule("act"))


def _traced(piece: nn.Module) -> fx.GraphModule:
    """Return the graph of a copy in float64. Raise ValueError as :func:`freeze_piece`."""
    try:
        piece, tracer = _with_plain_norms(frozen_copy(piece)).double(), _BatchNormTracer()
        # a layer of torch is traced as a call, not through its forward, which branches on shapes
        root = nn.Sequential(piece) if tracer.is_leaf_module(piece, "") else piece
        return fx.GraphModule(root, tracer.trace(root))
    except Exception as error:  # whatever the user's module raises where it is copied or traced
        name, why = type(piece).__name__, str(error).strip().partition("\n")[0]
        raise ValueError(
            f"{name} cannot be traced for inversion ({why}): pass pieces=[...] and head=..., modules whose forward "
            "does not branch on values"
        ) from error


def freeze_piece(piece: nn.Module, direction: Direction) -> fx.GraphModule:
    """Return a piece as a graph that maps its input to (output, list of KLs).

    There is a KL for every BatchNorm with running statistics. The weights are folded in float64,
    and stay so: the caller casts them.

    Raises:
        ValueError: the piece cannot be copied or traced, as where its forward branches on values.
    """
    traced = _traced(piece)
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


def without_in_place(traced: fx.GraphModule) -> None:
    """Replace every in-place operation by the operation that returns a new tensor.

    They are ``relu(x, inplace=True)``, ``ReLU(inplace=True)``, ``x.add_(y)``. The values of a
    tapped layer are compared, so nothing may overwrite them. What used the overwritten value after
    the operation uses its result instead, so the network computes what it did. (``x += y`` needs
    nothing: torch.fx traces it as ``x = x + y``.)
    """
    seen: set[fx.Node] = set()
    for node in traced.graph.nodes:
        seen.add(node)
        if _made_pure(traced, node):
            overwritten = node.args[0]
            for user in [user for user in overwritten.users if user not in seen]:
                user.replace_input_with(overwritten, node)
    for module in traced.modules():
        if hasattr(module, "inplace"):
            module.inplace = False  # type: ignore[assignment]


def _made_pure(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Return whether the node overwrote its first argument, and stop it from doing so.

    Modules are switched by the caller.
    """
    if not node.args or not isinstance(node.args[0], fx.Node):
        return False
    if node.op == "call_module":
        return bool(getattr(traced.get_submodule(str(node.target)), "inplace", False))
    if node.op == "call_method":
        pure = str(node.target).removesuffix("_")
        if pure == node.target or not callable(getattr(torch.Tensor, pure, None)):
            return False
        node.target = pure
        return True
    if node.kwargs.get("inplace"):
        node.kwargs = {**node.kwargs, "inplace": False}
        return True
    return False
