"""The model-inversion engine, usable alone: ``from pmi_cl.inversion.invert import invert``.

Each line may import from itself and from the lines above it (``tests/test_layers.py``)::

    objectives, transforms, parts/      what is minimised, and in which space; no network
    features/                           statistics, Gaussians, selection, projection; tensors alone
    networks/                           frozen networks, and the protocol that they follow
    ways/                               PMI, full model, SMI, the generator; the buffer of samples
    starts                              where an inversion begins
    config, plugins                     the settings, and parts from other packages
    engine/                             the problem, the plan of its stages, the loop, the report
    invert                              all of it in one call
"""
