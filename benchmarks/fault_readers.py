"""An example of every kind of file that the commands read, with the code that reads it.

A reader returns if it accepts the files and raises InputError if it refuses them. It runs as much of its
command as comes before the first result. Models also predict one example, to detect settings that load but
fail.
"""

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks import fault_mutations as ways
from benchmarks.fault_commands import (
    SOFT,
    Command,
    Commands,
    must_succeed,
    tiny_grids,
    tiny_runs,
    tiny_vectors,
)
from dataloader.encoding import encode
from dataloader.ontology import Ontology
from routing_moe import RoutingBartForConditionalGeneration
from routing_moe.analysis.ablation.checks import check_ablation
from routing_moe.analysis.ablation.job import AblationJob
from routing_moe.analysis.features import features_of
from routing_moe.analysis.runs import read_runs
from routing_moe.checkpoints.find import checkpoint_to_resume, find_mixture
from routing_moe.checkpoints.merge_stages import check_merge, merge
from routing_moe.checkpoints.start import load_start
from routing_moe.config.ablate import ablation_settings
from routing_moe.config.explain import ReportSettings
from routing_moe.config.finetune import FinetuneSettings, finetune_settings
from routing_moe.config.flags import parse
from routing_moe.config.merge import MergeSettings
from routing_moe.config.train import TrainSettings, train_settings
from routing_moe.evaluation.scored_files import decoding_of
from routing_moe.evaluation.scoring import predict
from routing_moe.finetuning.checks import check_finetuning
from routing_moe.finetuning.grid import Grid, start_checksums
from routing_moe.io.accelerator import make_accelerator
from routing_moe.model.loading import load_routing_bart
from routing_moe.model.task_vectors import load_task_vectors, save_task_vectors
from routing_moe.report.ablation_run import described, load_evaluator
from routing_moe.report.data import report_data
from routing_moe.results.compared_costs import Compared, cost_markdown, cost_table, curves, find_costs
from routing_moe.results.compared_runs import find_runs
from routing_moe.results.few_shot import read_results
from routing_moe.results.scores import ScoresFile
from routing_moe.training.checks import check_inputs
from routing_moe.training.prediction import task_files
from routing_moe.training.trainer import Training
from task.task_emb import command as vector_command
from task.task_emb.fisher import FisherSettings
from task.task_emb.sources import Descriptions

SAMPLE = "colour_12_100"  # the mutated sample of a task
GRID = dict(samples="first", learning_rate_list=[0.03], total_steps=2, eval_period=1)
FISHER = dict(tasks=["colour", "count"])
PUBLISHED_NAMES = (
    (r"^router\.units\.(\d+)\.hidden\.", r"router.model.router_units.\1.linear1."),
    (r"^router\.units\.(\d+)\.output\.", r"router.model.router_units.\1.linear2."),
    (r"\.experts\.", ".blocks."),
)


