"""Stop a worker by a signal: between two shards or two batches, leases given back, with an exit code that requeues.

========================  ==========================================================================================
SIGUSR1, SIGUSR2          a warning ahead of time (Slurm's ``--signal``): the shard in hand is finished
SIGTERM, SIGINT, SIGHUP   the end is near: the shard in hand is abandoned after its batch
a second signal           exit at once
========================  ==========================================================================================

The exit code is 128 + the signal's number, as a shell reports a death by that signal.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from prism_fast.errors import StoppedError

_WARNINGS = (signal.SIGUSR1, signal.SIGUSR2)
SIGNALS = (*_WARNINGS, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Stop:
    """Whether this process was asked to stop; ``last_words`` is called when a second signal ends it at once."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self.last_words: Callable[[], None] = lambda: None
        self._patient = False

    @property
    def asked(self) -> bool:
        """No new shard is to be begun."""
        return self.signal is not None

    def check(self) -> None:
        """Raise if a signal was received.

        Raises:
            StoppedError: it was.
        """
        if self.signal is not None:
            raise StoppedError(self.signal)

    def check_batch(self) -> None:
        """Raise if a signal was received that does not wait for the end of a shard.

        Raises:
            StoppedError: it was.
        """
        if self.signal not in _WARNINGS:
            self.check()

    @contextmanager
    def patient(self) -> Iterator[None]:
        """In here a signal waits for the next check; elsewhere it raises where it strikes."""
        self._patient = True
        try:
            yield
        finally:
            self._patient = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            self.last_words()
            os._exit(128 + number)
        self.signal = signal.Signals(number)
        if not self._patient:
            self.check()


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Handle signals while inside; in a thread that is not the main one, where Python gives none, do nothing."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    wanted = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]  # nohup, shells' "&"
    before = {number: signal.signal(number, stop._handle) for number in wanted}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
