"""The path under which 0.1 taught ``Sgd``; it stays valid."""

from pmi_cl.models.resnet.sgd import Sgd

__all__ = ["Sgd"]
