"""Values, paths, YAML and JSON of the kind that breaks programs, drawn by a seeded generator."""

from __future__ import annotations

import copy
import json
import os
import random
import socket
import stat
from pathlib import Path
from typing import Any

from pmi_cl.machine.user_paths import path_text

TEXTS = (
    *("", " ", "nan", "inf", "-inf", "1e999", "-1", "0", "-0.0", "99999999999999999999", "9" * 5000, "0x10", "1_000"),
    *("None", "none", "True", "1,2,,3", ",", "1,x", "[1, 2]", "(1,2)", "{a: 1}", "-", "--", "=", "%s%n", "$HOME"),
    *("é", "\uff11\uff12", "caf\udce9", "\ud800", "\u202e", "\U0001f4a5", "a\nb", "a\tb", "\x1b[31m", "a\0b"),
    *("x" * 300, "x" * 100_000, "../..", "~nosuch", "--lr", "auto", "cuda", "cuda:99", "seed:1", "random", "all"),
)
JSON_VALUES: tuple[Any, ...] = (
    *(None, [], {}, "", "x", True, 0, -1, 1.5, 1e308, float("inf"), float("nan"), 10**400, "\ud800", "a\0b"),
    *([None], [[1]], {"value": 1}, [1, "x"], ["a"] * 300, {"a": {"b": {"c": 1}}}, "x" * 100_000),
)
YAML_PARTS = (
    *("lr: 0.1", "n_epochs: 1", "about: x", "default: {all: paper}", "base: sgd", "paper: {all: {lr: 1}}", "lr:"),
    *("lr: !!bool abc", "lr: !!timestamp x", "lr: !!python/name:os.system", "x: &a [1, *a]", "<<: {lr: 1}", "? [a]: b"),
    *("lr: 2024-99-99", "lr: 2024-01-01", "lr: 1:30:99", "n_epochs: 0x" + "f" * 5000, "n_epochs: " + "9" * 5000),
    *("lr: .nan", "lr: .inf", "lr: {a: 1}", "lr: [[[1]]]", "lr: " + "[" * 5000 + "]" * 5000, "'': 1", "~: 1", "1: 2"),
    *("seed: 1", "model: sgd", "lr: |\n  text", "%YAML 9.9", "---", "...", "\tlr: 1", "lr: '\\ud800'", 'lr: "\\ud800"'),
    *("paper: {seq-digits: {lr: x}}", "other: {all: {lr: 1}}", "data_dir: '~nosuch'", "base_path: [1]", "é: 1", "\0"),
)
MODULE_PARTS = (
    *(
        "NAME = 5",
        "NAME = ('a',)",
        "NAME = 'a/b'",
        "NAME = '\\ud800'",
        "NAME = ''",
        "NAME: str",
        "NAME = " + "-" * 99_999,
    ),
    *(
        "NAME = 'zz'",
        "NAME = 'finetune'",
        "NAME = 'x' * 9",
        "NAME = '" + "n" * 500 + "'",
        "DEFAULTS = 5",
        "N_CLASSES = 'x'",
    ),
    *(
        "DEFAULTS = {1: 2}",
        "Options = 3",
        "Options = Zz",
        "BACKBONE_KIND = []",
        "NAME = " + "(" * 90 + ")" * 90,
        "pass",
    ),
    *(
        "NAME = 'zz'; LACKS = 3",
        "NAME = 'zz'\n    def NAME(self): ...",
        "NAME = 'zz'\n    if True: NAME = 'yy'",
        "x: 1 = 2",
    ),
)
BASES = ("Base", "Zz", "int, Base", "Missing", "Base[int]", "f(1)", "Base, Base", "object", "Yy")


def draw(rng: random.Random, values: Any) -> Any:
    """Return one of the values."""
    return values[rng.randrange(len(values))]


def hostile_path(rng: random.Random, folder: Path) -> str:
    """Make something at a path, or nothing, and return the path as a user types it."""
    makers = (_nothing, _bytes_file, _link_to_nothing, _loop, _pipe, _socket, _forbidden, _empty_folder, _odd_folder)
    if rng.random() < 0.4:
        fixed = ("~nosuch/x", "~", "x" * 300, "a/" * 2000, "a/" * 150, "a\0b", "", ".", "..", "//", "/dev/null", "-x")
        return str(
            draw(rng, (*fixed, "/dev/full", "/dev/zero", "/proc/self/status", "caf\udce9", "\ud800", "a\nb", " "))
        )
    ending = draw(rng, ("", ".pt", ".bin", ".safetensors", ".yaml", ".png", "/inside", ".zip"))
    name = draw(rng, ("x", "é", "caf\udce9", "a b", "'\"", "x" * 200, "~x", "$HOME", "%s"))
    path = folder / path_text(f"{rng.randrange(10**9)}{name}{ending.removesuffix('/inside')}")
    draw(rng, makers)(rng, path)
    return str(path) + ("/inside" if ending == "/inside" else "")


