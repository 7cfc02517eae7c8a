"""Training curves as CSV, through accelerate's tracker interface (`--log_with` adds other trackers)."""

import csv
from pathlib import Path

from accelerate.tracking import GeneralTracker, on_main_process

from routing_moe.run_state import write_text

CURVES_FILE = "curves.csv"


class CsvTracker(GeneralTracker):
    """Appends one row per logged step to `curves.csv`; a resumed run first drops the rows it will redo."""

    name = "csv"
    requires_logging_directory = True

    def __init__(self, run_dir: str | Path, first_step: int = 0):
        super().__init__()
        self.path, self.first_step = Path(run_dir) / CURVES_FILE, first_step

    @property
    def tracker(self) -> Path:
        return self.path

    @on_main_process
    def store_init_configuration(self, values: dict) -> None:
        """Settings are in run.json already; this is where a run begins, so old rows go."""
        kept: list[str] = []
        if self.first_step and self.path.is_file():
            lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
            # A line without its end was being written when the process died.
            lines = [line for line in lines if line.endswith("\n")]
            kept = lines[:1] + [row for row in lines[1:] if int(row.split(",")[0]) <= self.first_step]
        write_text(self.path, "".join(kept))

    @on_main_process
    def log(self, values: dict, step: int | None = None, **kwargs) -> None:
        with self.path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            if file.tell() == 0:
                writer.writerow(["step", *values])
            writer.writerow([step, *values.values()])
