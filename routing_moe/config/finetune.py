"""The flags of `routing-moe finetune`. Names are those of CrossFit's tune_hps_singletask.py."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import ClassVar

from routing_moe.config.choices import ROUTE_TRAININGS, VECTOR_SOURCES
from routing_moe.config.flags import AT_LEAST_1, NEVER, NOT_NEGATIVE, POSITIVE, REQUIRED, SEED, group
from routing_moe.config.measures import MEASURES, PERFORMANCE, further
from routing_moe.config.plugins import load_plugin
from routing_moe.config.shared import BART_BASE, OPTIMISATION, RunFlags, Start, StepSettings, step_settings_of

DATA = group("data")
START = group("where fine-tuning starts")
ROUTE = group("the task's route through a mixture")
GRID = group("the grid")
RUNNING = group("running, evaluating, saving")
NO_CHECKPOINT = ("None", "")  # what the published scripts pass if there is none
PUBLISHED_GRID = {"learning_rate_list": [1e-5, 2e-5, 5e-5], "bsz_list": [2, 4, 8]}
LOGIT_RATES = [0.03, 0.1, 0.3]
SINGLE = {"learning_rate_list": "learning_rate", "bsz_list": "train_batch_size"}


@dataclass(frozen=True, order=True)
class Configuration:
    """A point of the grid: sample, learning rate, batch size; if the last two are None, the start is scored.

    Sorted by these fields; of configurations with equal scores the first is the best.
    """

    prefix: str
    lr: float | None
    bsz: int | None

    @property
    def name(self) -> str:
        """The name of the configuration's files."""
        return self.prefix if self.lr is None else f"{self.prefix}_lr{self.lr!r}_bsz{self.bsz}"

    def __str__(self) -> str:
        return f"prefix={self.prefix}" + ("" if self.lr is None else f", lr={self.lr:g}, bsz={self.bsz}")


