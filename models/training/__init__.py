"""What training is made of, whatever the method: losses, schedules, the optimiser."""
