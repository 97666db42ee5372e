"""TensorBoard's events, read back."""

from __future__ import annotations


def read_events(folder):
    """Return the events of a folder, none left out."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    return events
