"""Asking a run to stop: Ctrl-C and SIGTERM are remembered until the step is done."""

import signal
from types import FrameType


class Stop:
    """While the block runs, SIGINT and SIGTERM set `asked` and interrupt nothing.

    A second SIGINT interrupts at once, as usual.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self):
        self.asked = False

    def __enter__(self) -> "Stop":
        self._before = {s: signal.signal(s, self._ask) for s in self.SIGNALS}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True
