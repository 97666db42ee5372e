"""Command lines, paths, presets and records that are wrong, and how the command answers them.

All 1,000 of the full setting, in this process, a few of them in processes of their own::

    python -m tests.support.hostile_inputs --count 1000 --processes 10
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from pmi_cl.cli import main
from pmi_cl.machine.user_paths import path_text
from pmi_cl.options import OptionSpec, specs_of
from pmi_cl.registry.catalogue import INSTALLED, Catalogue
from pmi_cl.utils.arguments.command_line import all_specs, resolve
from pmi_cl.utils.commands.compare import CompareOptions
from pmi_cl.utils.commands.invert.options import InvertOptions
from pmi_cl.utils.commands.trained_options import EvaluateOptions, ExportOptions, PredictOptions
from pmi_cl.utils.records.run_record import build_results
from tests.support.hostile_values import (
    TEXTS,
    draw,
    hostile_json,
    hostile_module,
    hostile_path,
    hostile_yaml,
    remove_pitfalls,
)
from tests.support.sample_registry import write_registry

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 60  # an answer takes a few at the most, on a busy machine, too
DIGITS = ["--dataset", "seq-digits"]
TASKS = ["--n_tasks", "2", "--n_classes", "4"]
OTHER_COMMANDS: dict[str, type] = {"predict": PredictOptions, "evaluate": EvaluateOptions, "export": ExportOptions}
LONGEST_LINE = 1000  # letters of an error
ONE_LINE = re.compile(r"pmi-cl: error: [^\n]+\n")


@dataclass(frozen=True)
class HostileInput:
    """One input.

    Attributes:
        kind: what is wrong, a key of ``KINDS``.
        words: the words behind ``pmi-cl``.
        catalogue: where methods are looked up.
        shows: what stdout has to hold all the same.
    """

    kind: str
    words: list[str]
    catalogue: Catalogue = INSTALLED
    shows: str = ""


def hostile_input(seed: int, number: int, folder: Path) -> HostileInput:
    """Return the input of that number, and write its files into ``folder``."""
    rng = random.Random(f"{seed} {number}")
    kind = list(KINDS)[number % len(KINDS)]
    return KINDS[kind](rng, folder)


def _command_line(rng: random.Random, folder: Path) -> HostileInput:
    """Return a run, or another command, with wrong flags and values. Nothing is trained."""
    words, specs = _some_run(rng)
    for spec in rng.sample(specs, rng.randint(1, 3)):
        words += [f"--{spec.name}", draw(rng, TEXTS)]
    spoil = rng.random()
    at = rng.randrange(len(words))
    if spoil < 0.15:
        del words[at]
    elif spoil < 0.3:
        words.insert(at, draw(rng, TEXTS))
    elif spoil < 0.4:
        words[at] = words[at][::-1]
    elif spoil < 0.5:
        words = [word for pair in zip(words[::2], words[1::2], strict=False) for word in ["=".join(pair)]]
    return HostileInput("command line", [*words, "--check"])


def _some_run(rng: random.Random) -> tuple[list[str], list[OptionSpec]]:
    """Return the words of a run or of ``invert``, and its options."""
    if rng.random() < 0.15:
        network = INSTALLED.find("backbone", "clip-tiny")
        return ["invert", "--prompt", "x"], [*specs_of(InvertOptions), *network.options]
    names = {kind: [entry.name for entry in INSTALLED.entries(kind)] for kind in ("model", "dataset")}
    model, dataset = (INSTALLED.find(kind, draw(rng, found)) for kind, found in names.items())
    specs = [spec for spec in all_specs(model, dataset) if spec.name not in ("resume", "offline")]
    return ["--model", model.name, "--dataset", dataset.name, "--offline", "1"], specs


def _other_command(rng: random.Random, folder: Path) -> HostileInput:
    """Return a command on a network with wrong flags, values and words. There is no such run."""
    word, options = draw(rng, tuple(OTHER_COMMANDS.items()))
    pairs = [[f"--{spec.name}", draw(rng, TEXTS)] for spec in rng.sample(specs_of(options), 2)]
    pairs += [["no-run"], [draw(rng, TEXTS)], ["-o", draw(rng, TEXTS)]][: rng.randint(1, 3)]
    rng.shuffle(pairs)
    return HostileInput("other command", [word, *(part for pair in pairs for part in pair)])


def _path(rng: random.Random, folder: Path) -> HostileInput:
    """Return a command in which a path is wrong."""
    path, run = hostile_path(rng, folder), ["--check", "--model", "sgd", "--offline", "1", "--dataset"]
    clip = ["--check", "--model", "zsclip", *DIGITS, "--backbone", "clip-vit-b-16", "--offline", "1"]
    commands: tuple[list[str], ...] = (
        *([*run, name, "--base_path"] for name in ("seq-cifar100", "seq-cub200", "seq-imagenet-r", "seq-tinyimg")),
        *([*run, "seq-digits", flag] for flag in ("--results_path", "--resume", "--loadcheck", "--model_config")),
        *([*run, "seq-folder", "--data_dir"], [*run, "seq-multi", "--domains"], [*clip, "--clip_weights"]),
        *(["invert", "--check", "--prompt", "x", flag] for flag in ("--output", "--data_dir")),
        *(["predict", "."], ["predict"], ["evaluate"], ["evaluate", ".", "--output"], ["export", ".", "-o"]),
        *(["compare"], ["compare", ".", "--plot"], ["mammoth", "--model", "sgd", "--mammoth_path"]),
    )
    words = draw(rng, commands)
    typed = f"seq-digits,seq-folder:{path}" if words[-1] == "--domains" else path
    return HostileInput("path", [*words, typed, *(["."] if words == ["predict"] else [])])


def _preset(rng: random.Random, folder: Path) -> HostileInput:
    """Return a run with a file of presets that is wrong."""
    path = folder / "own.yaml"
    path.write_text(hostile_yaml(rng), encoding="utf-8", errors="surrogatepass")
    model = draw(rng, ("sgd", "pmi_rdfcil"))
    run = ["--model", model, "--dataset", "seq-digits", "--model_config", str(path)]
    return HostileInput("preset", [*run, draw(rng, ("--check", "--help"))])


def _record(rng: random.Random, folder: Path) -> HostileInput:
    """Return ``compare`` or ``--resume`` on a record that is wrong, beside a good one."""
    good, bad = folder / "runs/sgd/seq-digits/good", folder / "runs/sgd/seq-digits/bad"
    for place in (good, bad):
        place.mkdir(parents=True)
        for name, content in zip(("args.json", "results.json"), good_record(), strict=True):
            spoil = place is bad and rng.random() < 0.7
            text = hostile_json(rng, content) if spoil else json.dumps(content)
            (place / name).write_text(text, encoding="utf-8", errors="surrogatepass")
    if rng.random() < 0.1:
        (bad / "args.json").unlink()
        draw(rng, (os.mkfifo, os.mkdir))(bad / "args.json")
    if rng.random() < 0.5:
        words = (["--resume", str(bad), "--check"], ["evaluate", str(bad)], ["export", str(bad), "-o", "x.safetensors"])
        beside = ["--check", "--model", "sgd", *DIGITS, *TASKS, "--results_path", str(folder / "runs")]
        return HostileInput("record", draw(rng, (*words, beside)))
    spec = draw(rng, specs_of(CompareOptions))
    flag = [f"--{spec.name}", draw(rng, TEXTS)] if rng.random() < 0.2 else ["--format", draw(rng, ("csv", "latex"))]
    return HostileInput(
        "record", ["compare", str(folder / "runs"), *flag], shows="" if flag[0] != "--format" else "sgd"
    )


def good_record() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return (args.json, results.json) of a finished run of two tasks."""
    run = resolve(["--model", "sgd", *DIGITS, *TASKS])
    args = {name: {"value": value, "source": run.sources[name]} for name, value in vars(run.args).items()}
    figures = {"matrix": [[90.0], [50.0, 80.0]], "micro": [90.0, 65.0], "last": 65.0, "average": 77.5}
    figures |= {"forgetting": 40.0, "bwt": -40.0, "micro_last": 65.0, "micro_average": 77.5}
    results = build_results(
        model="sgd",
        dataset="seq-digits",
        seed=0,
        status="finished",
        precision="float32",
        class_il=figures,
        task_il=figures,
        seconds={"training": 1.0},
        peak_memory_mib={"training": 1.0},
        inversion={"images": 0, "seconds_per_image": None},
        classes_per_task=(2, 2),
    )
    return {"schema": 1, "args": args}, results


