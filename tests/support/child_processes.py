"""What processes that tests start have cost."""

from __future__ import annotations

import resource


def processor_seconds() -> float:
    """Of all children that have ended. The clock would fail a test for other work on the machine."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
