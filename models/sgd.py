"""Keep the import path of ``Sgd`` that the docs of version 0.1 teach."""

from pmi_cl.models.resnet.sgd import Sgd

__all__ = ["Sgd"]