# fmt: off
@dataclass(frozen=True, kw_only=True)
class FinetuneSettings(RunFlags):
    """The settings of a grid. After the checks, samples lists prefixes, and the two lists are not empty.

    on_resume here: may differ when a grid is continued or extended, since no configuration's result changes.
    """

    program = "routing-moe finetune"
    groups = ("data", "where fine-tuning starts", "the task's route through a mixture", "texts and decoding", "the grid", "optimisation", "running, evaluating, saving")
    source_flags: ClassVar[Mapping[str, str]] = {"moe_avg_route": "average", "moe_random_route": "random", "moe_random2_route": "fixed", "task_routes": "fixed"}

    task_dir: str = DATA(REQUIRED, "the task's folder, with <task>_<k>_<seed>_{train,dev,test}.tsv or .jsonl", is_path=True)
    dataset: str | None = DATA(None, "the task's name, which must be that of its folder (default: that name)")
    samples: tuple[str, ...] = DATA(("all",), "which samples of the task: all, first, or seeds such as 100 13", metavar="SAMPLE", on_resume=True)
    skip_malformed: bool = DATA(False, "leave out malformed lines of task files instead of stopping")
    debug: bool = DATA(False, "read only 8 examples of every file, evenly spaced")

    model: str = START(BART_BASE, "plain model, a hub name or a folder: the start if no other is given, and the tokenizer of a start without one", is_path=True)
    checkpoint: str | None = START(None, "plain model to start from: a run with one expert, a saved folder, a hub name, or a file of weights for --model (default: --model)", is_path=True)
    moe_init: bool = START(False, "start from the mixture in --init_dir, with a route for the task")
    init_dir: str | None = START(None, "run (ours or of the published code), checkpoint or hub name owner/name[@revision] of the mixture", is_path=True)
    init_checkpoint_name: str | None = START(None, "which checkpoint of the run (default: best)")
    freeze_embeds: bool = START(False, "do not train the embeddings of tokens and positions, and the norms after them: everything outside the layers stays")

    moe_avg_route: bool = ROUTE(False, "every expert with weight 1/E")
    moe_random_route: bool = ROUTE(False, "in every layer a random expert for each example, drawn again at every step")
    moe_random2_route: bool = ROUTE(False, "in every layer a random expert for the task, drawn once (the route of the run, if it has one for the task)")
    task_routes: str | None = ROUTE(None, "file with the task's route: .json or .npy, as for --task_routes of training; or lowest_loss: the route of lowest loss on the sample's labelled train rows, of the routes of the mixture's train tasks", metavar="FILE", is_path=True)
    route_training: str | None = ROUTE(None, "plain: convert the route into a plain model, by the expert of largest weight in each layer; fixed: train the experts and keep the route; vector: also train the task's vector; router: also train vector and router; merged: the plain model whose layers are the means of the experts' parameters with the route's weights; logits: train only the route, as the softmax of logits, starting from the task's route, with the learning rates of the grid and without weight decay. With random routes for each example, the last two start from equal weights (default: plain if the route is equivalent to a plain model, as one-hot routes are, else fixed)", choices=ROUTE_TRAININGS)
    task_vector: str = ROUTE("auto", "the vector that the router reads. stored: that of the run; nearest: that of the task with the texts most similar to the sample's unlabelled train inputs; learned: one learned from the sample's labelled train rows; auto: stored, or nearest if the run has no learned or given vector of the task. The column vector_seen of the results shows what the vector has seen of the task", choices=VECTOR_SOURCES)
    taskvecs: str | None = ROUTE(None, "folder with id2task.json and task_vecs.npy with the task's vector, or one of each of its samples (from `routing-moe vectors --samples each`), made like those that the mixture was trained with: read by the router, or for the nearest cluster of given routes", is_path=True)
    text_vectors: str | None = ROUTE(None, "with --task_vector nearest: folder of text vectors that tasks are compared by, a sample by its own row if it has one (default: states of the mixture's encoder over train inputs)", is_path=True)
    train_dir: str | None = ROUTE(None, "with --task_vector nearest: gym with the mixture's train tasks (default: the folder that --task_dir is in)")
    vector_steps: int = ROUTE(100, "with --task_vector learned: optimizer steps of 32 examples", range=AT_LEAST_1)
    task_model_lr: float = ROUTE(1e-2, "peak learning rate of a vector that is learned or trained", range=NOT_NEGATIVE)
    router_lr: float = ROUTE(1e-3, "with --route_training router: peak learning rate of the router", range=NOT_NEGATIVE)
    random_eval_draws: int = ROUTE(5, "with random routes for each example: scores are means over this many draws", range=AT_LEAST_1)

    learning_rate_list: list[float] | None = GRID(None, "peak learning rates to try (default: 1e-5 2e-5 5e-5, with --route_training logits 0.03 0.1 0.3, or --learning_rate)", range=NOT_NEGATIVE, on_resume=True)
    bsz_list: list[int] | None = GRID(None, "batch sizes to try (default: 2 4 8, or --train_batch_size)", range=AT_LEAST_1, on_resume=True)
    learning_rate: float | None = GRID(None, "a single learning rate, instead of a list", range=NOT_NEGATIVE, on_resume=True)
    train_batch_size: int | None = GRID(None, "a single batch size, instead of a list", range=AT_LEAST_1, on_resume=True)
    select_by: str = GRID(PERFORMANCE, "what the best step of a configuration and the best configuration of a sample have the best of, on the dev file: performance, answer_loss, the loss of the first accepted answer in nats per token, or another measure (which --measures then has)", choices=MEASURES)
    gradient_accumulation_steps: int = OPTIMISATION(1, "batches per optimizer step: a step has batch size x this examples", range=AT_LEAST_1)
    total_steps: int = OPTIMISATION(1000, "optimizer steps; the learning rate decays to 0 over them", range=AT_LEAST_1)
    num_train_epochs: float = OPTIMISATION(1000.0, "end after this many passes over the data, if before --total_steps", range=POSITIVE)
    warmup_steps: int | None = OPTIMISATION(None, "steps over which the learning rate rises (default: a tenth of --total_steps)", range=NOT_NEGATIVE)
    seed: int = OPTIMISATION(42, "seed of batches, dropout and drawn routes, the same for every configuration", range=SEED)

    output_dir: str = RUNNING(REQUIRED, "folder of the grid; configurations that are finished there are not run again", on_resume=True)
    do_train: bool = RUNNING(False, "train every configuration; with --do_predict alone the start itself is scored (default: both)")
    do_predict: bool = RUNNING(False, "score the test file with the weights of the best dev score (--select_by); default: without --do_train, both")
    eval_period: int = RUNNING(100, "steps between dev scores; the last step always has one", range=AT_LEAST_1)
    wait_step: int = RUNNING(NEVER, "end a configuration after this many dev scores without improvement", range=AT_LEAST_1)
    predict_max_examples: int | None = RUNNING(None, "examples of the test file that are scored, evenly spaced (default: all)", range=AT_LEAST_1)
    predict_batch_size: int | None = RUNNING(None, "examples of 512 input tokens that are answered at once; of shorter ones as many as need the same memory (default: 32; on a GPU 128); halved where memory runs out", range=AT_LEAST_1, on_resume=True)  # affects only the rounding of sums
    save_best: bool = RUNNING(False, "keep the model of each sample's best configuration in models/<sample>_best; until it is known, those of all configurations")
    num_workers: int = RUNNING(1, "configurations that run at the same time, each in its own process, distributed over the GPUs; 1: in this process", range=AT_LEAST_1, on_resume=True)
    quiet: bool = RUNNING(False, "no progress bars", on_resume=True)
