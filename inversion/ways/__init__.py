"""Ways to make synthetic samples, and the buffer that keeps them.

They are: layer by layer (PMI), through the full model, on ever fewer patches (SMI), and by a
generator.
"""
