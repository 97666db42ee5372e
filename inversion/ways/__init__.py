"""Ways to synthetic samples: layer by layer (PMI), the full model, sparse (SMI), a generator; and the buffer that keeps them."""
