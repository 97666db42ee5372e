"""``python -m pmi_cl``: the same program as ``python main.py`` and ``pmi-cl``."""

from pmi_cl.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
