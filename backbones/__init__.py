"""Define the networks. Each says which pieces it is made of.

A network is its ``pieces()`` composed, then its ``head``.
"""
