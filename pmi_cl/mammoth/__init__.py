"""Run our methods inside an unmodified checkout of Mammoth.

:func:`register` is for scripts and notebooks, ``pmi-cl mammoth`` for the command line.
"""

from pmi_cl.mammoth.bridge import register

__all__ = ["register"]
