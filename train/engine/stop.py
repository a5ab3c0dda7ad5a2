"""Asking a run to stop: Ctrl-C and SIGTERM are remembered until the step is done."""

import os
import signal
from types import FrameType

import jax
from jax.experimental import multihost_utils


class Stop:
    """While the block runs, SIGINT and SIGTERM are remembered and interrupt nothing.

    A second SIGINT interrupts at once, as usual. Of several processes it is enough that one is
    asked: they agree on a step at which all of them stop. There SIGTERM belongs to jax, whose
    service tells the others, and SIGINT is passed on as one.
    """

    def __init__(self):
        self.asked = False
        self._together = jax.process_count() > 1

    def __enter__(self) -> "Stop":
        signals = (signal.SIGINT,) if self._together else (signal.SIGINT, signal.SIGTERM)
        self._before = {s: signal.signal(s, self._ask) for s in signals}
        self._interrupted = False
        return self

    def reached(self, step: int) -> bool:
        """Whether to stop at this step. Every process must ask at every step."""
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
