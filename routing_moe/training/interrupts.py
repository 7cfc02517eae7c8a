"""Ctrl-C and SIGTERM during training."""

import logging
import signal

log = logging.getLogger(__name__)


class FinishStepOnInterrupt:
    """In this context, Ctrl-C or SIGTERM ends training after the current step is saved; a second one at once.

    With several processes it changes nothing: they would not all stop after the same step.
    """

    def __init__(self, training):
        self.training, self.previous = training, {}

    def __enter__(self) -> None:
        if self.training.accelerator.num_processes == 1:
            for number in (signal.SIGINT, signal.SIGTERM):
                self.previous[number] = signal.signal(number, self._request_stop)

    def __exit__(self, *_) -> None:
        self._restore()

    def _request_stop(self, number, frame) -> None:
        self.training.stop_requested = True
        self._restore()
        log.info("stopping after this step and its evaluation, if due; interrupt again to stop at once")

    def _restore(self) -> None:
        while self.previous:
            signal.signal(*self.previous.popitem())