def _module(rng: random.Random, folder: Path) -> HostileInput:
    """Return ``--list`` on methods of which one is wrong."""
    catalogue = write_registry(folder / "registry")
    name = draw(rng, ("zz.py", "a b.py", "é.py", "in.ner.py", "config/zz.py"))
    path = folder / "registry/models" / path_text(name)
    text = hostile_module(rng)
    if rng.random() < 0.8:
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
    else:
        draw(rng, (os.mkfifo, os.mkdir, lambda place: place.symlink_to("nowhere")))(path)
    return HostileInput("module", ["--list"], catalogue, shows="invert_it")


KINDS: dict[str, Callable[[random.Random, Path], HostileInput]] = {
    "command line": _command_line,
    "other command": _other_command,
    "path": _path,
    "preset": _preset,
    "record": _record,
    "module": _module,
}


def fault_of(given: HostileInput, folder: Path) -> str:
    """Give the input to the command in this process. Return what is wrong with its answer.

    Right is an exit code of 0, or 2 and one line of error, within ``SECONDS``. Then it is empty.
    """
    out, err, began = io.StringIO(), io.StringIO(), time.monotonic()
    try:
        with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), _limited():
            code = main(given.words, given.catalogue)
    except (Exception, SystemExit) as error:
        return f"ends with {type(error).__name__}\n{traceback.format_exc()}"
    if time.monotonic() - began > SECONDS:
        return f"takes {time.monotonic() - began:.0f} s"
    return _wrong_answer(code, err.getvalue()) or ("" if code or given.shows in out.getvalue() else "the rest is gone")


