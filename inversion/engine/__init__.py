"""The loop of an inversion: the problem, the plan of its stages, the steps, what they cost."""
