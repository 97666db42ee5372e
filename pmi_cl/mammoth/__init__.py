"""Run our methods, data sets and backbones inside an unmodified checkout of Mammoth.

Read ``bridge.py`` first. :func:`register` is for scripts and notebooks, ``pmi-cl mammoth`` for the
command line.
"""

from pmi_cl.mammoth.bridge import register

__all__ = ["register"]