class Place:
    """A folder with files of every kind; the commands themselves write those of runs."""

    def __init__(self, folder: Path):
        self.folder, self.run = folder, folder / "runs/moe/seed42"
        self.commands = Commands(folder)
        self.gym, self.bart = self.commands.world.gym, self.commands.world.bart
        self.originals: dict[Path, bytes] = {}

    def make(self, kinds: Iterable[str]) -> None:
        """Writes the files that these kinds need, and reads the originals into memory."""
        self.write_by_hand()
        used = [KINDS[name] for name in kinds]
        if not WITHOUT_RUNS.issuperset(kind.read for kind in used):
            self.write_by_commands()
            self.write_published()
        self.originals = {path: path.read_bytes() for path in {self.folder / kind.path for kind in used}}

    def write_by_hand(self) -> None:
        torch.manual_seed(0)
        path = self.gym / "opposite/opposite_12_100_train.tsv"
        rows = [line.split("\t") for line in path.read_text().splitlines()]
        lines = [
            dict(input=source, outputs=outputs, options=[*outputs, "other"]) for source, *outputs in rows
        ]
        path.with_suffix(".jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        path.unlink()
        cells = [f"{task},{n % 2},{len(task)},{task[0]}\n" for n, task in enumerate(tiny_runs.ROWS)]
        (self.gym / "skills.csv").write_text("task,odd:yes,size,letter\n" + "".join(cells))
        (self.folder / "descriptions.json").write_text(json.dumps(tiny_vectors.SENTENCES))
        (self.folder / "vectors").mkdir()
        save_task_vectors(self.folder / "vectors", list(tiny_runs.ROWS), torch.randn(4, 8).numpy())

    def write_by_commands(self) -> None:
        """A run with its ablation, a grid, a folder of task vectors."""
        ran = {
            "routing_moe.cli.train": (self.run, self.training_words()),
            "routing_moe.cli.ablate": (self.run, [str(self.run)]),
            "routing_moe.cli.finetune": (self.folder / "grid/naming", self.grid_words()),
            "task.task_emb.fisher": (self.folder / "fisher", self.fisher_words()),
        }
        for module, (folder, words) in ran.items():
            base = self.folder / "trained" if module.endswith("ablate") else None
            if base:
                self.run.rename(base)
            must_succeed(Command(f"made_by_{module}", module, words, folder, base=base))

    def write_published(self) -> None:
        """A run folder as the published code writes it, and a plain BART's weights in a .pt file."""
        model = load_routing_bart(RoutingBartForConditionalGeneration, self.run / "best")
        folder = self.folder / "published"
        (folder / "best").mkdir(parents=True)
        state = {name: tensor for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
        vectors_ND = state.pop("task_vectors.weight").numpy()
        for ours, theirs in PUBLISHED_NAMES:
            state = {re.sub(ours, theirs, name): tensor for name, tensor in state.items()}
        torch.save(state, folder / "best/model.pt")
        save_task_vectors(folder / "best", model.config.task_names, vectors_ND)
        config = model.config
        own = ("router_nn_type", "router_mode", "router_hidden_dim")
        fields = config.to_bart_config().to_dict() | {name: getattr(config, name) for name in own}
        (folder / "config.json").write_text(json.dumps(fields | {"router_block_num": config.num_experts}))
        torch.save(
            model.to_bart(model.expected_routes(["colour"], 1.0)[0]).state_dict(), self.folder / "plain.pt"
        )

    # ---- command lines

    def training_words(self, folder: Path | None = None, **changed) -> list[str]:
        changed = SOFT | dict(do_predict=True) | changed
        return tiny_runs.flags(self.gym, self.bart, folder or self.run, **changed)

    def grid_words(self) -> list[str]:
        gym = self.commands.few_shot_gym
        return tiny_grids.grid_flags(gym, self.bart, self.folder / "grid/naming", **GRID)

    def fisher_words(self) -> list[str]:
        return tiny_vectors.flags("fisher", self.gym, self.bart, self.folder / "fisher", **FISHER)

    # ---- readers

    def read_gym(self) -> None:
        self._train_until_the_first_step(self.folder / "new")

    def read_resumed(self) -> None:
        self._train_until_the_first_step(self.run, resume=True)

    def read_with_vectors(self) -> None:
        given = dict(taskvecs=self.folder / "vectors", vanilla_checkpoint=self.folder / "plain.pt")
        self._train_until_the_first_step(self.folder / "new", **given, taskvecs_dim=None)

    def _train_until_the_first_step(self, folder: Path, **changed) -> None:
        settings = train_settings(parse(TrainSettings, self.training_words(folder, **changed)))
        inputs = check_inputs(settings)
        model, tokenizer = load_start(settings, inputs.split)
        task_ids = {name: row for row, name in enumerate(model.config.task_names)}
        examples = encode(
            inputs.train_gym.pool(inputs.split.train, "train"), tokenizer, inputs.text_format, task_ids
        )
        files = task_files(settings.evaluation, inputs, inputs.split.train, "dev", model, tokenizer)
        training = Training(
            model, tokenizer, examples, files, inputs.ontology, settings, make_accelerator(), None
        )
        if checkpoint := checkpoint_to_resume(settings):
            training.load_state(checkpoint)
            training.stepper.step(0)

    def read_prediction(self) -> None:
        settings = train_settings({"do_predict": True, "output_dir": str(self.run)})
        inputs = check_inputs(settings)
        model, tokenizer = load_start(settings, inputs.split)
        files = task_files(settings.evaluation, inputs, ["colour"], "dev", model, tokenizer)
        predict(model, tokenizer, files, decoding_of(settings), make_accelerator())

    def read_merge(self) -> None:
        words = dict(routes_from=self.run, model=self.bart, output_dir=self.folder / "new")
        settings = MergeSettings(**parse(MergeSettings, tiny_runs.typed(words)))
        merge(settings, check_merge(settings))

    def read_published(self) -> None:
        model = find_mixture(self.folder / "published", None, "checkpoint_name").load()
        model.expected_routes(["colour"], 1.0)

    def read_vectors(self) -> None:
        load_task_vectors(self.folder / "vectors")

    def read_fisher(self) -> None:
        vector_command.check(
            vector_command.settings_of(FisherSettings, parse(FisherSettings, self.fisher_words()))
        )

    def read_grid(self) -> None:
        inputs = check_finetuning(finetune_settings(parse(FinetuneSettings, self.grid_words())))
        Grid(inputs.settings, inputs.gym).load(
            start_checksums(inputs.settings.start, inputs.start, inputs.settings.text_vectors)
        )

    def read_results(self) -> None:
        read_results("naming", self.folder / "grid/naming/results.csv")

    def read_features(self) -> None:
        features_of(tuple(tiny_runs.TRAIN_TASKS), Ontology.load(self.gym / "ontology.json"), self.gym)

    def read_descriptions(self) -> None:
        Descriptions(self.folder / "descriptions.json")

    def read_ablation(self) -> None:
        settings = ablation_settings({"run": self.run})
        inputs = check_ablation(settings)
        evaluator = load_evaluator(settings, inputs, make_accelerator())
        job = AblationJob(evaluator, settings.output_dir, described(settings, evaluator))
        job.missing(job.all_experts())

    def read_report(self) -> None:
        report_data(read_runs([self.run]), ReportSettings(runs=[], permutations=1))

    def read_comparison(self) -> None:
        compared = Compared(find_costs(self.folder / "runs", find_runs(self.folder / "runs", ScoresFile())))
        if compared.finished:  # else the command says that no run is finished
            cost_markdown(compared, cost_table(compared))
        curves(compared.costs)


@dataclass(frozen=True)
class Kind:
    """A file in the place, its reader, and the mutations that use its format."""

    path: str
    read: Callable[[Place], None]
    inside: tuple[ways.Mutation, ...] = ()


WITHOUT_RUNS = {Place.read_gym, Place.read_features, Place.read_descriptions, Place.read_vectors}
RUN, JSON, NPY = "runs/moe/seed42", (ways.in_json,), (ways.in_npy,)
KINDS = {
    "tsv": Kind(f"gym/colour/{SAMPLE}_train.tsv", Place.read_gym),
    "dev_tsv": Kind(f"gym/colour/{SAMPLE}_dev.tsv", Place.read_gym),
    "jsonl": Kind("gym/opposite/opposite_12_100_train.jsonl", Place.read_gym, (ways.in_json_lines,)),
    "split": Kind("gym/split.json", Place.read_gym, JSON),
    "metrics": Kind("gym/metrics.json", Place.read_gym, JSON),
    "ontology": Kind("gym/ontology.json", Place.read_gym, JSON),
    "features": Kind("gym/skills.csv", Place.read_features),
    "descriptions": Kind("descriptions.json", Place.read_descriptions, JSON),
    "npy": Kind("vectors/task_vecs.npy", Place.read_vectors, NPY),
    "id2task": Kind("vectors/id2task.json", Place.read_with_vectors, JSON),
    "vanilla_pt": Kind("plain.pt", Place.read_with_vectors, (ways.in_state,)),
    "bart_config": Kind("bart/config.json", Place.read_merge, JSON),
    "bart_safetensors": Kind("bart/model.safetensors", Place.read_merge, (ways.in_safetensors,)),
    "tokenizer": Kind("bart/tokenizer.json", Place.read_merge, JSON),
    "config": Kind(f"{RUN}/best/config.json", Place.read_prediction, JSON),
    "generation_config": Kind(f"{RUN}/best/generation_config.json", Place.read_prediction, JSON),
    "safetensors": Kind(f"{RUN}/best/model.safetensors", Place.read_prediction, (ways.in_safetensors,)),
    "run_json": Kind(f"{RUN}/run.json", Place.read_prediction, JSON),
    "run_json_resumed": Kind(f"{RUN}/run.json", Place.read_resumed, JSON),
    "training_state": Kind(f"{RUN}/last/training_state.pt", Place.read_resumed, (ways.in_state,)),
    "published_config": Kind("published/config.json", Place.read_published, JSON),
    "published_pt": Kind("published/best/model.pt", Place.read_published, (ways.in_state,)),
    "published_npy": Kind("published/best/task_vecs.npy", Place.read_published, NPY),
    "grid_run_json": Kind("grid/naming/run.json", Place.read_grid, JSON),
    "configuration": Kind("grid/naming/configurations/naming_12_100_lr0.03_bsz6.json", Place.read_grid, JSON),
    "results": Kind("grid/naming/results.csv", Place.read_results),
    "vectors_run_json": Kind("fisher/run.json", Place.read_fisher, JSON),
    "npz": Kind("fisher/by_task/count.npz", Place.read_fisher, (ways.in_zip,)),
    "ablation_set": Kind(f"{RUN}/analysis/ablation/sets/enc0.0.json", Place.read_ablation, JSON),
    "ablation_job": Kind(f"{RUN}/analysis/ablation/job.json", Place.read_ablation, JSON),
    "ablation_table": Kind(f"{RUN}/analysis/ablation/tasks.csv", Place.read_report),
    "routes": Kind(f"{RUN}/2-steps/route.npy", Place.read_report, NPY),
    "route_tasks": Kind(f"{RUN}/2-steps/route_tasks.txt", Place.read_report),
    "losses": Kind(f"{RUN}/losses.csv", Place.read_report),
    "curves": Kind(f"{RUN}/curves.csv", Place.read_report),
    "predictions": Kind(
        f"{RUN}/best/predictions/{SAMPLE}_test.jsonl", Place.read_report, (ways.in_json_lines,)
    ),
    "scores": Kind(f"{RUN}/best/eval-test-performance.csv", Place.read_comparison),
    "cost": Kind(f"{RUN}/cost.json", Place.read_comparison, JSON),
    "progress": Kind(f"{RUN}/best/checkpoint.json", Place.read_comparison, JSON),
    "dev_results": Kind(f"{RUN}/2-steps/dev_results.csv", Place.read_comparison),
    "eval_settings": Kind(f"{RUN}/best/eval-settings.json", Place.read_comparison, JSON),
}
