"""Shows that long work goes on: a bar at a terminal, elsewhere plain lines without carriage returns."""

import io
import sys
import time

from tqdm import tqdm

SECONDS = 15  # between plain lines


class ProgressBar(tqdm):
    """A bar that leaves nothing behind or, where standard error is no terminal, a line every SECONDS."""

    def __init__(self, *args, **flags):
        if not sys.stderr.isatty():
            flags |= {"file": PlainLines(), "ncols": 0, "position": 0}
        super().__init__(*args, **{"leave": False} | flags)


class PlainLines(io.TextIOBase):
    """Takes the place of a terminal: writes the state of a bar to standard error, once in SECONDS."""

    def __init__(self):
        self.written = time.monotonic()

    def write(self, text: str) -> None:
        line, now = text.strip(), time.monotonic()
        if line and now - self.written >= SECONDS:
            self.written = now
            print(line, file=sys.stderr, flush=True)