def _nothing(rng: random.Random, path: Path) -> None:
    """Leave nothing there."""


def _bytes_file(rng: random.Random, path: Path) -> None:
    heads = (b"", b"PK\3\4", b"\x80\2.", b"{}", b"\x89PNG\r\n\x1a\n", b"\xff" * 8, (2).to_bytes(8, "little") + b"{}")
    path.write_bytes(draw(rng, heads) + rng.randbytes(rng.choice((0, 1, 100))))


def _link_to_nothing(rng: random.Random, path: Path) -> None:
    path.symlink_to("nowhere")


def _loop(rng: random.Random, path: Path) -> None:
    path.symlink_to(path.name)


def _pipe(rng: random.Random, path: Path) -> None:
    os.mkfifo(path)


def _socket(rng: random.Random, path: Path) -> None:
    if len(os.fsencode(path)) < 100:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(os.fspath(path))


def _forbidden(rng: random.Random, path: Path) -> None:
    path.mkdir()
    path.chmod(0)


def _empty_folder(rng: random.Random, path: Path) -> None:
    path.mkdir()


def _odd_folder(rng: random.Random, path: Path) -> None:
    """Make a folder with folders in it, and a file, a pipe or a link in one of them."""
    for name in ("a", "b", path_text(draw(rng, ("c", "train", "é", "caf\udce9")))):
        (path / name).mkdir(parents=True)
    draw(rng, (_bytes_file, _link_to_nothing, _loop, _pipe))(
        rng, path / "a" / draw(rng, ("1.png", "x.txt", "args.json"))
    )


def remove_pitfalls(folder: Path) -> None:
    """Let the folders without permission below ``folder`` be removed."""
    for place, below, _ in os.walk(folder):
        for name in below:
            path = Path(place, name)
            if not path.is_symlink() and stat.S_IMODE(path.lstat().st_mode) == 0:
                path.chmod(0o700)


def hostile_yaml(rng: random.Random) -> str:
    """Return a few lines of YAML, most of them wrong, some with letters struck out or put in."""
    text = "\n".join(draw(rng, YAML_PARTS) for _ in range(rng.randint(1, 4))) + "\n"
    return _scribbled(rng, text) if rng.random() < 0.3 else text


def hostile_json(rng: random.Random, good: Any) -> str:
    """Return the text of a record in which one to three places are wrong, or which is no JSON."""
    way = rng.random()
    if way < 0.1:
        return str(
            draw(rng, ("", "[" * 100_000, "{}", "null", "1", "\0", "[1,", '{"args": 1}', '{"a":' * 5000, "\ufeff{}"))
        )
    content = json.loads(json.dumps(good))
    for _ in range(rng.randint(1, 3)):
        _spoil(rng, content)
    text = json.dumps(content)
    return _scribbled(rng, text) if way > 0.9 else text


def _spoil(rng: random.Random, content: Any) -> None:
    """Replace, remove or add a value somewhere in nested objects and lists."""
    place = content
    while True:
        keys = list(place) if isinstance(place, dict) else range(len(place))
        if not keys:
            return
        key = draw(rng, keys)
        if isinstance(place[key], dict | list) and place[key] and rng.random() < 0.85:
            place = place[key]
            continue
        if rng.random() < 0.25:
            del place[key]
        else:
            place[key] = copy.deepcopy(draw(rng, JSON_VALUES))  # it may be spoiled in its turn
        return


def hostile_module(rng: random.Random) -> str:
    """Return the text of a file of methods that is wrong somewhere."""
    body = "\n    ".join(draw(rng, MODULE_PARTS) for _ in range(rng.randint(1, 3)))
    text = f"from pmi_cl.models.finetune import Base\n\n\nclass Zz({draw(rng, BASES)}):\n    {body}\n"
    return _scribbled(rng, text) if rng.random() < 0.2 else text


def _scribbled(rng: random.Random, text: str) -> str:
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(text) + 1)
        text = (
            text[:at] + draw(rng, ("", "{", "}", "\0", "\ufeff", '"', "\n", "\\", ":")) + text[at + rng.randint(0, 3) :]
        )
    return text
