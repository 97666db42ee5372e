"""Build networks of torchvision and timm, and cut them into pieces below a growing head."""

from __future__ import annotations

import copy
import functools
import importlib
import inspect
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from pmi_cl.backbones.heads import GrowingHead
from pmi_cl.backbones.library_outline import LibraryOutline
from pmi_cl.backbones.piecewise import PiecewiseNetwork
from pmi_cl.errors import UserError, unknown_name
from pmi_cl.inversion.networks.folding import keeps_statistics
from pmi_cl.inversion.networks.pieces import in_evaluation_mode, run_through, split_network
from pmi_cl.machine.torchvision_shim import ensure_torchvision
from pmi_cl.seeding import global_seed, seeded

SIDES = (32, 64, 128, 224, 299)  # pixels of the images that a network is tried with, until it takes one
CLASSES = 2  # of the library's own classifier, which is taken off
# What a network of torchvision is to have besides its defaults, where its builder knows it.
PLAIN = {"aux_logits": False, "init_weights": True}
# Attributes of layers that drop values or blocks at random, from torch's own generator. Without
# them a resumed run is the uninterrupted one.
DROPS = {"Dropout": "p", "Dropout2d": "p", "AlphaDropout": "p", "StochasticDepth": "p", "DropPath": "drop_prob"}


class LibraryNetwork(PiecewiseNetwork):
    """A network of a library without its classifier, in pieces, with a head that grows by task."""

    def __init__(self, pieces: Sequence[nn.Module], feature_dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(pieces)
        self.feature_dim = feature_dim
        self.head = GrowingHead(feature_dim)

    def pieces(self) -> list[nn.Module]:
        """Return the pieces that the engine cuts the network into, bottom to top."""
        return list(self.layers)

    def features(self, x: Tensor) -> Tensor:
        """Return the features (b, feature_dim) of images (b, 3, h, w)."""
        for layer in self.layers:
            x = layer(x)
        return x


def built(name: str, stem: str) -> LibraryNetwork:
    """Return a network, initialised from torch's own generator as the library does it.

    Args:
        name: such as "torchvision:mobilenet_v2".
        stem: "small" or "own".

    Raises:
        UserError: there is none of that name, its library is missing, or it cannot be taken apart.
    """
    model = _without_drops(_of_library(name))
    if stem == "small":
        with_small_stem(model)
    pieces, head = _cut(name, model)
    if not isinstance(head, nn.Linear):
        raise UserError(f"--backbone {name}: its classifier is not one linear layer: choose another")
    for piece in pieces:
        _take_off(piece, head)
    return LibraryNetwork(pieces, head.in_features)


@functools.lru_cache(maxsize=4)
def outline_of(name: str, stem: str) -> LibraryOutline:
    """Return what is known of a network; it leaves torch's generator as it was.

    Raises:
        UserError: as :func:`built`.
    """
    with global_seed(0, "outline"):
        network = built(name, stem)
    on_meta = copy.deepcopy(network).to("meta").eval()
    return LibraryOutline(name, network.feature_dim, keeps_statistics(network), tuple(on_meta.pieces()))


def _of_library(name: str) -> nn.Module:
    library, _, member = name.partition(":")
    return _of_torchvision(name, member) if library == "torchvision" else _of_timm(name, member)


def _of_torchvision(name: str, member: str) -> nn.Module:
    ensure_torchvision()
    models: Any = _library(name, "torchvision.models")
    known = models.list_models(module=models)
    if member not in known:
        raise _unknown(name, [f"torchvision:{one}" for one in known])
    builder = models.get_model_builder(member)
    takes = inspect.signature(inspect.signature(builder).return_annotation).parameters
    model: nn.Module = builder(
        weights=None, num_classes=CLASSES, **{key: value for key, value in PLAIN.items() if key in takes}
    )
    return model


def _of_timm(name: str, member: str) -> nn.Module:
    ensure_torchvision()  # which timm imports
    timm: Any = _library(name, "timm")
    if not timm.is_model(member):
        raise _unknown(name, [f"timm:{one}" for one in timm.list_models()])
    model: nn.Module = timm.create_model(member, pretrained=False, num_classes=CLASSES)
    return model


def _unknown(name: str, known: Sequence[str]) -> UserError:
    """Return the error for an unknown name: with the nearest ones, not with a thousand."""
    error = unknown_name("backbone", name, known)
    library = name.partition(":")[0]
    where = "torchvision.models.list_models()" if library == "torchvision" else "timm.list_models()"
    return error if "did you mean" in str(error) else UserError(f"unknown backbone '{name}': {where} lists them")


def _library(name: str, module: str) -> ModuleType:
    library = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ImportError as error:
        advice = f"python -m pip install {library}, or choose --backbone resnet18"
        raise UserError(f"--backbone {name}: {library} cannot be imported ({error}): {advice}") from error


def _cut(name: str, model: nn.Module) -> tuple[list[nn.Module], nn.Module | None]:
    """Cut a network with random images of the first side that it takes."""
    fault = ""
    for side in SIDES:
        images = torch.rand(2, 3, side, side, generator=seeded(0, "cut", side))
        try:
            with in_evaluation_mode([model]):
                run_through([model], images)
        except Exception as error:  # whatever the library's network raises
            fault = str(error).strip().partition("\n")[0]
            continue
        try:
            return split_network(model, images)
        except ValueError as error:
            fault = str(error).partition(";")[0]
            break
    raise UserError(f"--backbone {name} cannot be taken apart into pieces ({fault}): choose another")


def with_small_stem(model: nn.Module) -> None:
    """Let the lowest layers keep the size of small images.

    The first convolution gets stride 1 if it has 2, and 3x3 weights if it has larger ones. The
    pooling that follows the stem is left out. A first convolution of another stride stays, and with
    it the pooling.
    """
    layers: list[tuple[str, Any]] = [
        (name, layer) for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d | nn.MaxPool2d)
    ]
    name, first = layers[0] if layers else ("", None)
    if not isinstance(first, nn.Conv2d) or first.stride != (2, 2):
        return
    if first.kernel_size[0] > 3:
        small = nn.Conv2d(first.in_channels, first.out_channels, 3, padding=1, bias=first.bias is not None)
        nn.init.kaiming_normal_(small.weight, mode="fan_out", nonlinearity="relu")
        _put(model, name, small)
    else:
        first.stride = (1, 1)
    if isinstance(getattr(model, "maxpool", None), nn.Module):
        _put(model, "maxpool", nn.Identity())
    elif len(layers) > 1 and isinstance(layers[1][1], nn.MaxPool2d):
        _put(model, layers[1][0], nn.Identity())


def _put(model: nn.Module, name: str, layer: nn.Module) -> None:
    owner, _, last = name.rpartition(".")
    setattr(model.get_submodule(owner), last, layer)


def _without_drops(model: nn.Module) -> nn.Module:
    for layer in model.modules():
        if (attribute := DROPS.get(type(layer).__name__)) is not None:
            setattr(layer, attribute, 0.0)
    return model


def _take_off(piece: nn.Module, head: nn.Module) -> None:
    """Remove the library's classifier from a piece that still has it without using it."""
    for owner in list(piece.modules()):
        for name, child in list(owner.named_children()):
            if child is head:
                setattr(owner, name, nn.Identity())
