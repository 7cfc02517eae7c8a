"""Tables and numbers as Markdown."""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd


def markdown_table(table: pd.DataFrame | Mapping[str, Mapping], heading: str = "") -> str:
    """Returns a Markdown table, aligned, of a data frame or of {label: {column: cell}}.

    heading: of the labels of the latter. Numbers have three decimals; NaN is "-".
    """
    if not isinstance(table, pd.DataFrame):
        table = pd.DataFrame.from_dict(table, orient="index").fillna("").rename_axis(heading)
    header = [table.index.name or "", *map(str, table.columns)]
    rows = [[str(name), *map(_cell, row)] for name, *row in table.itertuples()]
    widths = [max(2, *(len(row[i]) for row in [header, *rows])) for i in range(len(header))]

    def line(cells: Iterable[str]) -> str:
        padded = [
            c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * w if i == 0 else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    return "\n".join(line(cells) for cells in [header, rule, *rows])


def _cell(value) -> str:
    if isinstance(value, int | str):
        return str(value)
    return "-" if np.isnan(value) else f"{value:.3f}"


def mean_and_std(mean: float, std: float) -> str:
    """Returns "0.123 ± 0.045", "0.123" if the std is NaN, "-" if the mean is NaN."""
    if np.isnan(mean):
        return "-"
    return f"{mean:.3f}" if np.isnan(std) else f"{mean:.3f} ± {std:.3f}"


def whole(number: float) -> str:
    """Returns a number without decimals, "-" for NaN."""
    return "-" if np.isnan(number) else f"{number:.0f}"


def shown_p(p: float) -> str:
    """Returns a p-value such as "0.012", "<0.001", or "" for NaN."""
    return "" if np.isnan(p) else "<0.001" if p < 0.001 else f"{p:.3f}"
