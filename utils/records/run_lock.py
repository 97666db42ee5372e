"""One process at a time in a run's folder."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from pmi_cl.errors import UserError

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows: there two processes are not kept apart
    fcntl = None


@contextlib.contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """The run in ``folder`` is this process's while the body lasts; the system lets go of it however the process ends.

    What is locked is ``args.json``, which is written once: there is no file to leave behind.

    Raises:
        UserError: another process has it.
    """
    with contextlib.ExitStack() as opened:
        if fcntl is not None:
            with contextlib.suppress(
                OSError
            ):  # a record that may only be read, a file system without locks: others tell what is wrong
                _take(opened.enter_context((folder / "args.json").open("rb+")).fileno(), folder)
        yield


def _take(file: int, folder: Path) -> None:
    assert fcntl is not None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(
            f"{folder} is being run by another process: wait for its end, or stop it, then --resume goes on"
        ) from None
