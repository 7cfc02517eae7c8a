"""Shows that long work goes on: a bar at a terminal, elsewhere plain lines without carriage returns."""

import io
import sys
from threading import Event, Thread

from tqdm import tqdm

SECONDS = 15  # between plain lines
REDRAWN = 1  # seconds between updates of the time in a bar


class Nowhere(io.TextIOBase):
    def write(self, text: str) -> None:
        pass


class ProgressBar(tqdm):
    """A bar that leaves nothing behind or, where standard error is no terminal, a line every SECONDS."""

    def __init__(self, *args, **flags):
        self.ended, self.is_terminal = Event(), sys.stderr.isatty()
        self.thread = Thread(target=self._show_time, daemon=True)
        drawn = {"leave": False} if self.is_terminal else {"file": Nowhere(), "ncols": 0}
        super().__init__(*args, **drawn | flags)
        if not self.disable:
            self.thread.start()

    def _show_time(self) -> None:
        while not self.ended.wait(REDRAWN if self.is_terminal else SECONDS):
            if self.is_terminal:
                self.refresh()
            else:
                print(self, file=sys.stderr, flush=True)

    def close(self) -> None:
        self.ended.set()
        if self.thread.is_alive():  # it could draw the bar again
            self.thread.join()
        super().close()
