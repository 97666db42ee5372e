"""The loop of an inversion: problem, stages, steps, checks, cost."""
