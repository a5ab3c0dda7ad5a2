"""Graceful stopping of a run: SIGINT and SIGTERM take effect after the current step."""

import os
import signal
from types import FrameType

import jax
from jax.experimental import multihost_utils


class Stop:
    """A context manager that records SIGINT and SIGTERM instead of being interrupted.

    A second SIGINT interrupts at once, as usual. With several processes, a signal to one stops all
    of them at the same step: jax's preemption service handles SIGTERM and informs the others.
    SIGINT is then forwarded as SIGTERM.
    """

    def __init__(self):
        self.asked = False
        """Whether a stop was requested."""
        self._together = jax.process_count() > 1

    def __enter__(self) -> "Stop":
        signals = (signal.SIGINT,) if self._together else (signal.SIGINT, signal.SIGTERM)
        self._before = {s: signal.signal(s, self._ask) for s in signals}
        self._interrupted = False
        return self

    def reached(self, step: int) -> bool:
        """Return whether to stop at this step; every process must call it at every step."""
        if self._together and not self.asked:
            self.asked = multihost_utils.reached_preemption_sync_point(step)
        return self.asked

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self._interrupted and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._interrupted = number == signal.SIGINT
        if self._together:
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            self.asked = True
