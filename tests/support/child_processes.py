"""What the processes that tests start have cost."""

from __future__ import annotations

import resource


def processor_seconds() -> float:
    """Return the processor seconds of all children that have ended.

    A clock would count other work on the machine, too.
    """
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