# fmt: on

    @property
    def task(self) -> str:
        return self.dataset

    @property
    def start(self) -> Start:
        """Where the model comes from: the mixture in --init_dir, or a plain model."""
        given = dict(model=self.model, vectors=self.taskvecs, routes=self.task_routes)
        if self.moe_init:
            return Start(checkpoint=self.init_dir, checkpoint_name=self.init_checkpoint_name, **given)
        return Start(checkpoint=self.checkpoint, **given)

    @property
    def gym_dir(self) -> Path:
        """The folder that the task's folder is in."""
        return Path(self.task_dir).absolute().parent

    def model_folder(self, name: str) -> Path:
        """Returns the folder of a configuration's model with --save_best. name: the configuration's."""
        return Path(self.output_dir) / "models" / name

    def configurations(self) -> list[Configuration]:
        """Returns the sorted configurations of the grid."""
        if not self.do_train:
            return sorted(Configuration(sample, None, None) for sample in self.samples)
        grid = product(self.samples, self.learning_rate_list, self.bsz_list)
        return sorted({Configuration(*point) for point in grid})

    def with_lists(self) -> "FinetuneSettings":
        """Returns the settings with the given lists, else lists of the given value, else the published grid."""
        lists, usual = {}, PUBLISHED_GRID
        if self.warmup_steps is None:
            lists["warmup_steps"] = self.total_steps // 10
        if self.route_training == "logits":
            usual = PUBLISHED_GRID | {"learning_rate_list": LOGIT_RATES}
        for name, single in SINGLE.items():
            value = getattr(self, single)
            lists[name] = getattr(self, name) or ([value] if value is not None else usual[name])
        return replace(self, **lists)

    def step_settings(self, configuration: Configuration, temperature: float) -> StepSettings:
        """Returns the settings of a configuration's steps, at a constant temperature of the routes."""
        vectors = {"vector": self.task_model_lr, "router": self.task_model_lr, "logits": configuration.lr}
        return step_settings_of(
            self,
            learning_rate=configuration.lr,
            router_lr=self.router_lr if self.route_training == "router" else 0.0,
            task_model_lr=vectors.get(self.route_training, 0.0),
            # Decay would pull the route to equal weights.
            weight_decay=0.0 if self.route_training == "logits" else self.weight_decay,
            train_batch_size=configuration.bsz,
            initial_tau=temperature,
            minimum_tau=temperature,
        )


def finetune_settings(given: Mapping) -> FinetuneSettings:
    """Returns the settings of the given flags, {name: value}; without do_train and do_predict, both happen."""
    both = not (given.get("do_train") or given.get("do_predict"))
    settings = FinetuneSettings(**given | ({"do_train": True, "do_predict": True} if both else {}))
    plugin = load_plugin(settings.plugin)
    task_dir = os.path.normpath(settings.task_dir)  # "gym/boolq/" is "gym/boolq"
    checkpoint = None if settings.checkpoint in NO_CHECKPOINT else settings.checkpoint
    dataset = settings.dataset or Path(task_dir).absolute().name
    known = further((*settings.measures, settings.select_by))
    measures = tuple(dict.fromkeys([PERFORMANCE, *known, *settings.measures]))
    given = dict(task_dir=task_dir, dataset=dataset, checkpoint=checkpoint, measures=measures)
    return replace(settings, plugin=plugin, **given)
