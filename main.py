"""``python main.py``: the command from a checkout (the same program as ``pmi-cl``)."""

from pmi_cl.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
