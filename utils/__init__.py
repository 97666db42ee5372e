"""What surrounds the methods: arguments, presets, the runner, metrics, run records and reports."""
