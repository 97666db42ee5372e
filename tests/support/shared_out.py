"""How ``pytest -n`` shares the tests out among processes: by what they have in common.

Tests of one file share fixtures, and some files share runs that are kept for a process. Shared out
one by one, every process would make all of these runs. What takes longest comes first, so that all
processes end at the same time.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).resolve().parents[2]
# Runs that several files share: a word that a file has in it if it uses them.
SHARED = ("finished_run", "support.method_runs", "support.clip_runs", "trained_on_digits")
# Half a minute or more each, the longest first. The order of the others does not matter.
LONGEST = (
    "support.method_runs",
    "tests/test_devices.py",
    "tests/test_multi_domain.py",
    "tests/test_mammoth.py",
    "tests/test_mammoth_task_sizes.py",
    "finished_run",
    "support.clip_runs",
    "tests/test_extensions.py",
)


@functools.cache
def group_of(file: str) -> str:
    """Return what the tests of a file are kept together by: runs that they share, or the file."""
    text = (ROOT / file).read_text(encoding="utf-8")
    return next((shared for shared in SHARED if shared in text), file)


def place_of(item: pytest.Item) -> int:
    """Return when a test is begun: the lower, the sooner."""
    group = group_of(item.nodeid.split("::", 1)[0])
    return LONGEST.index(group) if group in LONGEST else len(LONGEST)


class ByGroup(LoadScopeScheduling):  # type: ignore[misc]
    """Give a process all tests of a group, and the next group when it has almost done."""

    def __init__(self, config: pytest.Config, log: Any) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False  # xdist's own order: by the number of tests

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid.split("::", 1)[0])
