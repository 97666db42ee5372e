"""Makes a traced network free of in-place operations: a tapped layer's values are compared, so nothing may overwrite them."""

from __future__ import annotations

import torch
from torch import fx


def without_in_place(traced: fx.GraphModule) -> None:
    """Replace every in-place operation (``relu(x, inplace=True)``, ``ReLU(inplace=True)``, ``x.add_(y)``) by its pure twin.

    What used the overwritten value after the operation uses the operation's result instead, so the network computes what it did.
    (``x += y`` needs nothing: torch.fx traces it as ``x = x + y``.)
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
    """Whether the node overwrote its first argument; if so it does no longer (modules are switched by the caller)."""
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
