"""The tables of a comparison by category: means of each measure, contrasts.

found = compared(settings, runs, ontology)
found.csv_tables(settings)
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from dataloader.ontology import Ontology
from routing_moe.config.tables import CompareSettings
from routing_moe.results import comparison
from routing_moe.results.compared_runs import Run, scores_per_sample, scores_per_task
from routing_moe.results.contrasts import (
    OVER_GYMS,
    contrast_table,
    contrasts_markdown,
    explain_contrasts,
    parsed_contrast,
)
from routing_moe.results.measures import TITLES
from routing_moe.results.scores import ALL
from routing_moe.results.statistics import SEEDS_ALONE


@dataclass(frozen=True)
class Compared:
    """Tables with a column measure: means of runs, of variants; contrasts (None without any).

    samples: `scores_per_sample`.
    """

    per_run: pd.DataFrame
    table: pd.DataFrame
    contrasts: pd.DataFrame | None
    samples: pd.DataFrame

    def of(self, measure: str) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Returns the means of runs and of variants in a measure."""
        both = (self.per_run, self.table)
        return tuple(rows[rows["measure"] == measure].drop(columns="measure") for rows in both)

    def csv_tables(self, settings: CompareSettings) -> dict[str, pd.DataFrame | None]:
        """Returns {ending of the file's name: table}. The performance alone has no column measure."""
        table, per_run = self.table, self.per_run
        if settings.measures == (comparison.PERFORMANCE,):
            per_run, table = self.of(comparison.PERFORMANCE)
        contrasts = self.contrasts if settings.contrasts else None
        return {"": table, "_runs": per_run, "_contrasts": contrasts, "_tasks": self.samples}

    def markdown(self, settings: CompareSettings, draws: dict[str, int]) -> Iterator[str]:
        """Yields the explanations and tables of all measures."""
        measures, where = settings.measures, where_scored(settings)
        what = f"{TITLES[measures[0]]} {where}" if len(measures) == 1 else f"means {where}"
        names = set(self.table["variant"])
        explained = [comparison.explain_comparison(what, settings.checkpoint_name, names, draws)]
        if pairs := contrast_pairs(settings, self.samples["variant"].unique()):
            explained.append(
                explain_contrasts(pairs, settings.primary or measures[:1], settings.gym_per_seed)
            )
        yield "\n".join(explained)
        for measure in measures:
            heading = f"**{TITLES[measure].capitalize()}**\n\n" if len(measures) > 1 else ""
            yield heading + comparison.comparison_markdown(self.of(measure)[1], settings.baseline)
        if self.contrasts is not None:
            shown = self.contrasts[self.contrasts["minus"] != settings.baseline]
            if len(shown):
                yield contrasts_markdown(shown)


def where_scored(settings: CompareSettings) -> str:
    return f"on the {settings.part} files of the {settings.predict_split} tasks"


def compared(settings: CompareSettings, runs: Sequence[Run], ontology: Ontology) -> Compared:
    """Returns the tables of finished runs."""
    scores, tables, means, contrasts = scores_per_task(runs), [], [], None
    pairs = contrast_pairs(settings, scores["variant"].unique())
    if pairs:
        # Tasks of the same name differ between gyms, so they are part of the variation between seeds.
        design = "seeds" if settings.gym_per_seed else settings.design
        contrasts = contrast_table(scores, ontology, pairs, settings.measures, settings.primary, design)
        if settings.gym_per_seed:
            contrasts = contrasts.replace({"interval": {SEEDS_ALONE: OVER_GYMS}})
    for measure in settings.measures:
        per_run = comparison.means_per_run(scores, ontology, measure)
        table = comparison.comparison_table(scores, ontology, settings.baseline, measure, contrasts)
        means.append(per_run.assign(measure=measure))
        tables.append(table.assign(measure=measure))
    found = [pd.concat(tables, ignore_index=True), pd.concat(means, ignore_index=True), contrasts]
    if settings.gym_per_seed:  # a task of the same name has another category in each gym
        found = [rows if rows is None else rows[rows["category"] == ALL] for rows in found]
    table, per_run, contrasts = found
    return Compared(per_run, table, contrasts, scores_per_sample(runs))


def contrast_pairs(settings: CompareSettings, variants: Sequence[str]) -> list[tuple[str, str]]:
    """Returns the contrasts with the baseline, then those of --contrasts."""
    of_baseline = [(name, settings.baseline) for name in variants if name != settings.baseline]
    further = [parsed_contrast(text) for text in settings.contrasts]
    return list(dict.fromkeys([*(of_baseline if settings.baseline else []), *further]))
