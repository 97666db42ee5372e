"""What the processes that tests start have cost."""

from __future__ import annotations

import functools
import resource
import subprocess
import sys


def processor_seconds() -> float:
    """Return the processor seconds of all children that have ended.

    A clock would count other work on the machine, too.
    """
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@functools.cache
def half_a_torch() -> float:
    """Return half of the processor seconds that importing torch takes, as now on this machine.

    It is the most that an answer without torch may take. At least it is what a machine at rest
    needs for all of them.
    """
    started = processor_seconds()
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    return max(0.6, (processor_seconds() - started) / 2)
