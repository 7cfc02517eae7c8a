"""The runs of the paper's study, and what each trains and answers, for the estimate of hours."""

import shlex
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from dataloader.task_splits import load_split
from routing_moe.studies.costed_runs import ABLATION, ROWS_OF_SAMPLE, STEP, Answering, CostedRun, Work
from routing_moe.studies.recipes import SCORES, UNSEEN_SCORES, TrainingRecipe, command, given_of
from routing_moe.studies.runs import Run
from routing_moe.studies.variants import REFINED_ROUTING, TWO_STAGES, UNREFINED, VARIANTS, Variant
from routing_moe.studies.vectors import reduce_command, vectors_command


class PaperRuns:
    """The runs of a `paper.PaperStudy`."""

    def __init__(self, study):
        self.folder, self.gym = study.output_dir, study.gym
        self.study = study = replace(study, custom_tasks_splits=study.split_file)
        self.recipe = TrainingRecipe.chosen(study).with_(
            gym=study.gym, total_steps=study.total_steps, eval_period=study.eval_period
        )
        self.split = load_split(study.custom_tasks_splits)
        # Some published files have lines that are broken by line feeds in their texts.
        malformed = not study.gym_is_given or (study.gym / "gym_report.csv").is_file()
        self.texts = [*shlex.split(study.text_flags), *(["--skip_malformed"] if malformed else [])]

    def all(self) -> list[Run]:
        """Returns all runs in the order in which they start, if they can."""
        study = self.study
        vectors = [run for kind in ("text", "fisher") if study.reads(kind) for run in self.vector_runs(kind)]
        trainings = [self.training(name, seed) for seed in study.seeds for name in study.variants]
        scorings = [self.zero_shot(run) for run in trainings]
        few_shot = [self.few_shot(name, seed) for seed in study.seeds for name in study.starts]
        figures = [self.figures(run) for run in trainings if run.name.split()[1].startswith("two_stage/")]
        return [*vectors, *trainings, *scorings, *few_shot, *figures]

    def run(
        self, step: str, name: str, folder: Path, result: str, command: list[str], needs=(), **fields
    ) -> CostedRun:
        log = self.folder / "logs" / f"{step}-{name.replace('/', '-')}.log"
        needs = (*needs, *self.recipe.embedded_run())
        return CostedRun(
            f"{step} {name}", folder, lambda: [command], tuple(needs), result, log=log, step=step, **fields
        )

    # ---- task vectors

    def vectors_of(self, kind: str) -> Path:
        """Returns the folder of the vectors that a variant is trained with."""
        return self.folder / "vectors" / ("text" if kind == "text" else f"fisher{self.study.dim}")

    def vector_runs(self, kind: str) -> list[CostedRun]:
        is_tuned = any(VARIANTS[name].vectors == kind for name in self.study.starts if name in VARIANTS)
        runs = [self.vectors(kind), *([self.vectors(kind, each=True)] if is_tuned else [])]
        if kind == "fisher":
            runs += [self.reduction(), *([self.reduction(each=True)] if is_tuned else [])]
        return runs

    def vectors(self, kind: str, each: bool = False) -> CostedRun:
        """Returns the run of vectors. each: of each sample of the unseen tasks, computed from its own rows."""
        study, work = self.study, ()
        name = f"{kind}_each" if each else kind
        flags = command(tasks=("test",) if each else ("train", "test"), samples="each" if each else None)
        if kind == "fisher":
            flags += command(total_steps=study.vector_steps, mixed_precision=self.recipe.mixed_precision)
            n_tests = len(self.split.test)
            n = n_tests * 5 if each else len(self.split.train) + n_tests
            work = (Work("plain", n * study.vector_steps, (8,), "test" if each else "train"),)
        folder = self.folder / "vectors" / name
        further = [*shlex.split(study.vector_flags), *self.texts, *flags]
        computing = vectors_command(self.recipe, kind, folder, *further, num_workers=study.num_workers)
        return self.run("vectors", name, folder, "meta.json", computing, work=work)

    def reduction(self, each: bool = False) -> CostedRun:
        folder, whole = self.vectors_of("fisher"), self.vectors("fisher", each)
        if not each:
            reducing = reduce_command(whole.folder, self.study.custom_tasks_splits, self.study.dim, folder)
            return self.run("reduction", folder.name, folder, "meta.json", reducing, (whole,))
        target = folder.with_name(f"{folder.name}_each")
        reducing = command("task.task_emb.reduce", taskvecs=whole.folder, like=folder, output_dir=target)
        return self.run(
            "reduction_each", target.name, target, "meta.json", reducing, (whole, self.reduction())
        )

    def reduced(self, kind: str, each: bool = False) -> CostedRun:
        """Returns the run whose vectors a variant or its few-shot fine-tuning reads."""
        return self.vectors("text", each) if kind == "text" else self.reduction(each)

    # ---- trainings

    def training(self, name: str, seed: int) -> CostedRun:
        variant = VARIANTS[name]
        if variant.module == TWO_STAGES:
            return self.two_stages(name, seed)
        if variant.module == REFINED_ROUTING:
            return self.gradient_routing(name, seed)
        folder, needs, recipe = self.run_folder(name, seed), (), self.recipe
        if variant.vectors:
            needs = (self.reduced(variant.vectors),)
            recipe = recipe.with_(taskvecs=self.vectors_of(variant.vectors))
        flags = [*variant.flags.format(clusters=self.study.clusters).split(), *self.training_flags(seed)]
        flags += command(init_eps=self.study.init_eps) if variant.experts else []
        flags += shlex.split(self.study.router_flags) if variant.router else []
        return self.trained(
            *("training", name, seed, recipe.train(folder, *flags, "--resume"), needs),
            work=(Work(variant.steps, self.study.total_steps),),
            evaluations=-(-self.study.total_steps // self.study.eval_period),
        )

    def trained(
        self, step: str, name: str, seed: int, command: list[str], needs=(), *, work: tuple, evaluations: int
    ) -> CostedRun:
        """Returns a training. evaluations: how often it answers the dev files of train tasks."""
        costs = dict(work=work, answers=self.answers(VARIANTS[name], evaluations))
        return self.run(
            step, f"{name}/seed{seed}", self.run_folder(name, seed), SCORES, command, needs, **costs
        )

    def run_folder(self, name: str, seed: int) -> Path:
        return self.folder / "runs" / name / f"seed{seed}"

    def training_flags(self, seed: int) -> list[str]:
        return ["--seed", str(seed), *self.texts, *shlex.split(self.study.train_flags)]

    def answers(self, variant: Variant, evaluations: int) -> tuple[Answering, ...]:
        """Returns what a training answers: dev files at its evaluations, then dev and test files."""
        most = limit_in(self.study.train_flags)
        return (
            Answering(variant.answers, "train", "dev", times=variant.draws * evaluations),
            Answering(variant.answers, "train", "dev", most=most, times=variant.draws),
            Answering(variant.answers, "train", "test", most=most, times=variant.draws),
        )

    def gradient_routing(self, name: str, seed: int) -> CostedRun:
        study, folder, flags = self.study, self.run_folder(name, seed), self.training_flags(seed)
        steps = study.total_steps - study.dense_steps
        vector_flags = [*self.texts, *shlex.split(study.gradient_flags)]
        vector_flags += command(mixed_precision=self.recipe.mixed_precision, tasks=("train", "test"))
        routing = command(
            REFINED_ROUTING,
            **given_of(study, ("eval_period", "dense_steps", "clusters", "zero_shot_flags", "init_eps")),
            **dict(output_dir=folder, total_steps=steps, from_model=name != "gradient_upcycled", **UNREFINED),
            **dict(dense_flags=shlex.join(flags), vector_flags=shlex.join(vector_flags)),
            **dict(each_sample=True, resume=True),
            **self.data(),
            further=flags,
        )
        # Gradients of rows take as long as steps of as many.
        gradients = (len(self.split.train) + 6 * len(self.split.test)) * 6 * ROWS_OF_SAMPLE // STEP
        return self.trained(
            *("training", name, seed, routing),
            work=(Work("plain", study.dense_steps + gradients), Work("random", steps)),
            evaluations=-(-steps // study.eval_period),
        )

    def data(self) -> dict:
        """Returns the flags of model and data for a command of this package."""
        files = given_of(self.study, ("model", "custom_tasks_splits", "train_dir"))
        return dict(files, mixed_precision=self.recipe.mixed_precision)

    def two_stages(self, name: str, seed: int) -> CostedRun:
        study, folder, flags = self.study, self.run_folder(name, seed), self.training_flags(seed)
        first = "fisher" if name == "fisher_two_stage" else "straight_through"
        step, needs, work = "stage2", (self.training(first, seed),), ()
        start = dict(stage1=self.run_folder(first, seed))
        if study.stage1_steps != study.total_steps:
            step, needs, work = "training", (), (Work("straight_through", study.stage1_steps),)
            stage1_flags = [*flags, *command(init_eps=study.init_eps), *shlex.split(study.router_flags)]
            start = {}
            if first == "fisher":
                stage1_flags.append("--freeze_task_model")
                needs, start = (self.reduced("fisher"),), dict(taskvecs=self.vectors_of("fisher"))
            start |= dict(stage1_flags=shlex.join(stage1_flags))
        steps, period, until = study.stage2_steps, study.stage2_eval_period, study.stage2_steps // 4
        both = command(
            TWO_STAGES,
            **given_of(study, ("eval_period", "stage2_steps", "stage2_eval_period", "init_eps")),
            **dict(output_dir=folder, total_steps=study.stage1_steps),
            **self.data(),
            **start,
            further=flags,
        )
        evaluations = -(-steps // period) - ((until - 1) // period if until else 0)
        return self.trained(
            *(step, name, seed, both, needs), work=(*work, Work("dense", steps)), evaluations=evaluations
        )

    # ---- what is made of a training

    def zero_shot(self, run: CostedRun) -> CostedRun:
        flags = self.study.zero_shot_flags
        name = run.name.split()[1]
        variant, most = VARIANTS[name.split("/")[0]], limit_in(flags)
        answers = tuple(
            Answering(variant.answers, "test", part, most=most, times=variant.draws)
            for part in ("dev", "test")
        )
        predicting = self.recipe.predict_unseen(run.folder, *shlex.split(flags))
        return self.run("zero_shot", name, run.folder, UNSEEN_SCORES, predicting, (run,), answers=answers)

    def few_shot(self, name: str, seed: int) -> CostedRun:
        study, folder = self.study, self.folder / "few_shot" / name / f"seed{seed}"
        variant = VARIANTS.get(name, VARIANTS["multitask"])  # direct: a plain BART too
        is_direct = name not in VARIANTS
        needs = () if is_direct else (self.training(name, seed),)
        vectors = None
        if variant.vectors == "gradient":
            vectors = self.run_folder(name, seed) / "vectors_each"
        elif variant.vectors:
            reduced = self.reduced(variant.vectors, each=True)
            vectors, needs = reduced.folder, (*needs, reduced)
        start = "None" if is_direct else self.run_folder(name, seed)
        tuning = command(
            *("routing_moe.studies.finetuning", variant.start, "test", start, name),
            **given_of(study, ("learning_rate_list", "bsz_list", "warmup_steps", "num_workers", "samples")),
            **dict(total_steps=study.few_shot_steps, eval_period=study.few_shot_eval_period),
            **dict(results_dir=folder, seed=seed, taskvecs=vectors),
            **self.data(),
            further=(*self.texts, *shlex.split(study.few_shot_flags)),
        )
        return self.run(
            *("few_shot", f"{name}/seed{seed}", folder, "summary.csv", tuning, needs),
            **self.cost_of_few_shot(variant),
            partial=True,
        )

    def cost_of_few_shot(self, variant: Variant) -> dict:
        """Returns the work and the answers of fine-tuning on all test tasks."""
        study = self.study
        # Soft routes keep all experts; others are converted into a plain BART.
        kind = "random" if variant.draws > 1 else "dense" if variant.answers == "dense" else "plain"
        n_samples = 5 if study.samples == ("all",) else len(study.samples)
        runs = len(self.split.test) * n_samples * len(study.learning_rate_list)
        times = variant.draws * len(study.learning_rate_list) * len(study.bsz_list)
        evaluations = -(-study.few_shot_steps // study.few_shot_eval_period)
        most = limit_in(study.few_shot_flags)
        return dict(
            work=(Work(kind, runs * study.few_shot_steps, study.bsz_list, "test"),),
            answers=(
                Answering(variant.answers, "test", "dev", study.samples, times=times * evaluations),
                Answering(variant.answers, "test", "test", study.samples, most, times),
            ),
        )

    def figures(self, run: CostedRun) -> CostedRun:
        name, ablates = run.name.split()[1], self.study.ablate_flags
        drawing = command("routing_moe.studies.understand", run.folder, ablate_flags=ablates)
        answers = (Answering("dense", "train", "dev", times=ABLATION),) if ablates == "--features all" else ()
        return self.run(
            "figures", name, run.folder / "analysis", "report.html", drawing, (run,), answers=answers
        )


def limit_in(flags: str) -> int | None:
    """Returns the value of --predict_max_examples in flags."""
    line = shlex.split(flags)
    limits = [value for flag, value in pairwise(line) if flag == "--predict_max_examples"]
    return int(limits[-1]) if limits else None
