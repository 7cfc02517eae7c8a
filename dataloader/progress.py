"""Shows that long work goes on: a bar at a terminal, elsewhere plain lines without carriage returns."""

import io
import sys
from threading import Event, Thread

from tqdm import tqdm

SECONDS = 15  # between plain lines


class Nowhere(io.TextIOBase):
    def write(self, text: str) -> None:
        pass


class ProgressBar(tqdm):
    """A bar that leaves nothing behind or, where standard error is no terminal, a line every SECONDS."""

    def __init__(self, *args, **flags):
        self.ended, is_terminal = Event(), sys.stderr.isatty()
        drawn = {"leave": False} if is_terminal else {"file": Nowhere(), "ncols": 0}
        super().__init__(*args, **drawn | flags)
        if not (is_terminal or self.disable):
            Thread(target=self._write_lines, daemon=True).start()

    def _write_lines(self) -> None:
        while not self.ended.wait(SECONDS):
            print(self, file=sys.stderr, flush=True)

    def close(self) -> None:
        self.ended.set()
        super().close()
