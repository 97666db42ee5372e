"""Test that import paths of version 0.1 stay valid, and give the classes that the program uses."""

from __future__ import annotations

from pmi_cl.models import sgd as taught
from pmi_cl.models.resnet import sgd


def test_the_taught_path_of_sgd_gives_the_same_class() -> None:
    assert taught.Sgd is sgd.Sgd
