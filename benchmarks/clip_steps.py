"""Measure one step on a CLIP's image tower, and what the three recipes of Table 8 cost by it.

The loops take turns, so that other work on the machine falls on all of them.
"""

from __future__ import annotations

import copy
import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from statistics import median
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from pmi_cl.backbones.clip_network import ClipNetwork
from pmi_cl.benchmarks.running import Clock, take_turns
from pmi_cl.inversion.config import InversionConfig
from pmi_cl.inversion.engine.descent import Descent
from pmi_cl.inversion.engine.engine import Inversion
from pmi_cl.inversion.engine.problem import Problem
from pmi_cl.inversion.networks.operations import operations
from pmi_cl.inversion.networks.token_network import TokenNetwork
from pmi_cl.inversion.networks.token_statistics import TokenMoments, measure_token_moments
from pmi_cl.inversion.objectives import DirectionalTV, FeatureMatch, StatisticsMatch
from pmi_cl.inversion.starts import matched_noise
from pmi_cl.inversion.ways.pmi import LayerLoss, PmiConfig
from pmi_cl.inversion.ways.sparse import PruningConfig, patches_left
from pmi_cl.machine.memory import MemoryGauge
from pmi_cl.registry.catalogue import INSTALLED
from pmi_cl.seeding import seeded

PMI_STEPS, FULL_STEPS = 200, 600  # of each piece, and of the whole afterwards (App. I.2)
ALONE_STEPS, SMI_STEPS = 3400, 4000  # App. F
# App. I.2: lr 0.1, weights 1, 2e-3 and 5e-3.
PAPER = InversionConfig(
    start="pmi",
    steps=FULL_STEPS,
    lr=0.1,
    terms=(FeatureMatch(1.0), StatisticsMatch(2e-3), DirectionalTV(5e-3)),
    pmi=PmiConfig(steps=PMI_STEPS, lr=0.1, alpha=2e-3, last_at_lowest=True),
)
RECIPES = {
    "pmi": PAPER,
    "full": replace(PAPER, start="noise", steps=ALONE_STEPS),
    "smi": replace(PAPER, start="noise", steps=SMI_STEPS, pruning=PruningConfig()),
}


@dataclass(frozen=True, eq=False)
class ClipBench:
    """The image tower above its patch convolution, statistics of random images, one random target
    per image.
    """

    network: ClipNetwork
    moments: list[TokenMoments]
    targets: Tensor
    start: Tensor

    @functools.cached_property
    def _towers(self) -> dict[tuple[torch.dtype, bool], TokenNetwork]:
        return {}

    @property
    def images(self) -> int:
        """Return how many images are inverted together."""
        return len(self.targets)

    def frozen(self, dtype: torch.dtype, statistics: bool = True) -> TokenNetwork:
        """Return the tower as the engine runs it. It is made once."""
        key = (dtype, statistics)
        if key not in self._towers:
            moments = self.moments if statistics else ()
            self._towers[key] = TokenNetwork(
                self.network.pieces()[1:], moments, dtype=dtype, device=self.targets.device
            )
        return self._towers[key]

    def inversion(self, config: InversionConfig, dtype: torch.dtype) -> Inversion:
        """Return an inversion of all targets at once."""
        config, shape = replace(config, batch=self.images, precision=dtype), self.start.shape[1:]
        return Inversion(
            Problem(self.frozen(dtype), config, image_shape=(shape[0], shape[1], shape[2]), targets=self.targets)
        )


def prepare(backbone: str, images: int, device: torch.device) -> ClipBench:
    """Build the CLIP with random weights and measure statistics over random images."""
    options = SimpleNamespace(
        backbone=INSTALLED.find("backbone", backbone).name,
        clip_weights="random",
        clip_gelu="auto",
        base_path="data",
        offline=True,
    )
    torch.manual_seed(0)
    network = INSTALLED.load("backbone", backbone)(options).eval().requires_grad_(False).to(device)
    x = torch.randn(8, 3, network.image_size, network.image_size, generator=seeded(0, "images")).to(device)
    moments = measure_token_moments(network.pieces(), x.split(4))[1:]
    targets = torch.randn(images, network.feature_dim, generator=seeded(0, "targets")).to(device)
    shape = (images, network.width, network.grid, network.grid)
    start = torch.randn(shape, generator=seeded(0, "start")).to(device, memory_format=torch.channels_last)
    return ClipBench(network, moments, targets, start)


# Loops.


