"""Curves of the conflict study: agreement and scores against rows per task, label noise and overlap of skills.

    routing-moe study conflict-curves --rates_of models/compare_conflict/tuning.csv --jobs 2
    routing-moe study conflict-curves --rates_of models/compare_conflict/tuning.csv --conflicts 0.5 --rows 12 24

Each point is a conflict study of gyms that differ from the usual ones (48 rows of a train task, no noise, no overlap)
in one thing, with the same steps and learning rates, in a folder of its own. --output_dir gets curves.csv (a row per
run: conflict, what differs, its value, variant, seed, score, ami), curves_means.csv (a row per point: n, the mean score
of each variant, and the mean AMI of its routes) and curves_conflict<c>.png and .pdf. Flags and
variants are those of `routing-moe study conflict`. A second call keeps finished runs and continues the others.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from dataloader.atomic_files import write_text
from dataloader.errors import InputError
from routing_moe.config.flags import AT_LEAST_1, PROBABILITY, SEED, group
from routing_moe.studies.conflict import compare, levels_of
from routing_moe.studies.conflict_settings import ConflictStudy
from routing_moe.studies.conflict_variants import VARIANTS
from routing_moe.studies.study import RUNNING, run_study

CURVES = group("curves")
USUAL = {"rows": 48, "label_noise": 0.0, "overlap": 0.0}  # of a conflict gym
COLUMNS = ["conflict", "what", "value", "variant", "seed", "score", "ami"]


@dataclass(frozen=True, kw_only=True)
class ConflictCurves(ConflictStudy):
    # fmt: off
    program = "routing-moe study conflict-curves"
    groups = ("curves", *ConflictStudy.groups)

    variants: tuple[str, ...] = CURVES(("dense", "dense_flops", "clusters", "refined", "oracle"), "variants", choices=VARIANTS, metavar="NAME", on_resume=True)
    unseen: tuple[str, ...] = CURVES((), "variants whose runs also score the unseen tasks", choices=VARIANTS, metavar="NAME", on_resume=True)
    conflicts: tuple[float, ...] = CURVES((1.0,), "levels of conflict", range=PROBABILITY, on_resume=True)
    seeds: tuple[int, ...] = CURVES((201, 202, 203), "seeds", range=SEED, on_resume=True)
    rows: tuple[int, ...] = CURVES((12, 24, 48, 96), "train rows of a train task", range=AT_LEAST_1, on_resume=True)
    label_noise: tuple[float, ...] = CURVES((0.0, 0.1, 0.2), "shares of train rows with a wrong answer", range=PROBABILITY, on_resume=True)
    overlap: tuple[float, ...] = CURVES((0.0, 0.25, 0.5), "shares of inputs that a second skill answers", range=PROBABILITY, on_resume=True)
    output_dir: Path = RUNNING(Path("models/conflict_curves"), "folder of the curves", on_resume=True)
    # fmt: on

    def problems(self) -> list[str]:
        problems = super().problems()
        if self.tunes:
            problems.append(
                "--rates_of is not given; give the tuning.csv of a study, or a single one of --rates"
            )
        return problems

    def points(self) -> Iterator[tuple[str, float, ConflictStudy]]:
        """Yields what differs, its value, and the study of this point; the usual gyms have one folder."""
        for what, usual in USUAL.items():
            for value in getattr(self, what):
                name, flags = "usual", self.gym_flags
                if value != usual:
                    name, flags = f"{what}{value:g}", f"{flags} --{what} {value:g}"
                yield what, value, replace(self, gym_flags=flags, output_dir=self.output_dir / name)


def run(curves: ConflictCurves) -> int:
    exit_code, studies = 0, {study.output_dir: study for _, _, study in curves.points()}.values()
    if problems := [problem for study in studies for problem in study.problems()]:
        raise InputError(list(dict.fromkeys(problems)))
    for study in studies:
        exit_code = compare(study) or exit_code
    rows = [
        table[table["variant"].isin(curves.variants)].assign(conflict=level.conflict, what=what, value=value)
        for what, value, study in curves.points()
        for level in levels_of(study)
        if (table := shares_of(level.folder)) is not None
    ]
    if not rows:
        return exit_code
    table = pd.concat(rows)[COLUMNS].sort_values("conflict", kind="stable")
    write_text(curves.output_dir / "curves.csv", table.round(4).to_csv(index=False))
    means = means_of_points(table).round(4)
    means["value"] = means["value"].map("{:g}".format)
    write_text(curves.output_dir / "curves_means.csv", means.to_csv(index=False))
    print(means.to_string(index=False))
    from routing_moe.plots.conflict_curves import plot_conflict_curves  # imports matplotlib

    for conflict, of_level in table.groupby("conflict"):
        for kind in (".png", ".pdf"):
            plot_conflict_curves(of_level, curves.output_dir / f"curves_conflict{conflict:g}{kind}")
    print(f"{curves.output_dir}/curves.csv, curves_means.csv, curves_conflict*.png, .pdf")
    return exit_code


def means_of_points(table: pd.DataFrame) -> pd.DataFrame:
    """Returns a row per point: the mean score of each variant, the mean AMI of its routes (`<variant>_ami`).

    Means are over the n gyms with all variants of the table.
    """
    points = ["conflict", "what", "value"]
    variants = [name for name in VARIANTS if name in set(table["variant"])]
    of_gym = table.groupby([*points, "seed"])["variant"].transform("nunique")
    table = table[of_gym == len(variants)]
    n = table.groupby(points, sort=False)["seed"].nunique().rename("n")
    means = table.groupby([*points, "variant"])[["score", "ami"]].mean().unstack().reindex(n.index)
    scores, amis = means["score"][variants], means["ami"][variants].dropna(axis=1, how="all")
    return pd.concat([n, scores, amis.add_suffix("_ami")], axis=1).reset_index()


def shares_of(folder: Path) -> pd.DataFrame | None:
    """Returns the runs of a level, None if it has no table of them yet."""
    path = folder / "shares.csv"
    return pd.read_csv(path) if path.is_file() else None


def main(argv: list[str] | None = None) -> int:
    return run_study(run, ConflictCurves, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