def fault_of_process(given: HostileInput, folder: Path) -> str:
    """Give the input to a process of its own. Return what is wrong, as :func:`fault_of`."""
    words = [word.replace("\0", "") for word in given.words]
    environment = {name: value for name, value in os.environ.items() if name != "MAMMOTH_PATH"}
    done = subprocess.run(
        [sys.executable, str(ROOT / "main.py"), *map(os.fsencode, (word.replace("\ud800", "") for word in words))],
        capture_output=True,
        cwd=folder,
        env=environment,
        timeout=4 * SECONDS,
        check=False,
    )
    return _wrong_answer(done.returncode, done.stderr.decode(errors="replace"))


def _wrong_answer(code: int, err: str) -> str:
    errors = [line for line in err.splitlines(keepends=True) if not line.startswith(("passed over", "the run will"))]
    if code not in (0, 2) or "Traceback" in err:
        return f"exit code {code}\n{err}"
    if code == 2 and not (len(errors) == 1 and ONE_LINE.fullmatch(errors[0]) and len(errors[0]) <= LONGEST_LINE):
        return f"not one line of error:\n{err}"
    err.encode()  # what is shown can be written
    return ""


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    """End the body after ``SECONDS``: a pipe that is read would block for ever."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeoutError("no answer")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def faults(seed: int, numbers: Sequence[int], processes: int = 0) -> dict[int, str]:
    """Return what is wrong with the answers to the inputs of these numbers; nothing if all is well.

    Args:
        processes: so many of them are given to processes of their own, too.
    """
    found = {}
    os.environ.pop("MAMMOTH_PATH", None)
    with contextlib.redirect_stdout(io.StringIO()):  # libraries are imported before the time is limited
        main(["--check", "--model", "zsclip", "--backbone", "clip-tiny", *DIGITS])
    for place, number in enumerate(numbers):
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
            folder = Path(name)
            given = hostile_input(seed, number, folder)
            fault = fault_of(given, folder)
            if not fault and place < processes and given.catalogue is INSTALLED:
                fault = fault_of_process(given, folder)
            remove_pitfalls(folder)
        if fault:
            found[number] = f"{given.kind} {[word[:200] for word in given.words]!r}: {fault}"
    return found


def run(argv: Sequence[str] | None = None) -> int:
    """Give so many inputs to the command, print what is wrong, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=0, help="so many also as processes of their own")
    args = parser.parse_args(argv)
    found = faults(args.seed, range(args.first, args.first + args.count), args.processes)
    for number, fault in found.items():
        print(f"input {number}: {fault}\n".encode("utf-8", "backslashreplace").decode())
    print(f"{args.count} inputs (seed {args.seed}), {len(found)} answered wrongly")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(run())
