"""Invert a network of yours from class labels alone and save a grid of the images: one row a class.

    python examples/invert_your_network.py [--weights resnet18.pth]
    python examples/invert_your_network.py --network my_package.networks:resnet32 \\
        --weights resnet32.th --size 32

Without --network it is torchvision's resnet18; without --weights the network is as it is built.
MODULE:FUNCTION names a function that takes no arguments and returns an ``nn.Module`` that the
engine takes apart by itself (the README says which). Without BatchNorm, no statistics are matched.
MODULE must be importable: installed, or in a folder on PYTHONPATH.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path
from typing import NoReturn

import torch
from PIL import Image
from torch import Tensor, nn

from pmi_cl.backbones.weight_files import network_names, read_state
from pmi_cl.errors import UserError
from pmi_cl.inversion.config import InversionConfig
from pmi_cl.inversion.invert import invert
from pmi_cl.inversion.networks.folding import keeps_statistics
from pmi_cl.inversion.objectives import CrossEntropy, StatisticsMatch, TotalVariation
from pmi_cl.inversion.transforms import Transforms
from pmi_cl.machine.torchvision_shim import ensure_torchvision

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, which most published networks normalise with


def load(network: str, weights: Path | None) -> nn.Module:
    """Return the network that ``module:function`` builds, with the weights of a state dict.

    The file holds the state dict itself, or holds it under "state_dict".
    """
    module, _, function = network.partition(":")
    try:
        ensure_torchvision()
        build = getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        refuse(f"--network {network}: there is no module {error.name}: give MODULE:FUNCTION of a network of yours")
    except (AttributeError, ValueError):
        refuse(f"--network {network}: write MODULE:FUNCTION, such as my_package.networks:resnet32")
    model: nn.Module = build()
    if weights is not None:
        try:
            load_weights(model, weights)
        except UserError as error:
            refuse(f"--weights {weights}: not the weights of this network ({error})")
        except RuntimeError as error:
            refuse(f"--weights {weights}: not the weights of this network ({type(error).__name__}: {error})")
    return model.eval()


def load_weights(model: nn.Module, path: Path) -> None:
    """Load weights as they are published, alone or in a training program's checkpoint.

    Counters of newer versions may be missing. Raise UserError for a file that is unsafe, damaged or
    not finite.
    """
    saved = read_state(path, lambda digest: False)
    own = {short: name for name, short in network_names(model.state_dict()).items()}
    # Older files lack them.
    counters = {k: v for k, v in model.state_dict().items() if k.endswith("num_batches_tracked")}
    model.load_state_dict({**counters, **{own.get(name, name): value for name, value in saved.items()}})


def refuse(text: str) -> NoReturn:
    """End the program with one line."""
    line = " ".join(text.split())
    print(line if len(line) <= 300 else f"{line[:297]}...", file=sys.stderr)
    raise SystemExit(2)


@torch.no_grad()
def check(model: nn.Module, args: argparse.Namespace) -> None:
    """Refuse, before the work, what would fail after it."""
    if min(args.per_class, args.size, args.steps) < 1:
        refuse("--per-class, --size and --steps: give 1 or more")
    try:
        outputs = model(torch.zeros(1, 3, args.size, args.size)).shape[-1]
    except RuntimeError as error:
        refuse(f"--size {args.size}: the network does not take such images ({error})")
    if not 0 <= min(args.classes) <= max(args.classes) < outputs:
        refuse(
            f"--classes {max(args.classes)}: the network has {outputs} outputs, give numbers from 0 to {outputs - 1}"
        )
    if not args.out.absolute().parent.is_dir() or args.out.is_dir():
        refuse(f"--out {args.out}: give a file in a folder that exists")
    if args.out.suffix.lower() not in Image.registered_extensions():
        refuse(f"--out {args.out}: end it with .png or another ending of a picture")


def save_grid(images: Tensor, columns: int, path: Path) -> None:
    """Save images (n, 3, h, w) of the network's normalised space as one picture, ``columns`` in a
    row.
    """
    pixels = images.cpu() * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]
    rows = [torch.cat(list(row), dim=-1) for row in pixels.clamp(0, 1).split(columns)]
    grid = (torch.cat(rows, dim=-2) * 255).byte().permute(1, 2, 0)
    Image.fromarray(grid.numpy()).save(path)


def main() -> None:
    """Invert the network that was named and save its images as one picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="torchvision.models:resnet18", metavar="MODULE:FUNCTION")
    parser.add_argument("--weights", type=Path, help="a state dict; without one the network stays as it is built")
    parser.add_argument("--classes", type=int, nargs="+", default=list(range(10)), help="class numbers, a row each")
    parser.add_argument("--per-class", type=int, default=8)
    parser.add_argument("--size", type=int, default=64, help="height and width in pixels")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--out", type=Path, default=Path("inverted.png"))
    args = parser.parse_args()

    model = load(args.network, args.weights)
    check(model, args)
    labels = torch.tensor(args.classes).repeat_interleave(args.per_class)
    statistics = [StatisticsMatch(1.0)] if keeps_statistics(model) else []
    config = InversionConfig(
        start="lowfreq",
        steps=args.steps,
        lr=0.1,
        schedule="cosine",
        transforms=Transforms(roll=2, flip=True),
        terms=(CrossEntropy(0.1), *statistics, TotalVariation(0.3)),
    )
    try:
        result = invert(model, image_shape=(3, args.size, args.size), labels=labels, config=config)
    except ValueError as error:
        refuse(f"--network {args.network}: {error}")
    with torch.no_grad():
        recognised = 100 * float((model(result.images).argmax(dim=1) == labels).float().mean())
    save_grid(result.images, args.per_class, args.out)
    report = result.report
    print(
        f"{report.images} images, {report.steps} steps, {report.seconds:.1f} s; "
        f"the network recognises {recognised:.0f} %: {args.out}"
    )


if __name__ == "__main__":
    main()
