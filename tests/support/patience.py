"""Patience for the tests: what fails is tried again at once."""

from neuromill.sources.attempts import Patience

# No test may run into a limit because its machine stood still for a second: one that waits for a limit says BRIEF.
FAST = Patience(fruitless_attempts=3, first_delay_seconds=0.0, read_timeout_seconds=60.0, connect_timeout_seconds=60.0)
BRIEF = FAST.model_copy(update={"read_timeout_seconds": 0.5})
