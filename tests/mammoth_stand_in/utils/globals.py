"""What a signal handler tells the loop."""

GLOBALS = {"SHOULD_STOP": False}
