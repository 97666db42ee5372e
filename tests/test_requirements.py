"""Test that what is said to be tested is what is asked for.

That is the bounds in setup.cfg, the two files of exact versions, and the contents of the archive.
"""

from __future__ import annotations

import configparser
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# Tools for developing, never needed to run anything.
NOT_TESTED_OLD = {
    "build",
    "ruff",
    "mypy",
    "types-pyyaml",
    "types-tqdm",
}


def bounds() -> dict[str, str]:
    """Return the lower bound of every package that setup.cfg asks for."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    asked = setup["options"]["install_requires"] + "\n" + "\n".join(setup["options.extras_require"].values())
    found = {}
    for line in filter(None, map(str.strip, asked.splitlines())):
        name, bound = re.fullmatch(r"([\w-]+)(?:>=([\d.]+))?(?:,<[\d.]+)?", line).groups()  # type: ignore[union-attr]
        found[name.lower()] = bound or ""
    return found


def exact(name: str) -> dict[str, str]:
    """Return the versions in a file of constraints."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {package.lower(): version for package, version in pairs}


def padded(version: str) -> tuple[int, ...]:
    numbers = [int(part) for part in version.split(".")]
    return tuple(numbers + [0] * (4 - len(numbers)))


def test_the_lowest_versions_are_the_bounds() -> None:
    asked = {name: padded(bound) for name, bound in bounds().items() if name not in NOT_TESTED_OLD}
    assert {name: padded(version) for name, version in exact("constraints-lowest.txt").items()} == asked


def test_ci_has_a_version_of_everything_within_the_bounds() -> None:
    installed = exact("constraints.txt")
    for name, bound in bounds().items():
        assert name in installed, f"{name} is not in constraints.txt"
        assert not bound or padded(installed[name]) >= padded(bound)


def test_the_source_archive_holds_everything_but_what_serves_the_checkout() -> None:
    """Its tests can be collected only with their helpers.

    They read the docs, the records and the benchmarks, too.
    """
    if not (ROOT / ".git").exists():
        pytest.skip("only a checkout knows what is its own")
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    lines = [
        line.split()
        for line in (ROOT / "MANIFEST.in").read_text(encoding="utf-8").splitlines()
        if not line.startswith("#")
    ]
    held = {name for word, *names in lines if word in ("include", "graft") for name in names}
    # setuptools takes these, and the packages, by itself.
    held |= {
        "README.md",
        "LICENSE",
        "pyproject.toml",
        "setup.cfg",
    }
    held |= {"pmi_cl", "backbones", "datasets", "inversion", "models", "utils"}
    assert {path.split("/")[0] for path in listed} - held == {".ci", ".gitignore"}
    assert all((ROOT / name).exists() for name in held)
