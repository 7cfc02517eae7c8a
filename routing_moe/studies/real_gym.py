"""Real tasks: what do dividing the tasks, their groups, more parameters and knowing the task gain over one BART?

    bash example_scripts/real_gym_study.sh train --train_dir data/gym --dry_run     its runs, and their hours here
    bash example_scripts/real_gym_study.sh train --train_dir data/gym
    bash example_scripts/real_gym_study.sh unseen --train_dir data/gym
    bash example_scripts/real_gym_study.sh labels --train_dir data/gym

PART    train: arms that continue the same dense run of a small BART that knows English for the same number of steps,
        each with a learning rate chosen by dev answer loss, scored on test files of the train tasks
        unseen: few-shot fine-tuning on the tasks of other sections, from arms of the first part
        labels: arms on a copy of the gym with opaque names, in which half of the classification tasks have a twin with
        the same rows and permuted labels (routing-moe conflict-gym relabel)

The primary measure is the answer loss (nats per token), then rank accuracy, then the tasks' own metrics. tables/ has
them with intervals over seeds, the smallest detectable effects, and per-task scores of every run. The same command
continues after an interruption; a call with other --arms, --starts or --seeds adds to the folder.

"""

import sys
from functools import partial

from routing_moe.studies.real_arms import LABELS, TRAIN
from routing_moe.studies.real_arms import described as described_arms
from routing_moe.studies.real_runs import Branches
from routing_moe.studies.real_settings import RealLabels, RealStudy, RealTrain, RealUnseen
from routing_moe.studies.real_starts import described as described_starts
from routing_moe.studies.real_tables import tables_of_arms, tables_of_starts
from routing_moe.studies.real_unseen import UnseenRuns
from routing_moe.studies.runs import call_here, minutes, report_unfinished, run_in_turn
from routing_moe.studies.study import part_of, run_study, words_of

PARTS = {
    TRAIN: (RealTrain, Branches, tables_of_arms, f"arms:\n{described_arms(TRAIN)}"),
    "unseen": (RealUnseen, UnseenRuns, tables_of_starts, f"starts:\n{described_starts()}"),
    LABELS: (RealLabels, Branches, tables_of_arms, f"arms:\n{described_arms(LABELS)}"),
}


def compare(part: str, flags: list[str], study: RealStudy) -> int:
    """flags: the command line, for --dry_run."""
    settings, kind, tables, _ = PARTS[part]
    if study.dry_run:  # timing needs the code of benchmarks/, which is above this package
        return call_here(["benchmarks.reproduction", f"real-gym-{part}", *words_of(settings, flags)])
    runs = kind(study)
    seeds = " ".join(map(str, study.seeds))
    title = f"real tasks, {part}; model {study.model}"
    print(runs.recipe.announced(title, f"seeds {seeds}", study.output_dir), flush=True)
    for note in study.notes():
        print(f"note: {note}", flush=True)
    runner = study.runner()
    if code := run_in_turn(runs.before()):
        return code
    # All of them before the arms, so that these have the same rate with all seeds.
    unfinished = runner.run(runs.tuning())
    runs.choose_rates()
    unfinished += runner.run(runs.arms())
    status = report_unfinished(list(dict.fromkeys(unfinished)))
    print(f"All runs, including earlier calls: {minutes(study.output_dir):.1f} minutes", flush=True)
    return tables(runs) or status


def main(argv: list[str] | None = None) -> int:
    part, flags = part_of(argv, "PART", {name: name for name in PARTS})
    settings, *_, text = PARTS[part]
    return run_study(partial(compare, part, flags), settings, flags, f"{__doc__}{text}")


if __name__ == "__main__":
    sys.exit(main())
