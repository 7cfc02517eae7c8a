"""Compare methods of computing task vectors: train both stages with each method and several seeds; tables of scores.

    bash example_scripts/compare_task_vectors.sh
    routing-moe study task-vectors --seeds 1 2 3 4 5 --kinds random fisher

Vectors of random, text, finetuned_text, fisher and descriptions are frozen; those of trained are initialised at
random, with a dimension of their own, and trained. Train tasks are scored, and unseen tasks without training the
model on them: routed by their own vectors, and with trained by that of the nearest train task by text vectors.
Scores of unseen tasks are not zero-shot if their vectors are computed from labels. Data of an unseen task that
its vector has seen: random and descriptions none; text unlabelled inputs; finetuned_text and fisher labelled
rows (of all samples on the embedded gym, otherwise of one); trained, through the text vectors, unlabelled inputs
of one sample. One line per method before the tables, and the column vector_seen of all scores, state it.

--output_dir gets vectors/, runs/<method>/seed<seed>/, and the comparisons in train/ and test/. A second call keeps
finished runs and continues the others. The flags of stage 2 are those of run_two_stage.sh.
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path

from dataloader.jsonfile import load_json_object
from routing_moe.config.flags import AT_LEAST_1, SEED, group
from routing_moe.studies.recipes import UNSEEN_SCORES, DataFlags, TrainingRecipe, number, words
from routing_moe.studies.runs import Run, call_here, report_unfinished
from routing_moe.studies.study import RUNNING, Study, run_study
from routing_moe.studies.two_stages import StageFlags
from routing_moe.studies.variants import TWO_STAGES
from routing_moe.studies.vectors import reduce_command

COMPARED = group("what is compared")
TRAINED = "trained"
KINDS = (TRAINED, "random", "text", "finetuned_text", "fisher", "descriptions")


@dataclass(frozen=True, kw_only=True)
class TaskVectorsStudy(StageFlags, Study):
    # fmt: off
    program = "routing-moe study task-vectors"
    takes_further = False

    output_dir: Path = RUNNING(Path("models/compare_task_vectors"), "folder of the study", on_resume=True)
    kinds: tuple[str, ...] = COMPARED(KINDS, "methods; the first is the baseline of differences", choices=KINDS, on_resume=True)
    seeds: tuple[int, ...] = COMPARED((42, 43, 44), "seeds of each method", range=SEED, on_resume=True)
    dim: int | None = COMPARED(None, "dimension of the vectors, all but random ones reduced by principal components (default: 64; on the embedded gym 16)", range=AT_LEAST_1)
    # fmt: on

    def resolved(self) -> "TaskVectorsStudy":
        return replace(self, dim=self.dim or (64 if self.train_dir else 16), taskvecs=None)


@dataclass(frozen=True)
class Runs:
    """The runs of the study. recipe: of the vectors and of the trainings."""

    study: TaskVectorsStudy
    recipe: TrainingRecipe

    def vectors(self, kind: str) -> Run:
        """Vectors of all tasks; no dev or test file is read."""
        folder = self.study.output_dir / "vectors" / kind
        if kind == "random":
            return self.computed(kind, folder, "--taskvecs_dim", str(self.study.dim))
        raw = self.computed(kind, self.study.output_dir / "raw_vectors" / kind)
        transform = "log" if kind == "fisher" else "none"
        split, dim = self.recipe.split_file, self.study.dim
        command = reduce_command(raw.folder, split, dim, folder, "--transform", transform)
        return Run(f"vectors/{kind}", folder, lambda: [command], needs=(raw,), result="meta.json")

    def computed(self, kind: str, folder: Path, *flags: str) -> Run:
        data = self.study.as_words(DataFlags, self.recipe.model)
        command = words("routing_moe.studies.vectors", kind, *data, "--output_dir", folder, *flags)
        name, needs = f"{folder.parent.name}/{kind}", self.recipe.embedded_run()
        return Run(name, folder, lambda: [command], needs=needs, result="meta.json")

    def run(self, kind: str, seed: int) -> Run:
        """Both stages with vectors of a kind, and the scores of unseen tasks."""
        folder = self.study.output_dir / "runs" / kind / f"seed{seed}"
        vectors = () if kind == TRAINED else (self.vectors(kind),)
        study = replace(self.study, taskvecs=vectors[0].folder if vectors else None)
        frozen = "--freeze_task_model " if vectors else ""
        stages = words(
            *(TWO_STAGES, "--output_dir", folder, *study.as_words(StageFlags, self.recipe.model)),
            *(f"--stage1_flags={frozen}--seed {seed}", "--seed", seed),
        )
        predict = words(
            "routing_moe.cli.train", "--do_predict", "--predict_split", "test", "--output_dir", folder
        )
        needs = vectors or self.recipe.embedded_run()
        return Run(f"{kind}/seed{seed}", folder, lambda: [stages, predict], needs=needs, result=UNSEEN_SCORES)

    def seen_by(self, kind: str) -> str:
        """Returns what the vectors of a kind have seen of an unseen task, as in their meta.json."""
        if kind == TRAINED:
            return "unlabelled inputs of one sample"
        file = self.vectors(kind).folder / "meta.json"
        meta = load_json_object(file, "task vectors") if file.is_file() else {}
        return meta.get("seen", "unknown")


def compare(study: TaskVectorsStudy) -> int:
    recipe = TrainingRecipe.chosen(study)
    kinds, seeds = " ".join(study.kinds), " ".join(map(str, study.seeds))
    steps = f"stage 1: {recipe.total_steps} steps, learning rate {number(recipe.rate())}"
    compared = f"model {recipe.model}, vectors: {kinds}; seeds: {seeds}"
    print(recipe.announced(compared, f"{steps}; {study.jobs} at a time", study.output_dir), flush=True)
    recipe.set_threads()
    runs = Runs(study, recipe)
    exit_code = report_unfinished(
        study.runner().run(runs.run(kind, seed) for seed in study.seeds for kind in study.kinds)
    )
    for kind in study.kinds:
        print(f"{kind}: data of an unseen task that its vector has seen: {runs.seen_by(kind)}", flush=True)
    for section in ("train", "test"):
        flags = words("--predict_split", section, "--order", *study.kinds, "--baseline", study.kinds[0])
        folder, tables = study.output_dir / "runs", study.output_dir / section
        command = words("routing_moe.cli.compare_runs", folder, *flags, "--output_dir", tables)
        exit_code = call_here(command) or exit_code
    return exit_code


def main(argv: list[str] | None = None) -> int:
    return run_study(compare, TaskVectorsStudy, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
