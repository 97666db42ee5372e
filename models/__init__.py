"""Methods, each in a file of its own whose class has a ``NAME``, and what they share: base classes, mixins, losses, schedules."""
