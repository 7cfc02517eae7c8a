"""What the analyses of studies share: where their table goes, and the t interval of a mean."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dataloader.errors import InputError
from routing_moe.cli.console import run_command
from routing_moe.config.flags import Command, flag_problems, group
from routing_moe.io.files import unwritable

ANALYSIS = group("analysis")


@dataclass(frozen=True, kw_only=True)
class Analysis(Command):
    output_file: Path | None = ANALYSIS(None, "CSV file to write the table to")

    def problems(self) -> list[str]:
        """Returns flags out of range, and an output file that cannot be written."""
        reason = self.output_file and unwritable(self.output_file.parent)
        return flag_problems(self) + ([f"--output_file {reason}"] if reason else [])

    def write(self, table: pd.DataFrame, means: pd.DataFrame | None = None) -> None:
        """Writes the table, and any means to a file beside it (_means.csv); prints the means or the table."""
        if self.output_file:
            self.output_file.write_text(table.round(4).to_csv(index=False))
        if self.output_file and means is not None:
            path = self.output_file.with_name(f"{self.output_file.stem}_means.csv")
            path.write_text(means.round(4).to_csv(index=False))
        print((table if means is None else means).round(3).to_string(index=False))


def run_analysis(
    run: Callable[[Any], None], analysis: type[Analysis], argv: list[str] | None, description: str | None
) -> int:
    """Returns the exit code of `run(settings)`, which is called if the flags have no problems."""

    def checked(settings: Analysis) -> None:
        if problems := settings.problems():
            raise InputError(problems)
        run(settings)

    return run_command(checked, analysis, argv, description)


def t_interval(values_n: np.ndarray) -> tuple[float, float, float]:
    """Returns the mean and its 95% t interval, NaN where there are too few values."""
    from scipy.stats import t  # takes most of a second to import

    n = len(values_n)
    if n < 2:
        return (float(values_n[0]) if n else math.nan), math.nan, math.nan
    mean, half = values_n.mean(), t.ppf(0.975, n - 1) * values_n.std(ddof=1) / math.sqrt(n)
    return float(mean), float(mean - half), float(mean + half)
