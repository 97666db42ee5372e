"""The model-inversion engine, usable alone: ``from pmi_cl.inversion.invert import invert``."""
