"""Networks made ready for inversion: cut into pieces, frozen, their statistics compared."""