def bare(run: Callable[[Tensor], Tensor], start: Tensor) -> Callable[[], None]:
    """Return a loop of ``run`` forward and backward to its input, and nothing else."""
    x = start.clone().requires_grad_()

    def step() -> None:
        x.grad = None
        run(x).sum().backward()

    return step


def open_clips(bench: ClipBench, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """Return the tower of open_clip's own modules, all of it in ``dtype``."""
    pieces = nn.ModuleList(copy.deepcopy(bench.network.pieces()[1:])).to(dtype)

    def run(x: Tensor) -> Tensor:
        x = x.to(dtype)
        for piece in pieces:
            x = piece(x)
        return x.float()

    return run


def engine(inversion: Inversion, warm_up: int = 1) -> Callable[[], object]:
    """Return a loop that takes the next step of an inversion that never ends."""
    steps = inversion.run()
    for _ in range(warm_up):
        next(steps)
    return steps.__next__


def sweep(bench: ClipBench, dtype: torch.dtype) -> Callable[[], None]:
    """Return a loop of one PMI step on every piece, from the top down.

    Each step is the next one of a descent of its own.
    """
    network, value, steps = bench.frozen(dtype), bench.start, []
    for layer, prior in enumerate(network.input_moments):
        assert prior is not None
        start = matched_noise(tuple(value.shape), prior, seeded(0, "layer", layer)).to(value.device)
        with torch.no_grad():
            value = network.run(value, layer, layer + 1)[0]
        descent = Descent(start, 10**6, lambda _: PAPER.pmi.lr, keep_best=layer > 0)
        steps.append(descent.run(LayerLoss(network, layer, value, prior, PAPER.pmi)))

    def step() -> None:
        for one in reversed(steps):
            next(one)

    step()
    return step


def smi(bench: ClipBench, dtype: torch.dtype, prunings: int) -> Callable[[], object]:
    """Return a loop of the steps after so many prunings. From then on all steps are the same."""
    pruning = PruningConfig(at=tuple(range(1, prunings + 1)))
    return engine(bench.inversion(replace(PAPER, start="noise", steps=10**6, pruning=pruning), dtype), prunings + 1)


# Measurements.


def measure(bench: ClipBench, rounds: int, compiled: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """Return the seconds of every loop, the ratios asked for, and the cost of the recipes."""
    endless = replace(PAPER, start="noise", steps=10**6)
    precisions = {"fp32": torch.float32, "bf16": torch.bfloat16}
    loops: dict[str, Callable[[], object]] = {}
    for name, dtype in precisions.items():
        say(f"making the loops in {name}")
        tower = bench.frozen(dtype, statistics=False)
        loops[f"bare {name}"] = bare(lambda x, tower=tower: tower(x)[0], bench.start)  # type: ignore[misc]
        loops[f"open_clip {name}"] = bare(open_clips(bench, dtype), bench.start)
        loops[f"full {name}"] = engine(bench.inversion(endless, dtype))
    loops["pmi sweep bf16"] = sweep(bench, torch.bfloat16)
    left = patches_left(bench.network.grid**2, PruningConfig())
    for number, patches in enumerate(left, 1):
        loops[f"smi {patches} patches bf16"] = smi(bench, torch.bfloat16, number)
    if compiled:
        say("compiling")
        loops["full bf16 compiled"] = engine(bench.inversion(replace(endless, compiled=True), torch.bfloat16), 3)
    say(f"measuring {len(loops)} loops")
    clocks = take_turns({name: _waited(loop, bench.start.device) for name, loop in loops.items()}, rounds, block=1)
    cuda = bench.start.is_cuda
    seconds = {name: median(clock.wall if cuda else clock.cpu for clock in times) for name, times in clocks.items()}
    rows = {name: {"seconds": value, "seconds_per_image": value / bench.images} for name, value in seconds.items()}
    record = {"loops": rows, "ratios": _ratios(seconds), "recipes": _recipes(bench, seconds, left)}
    return {**record, **({"matmul": matmul_share(bench, seconds)} if cuda else {})}


def _waited(loop: Callable[[], object], device: torch.device) -> Callable[[], object]:
    """Return the loop with a wait until the device is through with it."""
    if device.type != "cuda":
        return loop

    def step() -> None:
        loop()
        torch.cuda.synchronize(device)

    return step


def _ratios(seconds: dict[str, float]) -> dict[str, float]:
    return {
        "engine_over_bare_fp32": seconds["full fp32"] / seconds["bare fp32"],
        "engine_over_bare_bf16": seconds["full bf16"] / seconds["bare bf16"],
        "engine_over_open_clip_fp32": seconds["full fp32"] / seconds["open_clip fp32"],
        "engine_over_open_clip_bf16": seconds["full bf16"] / seconds["open_clip bf16"],
        "bf16_over_fp32": seconds["full fp32"] / seconds["full bf16"],
        "sweep_over_full": seconds["pmi sweep bf16"] / seconds["full bf16"],
    }


def _recipes(bench: ClipBench, seconds: dict[str, float], left: list[int]) -> dict[str, dict[str, float]]:
    """Return the seconds per image of whole recipes in bfloat16 and their step-equivalents.

    Both follow from the seconds of the steps.
    """
    full = seconds["full bf16"]
    smi_at = [*PruningConfig().at, SMI_STEPS]
    smi_seconds = smi_at[0] * full
    for number, patches in enumerate(left):
        smi_seconds += (smi_at[number + 1] - smi_at[number]) * seconds[f"smi {patches} patches bf16"]
    totals = {
        "pmi": PMI_STEPS * seconds["pmi sweep bf16"] + FULL_STEPS * full,
        "full": ALONE_STEPS * full,
        "smi": smi_seconds,
    }
    equivalents = {
        "pmi": float(PMI_STEPS + FULL_STEPS),
        "full": float(ALONE_STEPS),
        "smi": _smi_equivalents(bench, left),
    }
    return {
        name: {"seconds_per_image": totals[name] / bench.images, "step_equivalents": equivalents[name]}
        for name in totals
    }


def _smi_equivalents(bench: ClipBench, left: list[int]) -> float:
    """Return step-equivalents by floating-point operations, without the four passes that decide."""
    network = bench.frozen(torch.float32)

    def count(patches: int | None) -> int:
        kept = None if patches is None else torch.arange(patches, device=bench.start.device)[None]
        value = torch.zeros_like(bench.start[:1]).requires_grad_()
        return operations(lambda: network(value, None, kept)[0].sum().backward())

    at = [*PruningConfig().at, SMI_STEPS]
    rest = sum((at[number + 1] - at[number]) * count(patches) for number, patches in enumerate(left))
    return at[0] + rest / count(None)


def matmul_share(bench: ClipBench, seconds: dict[str, float], side: int = 8192) -> dict[str, float]:
    """Measure the device's bfloat16 matrix product, and the share of it that a full-model step
    reaches.
    """
    one, other = (torch.randn(side, side, device=bench.start.device, dtype=torch.bfloat16) for _ in range(2))
    times = []
    for _ in range(20):
        torch.cuda.synchronize()
        began = time.perf_counter()
        one @ other
        torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    peak = 2 * side**3 / median(times)
    network = bench.frozen(torch.float32)
    value = torch.zeros_like(bench.start[:1]).requires_grad_()
    per_image = operations(lambda: network(value)[0].sum().backward())
    fastest = min(value for name, value in seconds.items() if name.startswith("full bf16"))
    reached = per_image * bench.images / fastest
    return {"tflops": peak / 1e12, "reached_tflops": reached / 1e12, "share": reached / peak}


def peak_memory(bench: ClipBench) -> float:
    """Return the most MiB in a step of every stage, all images together, in float32.

    On a CPU it is that of the whole process.
    """
    inversion = bench.inversion(replace(PAPER, steps=2, pmi=replace(PAPER.pmi, steps=1)), torch.float32)
    gauge = MemoryGauge(bench.start.device)
    gauge.reset()
    for _ in inversion.run():
        pass
    return gauge.peak_mib()


def run_recipes(bench: ClipBench, share: float, say: Callable[[str], None]) -> dict[str, dict[str, Any]]:
    """Run ``share`` of the steps of the three recipes in bfloat16.

    Return their costs and last losses.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, config in RECIPES.items():
        say(f"running {name}")
        inversion = bench.inversion(_shortened(config, share), torch.bfloat16)
        clock = Clock()
        with clock.running():
            last = _last(inversion.run())
        found[name] = {**inversion.report.summary(), "cpu_seconds": clock.cpu, "loss": float(last)}
    return found


def _shortened(config: InversionConfig, share: float) -> InversionConfig:
    pruning = config.pruning
    if pruning is not None:
        pruning = replace(
            pruning, at=tuple(max(round(step * share), number) for number, step in enumerate(pruning.at, 1))
        )
    steps = max(round(config.pmi.steps * share), 1)
    return replace(
        config, steps=max(round(config.steps * share), 1), pruning=pruning, pmi=replace(config.pmi, steps=steps)
    )


def _last(steps: Iterator[Any]) -> Tensor:
    *_, last = (step.loss for step in steps)
    return last
