"""Methods: one file each, found by its class's ``NAME``; the maths they share stands in ``losses`` and ``schedules``."""
