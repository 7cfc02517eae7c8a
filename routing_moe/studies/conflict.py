"""Compare routings with dense models on conflict gyms, where tasks of different skills contradict each other.

    routing-moe study conflict
    routing-moe study conflict --jobs 2 --conflicts 1 --seeds 201 202 --variants dense dense_flops refined oracle
    routing-moe study conflict --skills 36 --conflicts 1 --seeds 201 202

At several levels of conflict, with several seeds: a gym (docs/conflict_gym.md) and an untrained BART each. The number
of steps of a level is fixed; it includes the dense run that a variant starts from. Learning rates are tuned for each
level and kind of model by the same grid, on gyms of other seeds (tuning.csv). --output_dir gets gyms/, dense_runs/,
vectors/, refinements/, tuning/ and conflict<c>_<n>skills/<variant>/seed<seed>/. Of every level, overview.md has cost
and scores; comparison_curves.csv curves. A second call keeps finished runs and continues the others.

variants:
"""

import csv
import io
import re
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from dataloader.atomic_files import write_text
from routing_moe.studies.conflict_runs import Level
from routing_moe.studies.conflict_settings import ConflictStudy
from routing_moe.studies.conflict_variants import VARIANTS, described, tuned
from routing_moe.studies.devices import device
from routing_moe.studies.runs import TIMES_FILE, Run, call_here, report_unfinished, with_needs
from routing_moe.studies.study import run_study


def compare(study: ConflictStudy) -> int:
    print(
        f"BARTs of width 16, variants: {' '.join(study.variants)}; {study.skills} skills, conflicts: "
        f"{' '.join(f'{conflict:g}' for conflict in study.conflicts)}; seeds: {' '.join(map(str, study.seeds))}\n"
        f"{study.jobs} at a time; on {device()}; output in {study.output_dir}"
    )
    for level in levels_of(study):
        budget = level.budget
        print(
            f"{level.name}: {budget.total} steps; dense run {budget.dense} of them at rate {study.dense_rate:g}; tasks "
            f"move in the first {budget.refinement} steps of refined mixtures"
        )
    runner = study.runner(threads=1)
    tuning = [run for level in levels_of(study) for run in level.tuning_runs(study.trained)]
    compared = [
        level.gym(seed).compared(name)
        for level in levels_of(study)
        for name in study.trained
        for seed in study.seeds
    ]
    # A variant does not need all of its tuning runs: those that diverge do not count.
    unfinished = runner.run(tuning)
    if study.tunes:
        report_rates(study)
    report_hours(study, compared)
    unfinished += runner.run(compared)
    exit_code = report_unfinished(list(dict.fromkeys(unfinished)))
    for level in levels_of(study):
        exit_code = tables(level.folder) or exit_code
    return exit_code


def levels_of(study: ConflictStudy) -> list[Level]:
    return [Level(study, conflict) for conflict in study.conflicts]


def report_rates(study: ConflictStudy) -> None:
    """Prints the grids and the chosen rates; writes tuning.csv, which keeps other rows of earlier calls."""
    path, rows = study.output_dir / "tuning.csv", {}  # {(level, variant): its rows}
    if path.is_file():
        with path.open() as file:
            for row in csv.DictReader(file):
                rows.setdefault((row["level"], row["variant"]), []).append(row)
    for level in levels_of(study):
        for name in tuned(study.trained):
            scores = level.dev_scores(name)
            if not scores:
                print(f"{level.name}: no rate of {name}: no tuning run is finished")
                continue
            chosen = level.chosen_rate(name)
            edge = chosen in (min(level.rates(name)), max(level.rates(name)))
            listed = ", ".join(f"{rate:g}: {score:.3f}" for rate, score in scores.items())
            note = " (at the edge of the grid)" if edge else ""
            print(f"{level.name}: learning rate of {name}: {chosen:g}{note}; dev scores {listed}")
            rows[level.name, name] = [
                {"level": level.name, "variant": name, "rate": f"{rate:g}", "n": len(study.tune_seeds)}
                | {"dev": f"{score:.4f}", "chosen": rate == chosen, "at_edge": rate == chosen and edge}
                for rate, score in scores.items()
            ]
    if rows:
        text = io.StringIO()
        flat = [row for own in rows.values() for row in own]
        writer = csv.DictWriter(text, flat[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(flat)
        write_text(path, text.getvalue())


def report_hours(study: ConflictStudy, runs: Iterable[Run]) -> None:
    """Prints how long the runs will take, by the times of finished runs of the same kind."""
    if not (study.output_dir / TIMES_FILE).is_file():
        return
    seconds, left = defaultdict(list), [run for run in dict.fromkeys(with_needs(runs)) if not run.is_finished]
    with (study.output_dir / TIMES_FILE).open() as file:
        for row in csv.DictReader(file):
            seconds[kind_of(row["run"])].append(float(row["seconds"]))
    every = [second for kind in seconds.values() for second in kind]
    hours = sum(sum(own) / len(own) for run in left if (own := seconds.get(kind_of(run.name), every))) / 3600
    print(f"{len(left)} runs, about {hours / study.jobs:.1f} hours", flush=True)


def kind_of(name: str) -> str:
    """Returns the name of a run without its level, rate and seed: "refined" of "tuning/.../refined/lr0.01/seed101"."""
    return re.sub(r"tuning/|conflict[\d.]+_\d+skills[_/]|/?lr[\d.]+|/?seed\d+", "", name)


def tables(folder: Path) -> int:
    """Writes and prints the tables of a level, of all variants with finished runs, also of earlier calls."""
    order = [name for name in VARIANTS if any(folder.glob(f"{name}/*/finished"))]
    if not order:
        return 0
    print(f"\n{folder.name}:\n", flush=True)
    flags = [str(folder), "--gym_per_seed", "--order", *order]
    baseline = ["--baseline", "dense"] if "dense" in order else []
    code = call_here(["routing_moe.cli.overview", *flags, "--recovery", "skill"])
    return call_here(["routing_moe.cli.compare_runs", *flags, *baseline]) or code


def main(argv: list[str] | None = None) -> int:
    return run_study(compare, ConflictStudy, argv, f"{__doc__}{described()}")


if __name__ == "__main__":
    sys.exit(main())
