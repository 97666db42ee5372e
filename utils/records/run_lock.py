"""Keep two processes from running in the same folder."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from pmi_cl.errors import UserError

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows has no such lock
    fcntl = None


@contextlib.contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Lock the run in ``folder`` for the body. The system frees the lock if the process dies.

    The locked file is ``args.json``, which is written only once. So no lock file is left behind.

    Raises:
        UserError: another process has the lock.
    """
    with contextlib.ExitStack() as files:
        if fcntl is not None:
            # A read-only record, or a file system without locks. Other checks report what is wrong.
            with contextlib.suppress(OSError):
                _lock(files.enter_context((folder / "args.json").open("rb+")).fileno(), folder)
        yield


def _lock(file: int, folder: Path) -> None:
    assert fcntl is not None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(
            f"{folder} is being run by another process: wait for its end, or stop it, then --resume goes on"
        ) from None
