"""pmi-cl: data-free continual learning by per-layer model inversion (PMI + CFS).

The code lies in the top-level folders of the project (``models``, ``datasets`` ...). It is imported
under one name: ``pmi_cl.models``, ``pmi_cl.datasets`` and so on, from a checkout and installed.
"""

from pathlib import Path as _Path

__version__ = "0.2.0"

_root = _Path(__file__).resolve().parent.parent
if (_root / "setup.cfg").is_file() and (_root / "inversion").is_dir():
    __path__.append(str(_root))  # a checkout: pmi_cl.models is <root>/models
