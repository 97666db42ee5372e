"""Train any method: losses, learning-rate schedules, the optimiser."""
