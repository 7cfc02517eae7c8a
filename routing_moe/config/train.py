"""The flags of `routing-moe train`. Names are those of the published code, defaults those of its scripts."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from dataloader.errors import InputError, Problems, problem_context
from dataloader.jsonfile import load_json_object
from dataloader.task_sampling import WANTED, parse_task_sampling
from dataloader.task_splits import SECTIONS
from routing_moe.config import choices
from routing_moe.config.flags import (
    AT_LEAST_1,
    NAME,
    NEVER,
    NOT_NEGATIVE,
    POSITIVE,
    PROBABILITY,
    REQUIRED,
    SEED,
    Range,
    flags_of,
    group,
    inherited,
)
from routing_moe.config.measures import MEASURES, PERFORMANCE
from routing_moe.config.plugins import load_plugin
from routing_moe.config.shared import (
    BART_BASE,
    OPTIMISATION,
    TEXT_SETTINGS,
    RunFlags,
    Start,
    StepSettings,
    step_settings_of,
    trained_texts,
    without_permutation,
)
from routing_moe.io.hub import folder_of_run, is_on_hub
from routing_moe.io.run_folder import load_run_settings

DATA = group("data")
START = group("where the model starts")
ROUTING = group("experts and router")
RUNNING = group("running, evaluating, saving")
MORE_DATA = group("additions: data")
MORE_START = group("additions: where the model starts")
MORE_ROUTING = group("additions: experts and routes")
MORE_RUNNING = group("additions: running, evaluating, saving")
TASK_SAMPLING = Range(parse_task_sampling, WANTED)
ROUTING_FLAGS = ("expert_mixing", "router_mode", "router_top_k")  # may differ between the training stages
OF_RESUMED = (  # as in the run
    *("initialize_from_vanilla", "checkpoint_name", "learning_rate", "num_train_epochs"),
    *("plugin", "change_texts"),
)
# What a checkpoint does not fix.
OF_EVERY_TRAINING = ("exploration_epsilon", "lora_dropout", "label_smoothing")


def layers(text: str) -> list[int]:
    """Parses layer numbers: "0,3,5" is [0, 3, 5], "" is []."""
    try:
        return sorted({int(part) for part in text.split(",") if part.strip()})
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a comma-separated list of layer numbers") from None


# fmt: off
@dataclass(frozen=True, kw_only=True)
class TrainSettings(RunFlags):
    """The settings of a run, saved as `run.json`."""

    program = "routing-moe train"
    groups = ("data", "where the model starts", "experts and router", "texts and decoding", "optimisation", "running, evaluating, saving", "additions: data", "additions: where the model starts", "additions: experts and routes")
    source_flags: ClassVar[Mapping[str, str | None]] = {"avg_routing": "average", "random_routing": "random", "task_level_random_routing": "fixed", "task_routes": "fixed", "route_source": None}

    train_dir: str = DATA("data", "gym folder: <task>/<task>_<k>_<seed>_{train,dev,test}.tsv or .jsonl", inherited=True)
    predict_dir: str | None = DATA(None, "gym folder for dev and test scores (default: that of --train_dir)", inherited=True)
    custom_tasks_splits: str | None = DATA(None, "JSON with task lists train, dev, test (default: split.json in --train_dir)", inherited=True)
    task_ontology: str | None = MORE_DATA(None, "two-level ontology JSON for pictures and tables (default: ontology.json in --train_dir, else that of the 160 CrossFit tasks)", inherited=True)
    taskvecs: str | None = DATA(None, "folder with id2task.json and task_vecs.npy, as `routing-moe vectors` writes it; without --do_train, vectors of tasks that were not trained on; with --task_routes: vectors that tasks are clustered and unseen tasks routed by (default: random vectors for every task of the split)")
    taskvecs_dim: int | None = DATA(None, "dimension of random task vectors; read from the file with --taskvecs; with --router_nn_type table it follows from layers and experts", range=AT_LEAST_1, new_model=768)
    contested_above: float | None = MORE_DATA(None, "train only on contested rows: those that the model at the start loses more than this on, in nats. contested.json names them; if they are fewer than 5%, nothing is trained, because one model serves all tasks", range=NOT_NEGATIVE, metavar="NATS", compared_as="budget")
    skip_malformed: bool = MORE_DATA(False, "leave out malformed lines of task files instead of stopping", inherited=True)
    debug: bool = DATA(False, "read only 8 examples of every task file: the first of train files, evenly spaced ones of dev and test files", compared_as="budget")

    model: str = START(BART_BASE, "plain model that a new one starts from: a hub name or a folder. Every expert is a copy of a layer of a BART; of another model (T5, mBART, Pegasus, Llama, Mistral, Qwen, SmolLM, Gemma, Granite, OLMo 2, Phi 3) a low-rank update (--expert_kind lora)", compared_as="budget")
    initialize_from_vanilla: bool = START(False, "start from --model, as without this flag if no checkpoint is given")
    vanilla_checkpoint: str | None = START(None, "weights to use instead of those of --model: .pt, .safetensors, a saved folder, a run with one expert, a run with low-rank experts (the model that they share), or a hub name of one of these")
    init_eps: float = START(1e-8, "standard deviation of the noise added to each copy (low-rank experts have none); the default is below float32 resolution for weights near 1", range=NOT_NEGATIVE)
    base_dtype: str | None = MORE_START(None, "precision of the weights that low-rank experts share, if they are not trained (default: float32)", choices=choices.BASE_DTYPES)
    checkpoint: str | None = START(None, "routing checkpoint to start from, a folder or a hub name owner/name[@revision] (default: none; to predict, --output_dir/--checkpoint_name)")
    checkpoint_name: str = MORE_START("best", "which checkpoint of --output_dir to predict from, or if given to start from: best, last, or any folder there with a checkpoint, such as the init that merge writes or the <step>-steps that --save_period keeps", range=NAME, on_resume=True)

    num_experts: int | None = ROUTING(None, "experts per layer; 1: one multi-task model, without routes; with --task_routes, as many as the routes name", range=AT_LEAST_1, new_model=3, compared_as="budget")
    avg_routing: bool = ROUTING(False, "every expert with weight 1/E, for every task")
    random_routing: bool = ROUTING(False, "in every layer a random expert for each example, drawn again at every step")
    task_level_random_routing: bool = ROUTING(False, "in every layer --task_level_random_n random experts for each task, drawn once")
    task_level_random_n: int = ROUTING(1, "with --task_level_random_routing: experts per layer, with weight 1/n each", range=AT_LEAST_1)
    task_routes: str | None = MORE_ROUTING(None, "routes from outside. FILE.json: {task: expert number, {\"encoder\": number, \"decoder\": number}, a list of expert numbers by layer, or rows of weights by layer}; FILE.npy with route_tasks.txt, as in the <step>-steps of a run; tasks: an expert for each train task; clusters:K or clusters:auto: an expert for each cluster of the vectors of --taskvecs; random:SPEC or random:SPEC:SEED: the routes of one of these, permuted among the train tasks, so that groups have the same sizes (SEED: of the permutation; default: --seed). Other tasks get the route of the nearest cluster by their vector, or all experts with equal weights. Without --do_train: a file with routes of the scored tasks, or lowest_loss: a task that was not trained on gets the route of lowest loss on the labelled train rows of its first sample, of the routes of the trained tasks", metavar="SPEC")
    random_eval_draws: int = MORE_ROUTING(5, "with --random_routing: scores are means over this many draws of all routes; each draw is a pass over the files that decodes at the cost of all experts", range=AT_LEAST_1, inherited=True)
    expert_kind: str | None = MORE_ROUTING(None, "what an expert is. layer: a complete BART layer; lora: a low-rank update of the linear maps of a layer that all experts share. --learning_rate is that of the experts", choices=choices.EXPERT_KINDS, new_model="layer", compared_as="budget")
    shared_base: bool = MORE_ROUTING(False, "experts are a base and a difference from it, and both are trained, the base with --base_lr (default: --learning_rate). Saved and exported as plain experts. Of --expert_kind lora the base is the model; a single complete layer shares nothing", compared_as="budget")
    lora_rank: int | None = MORE_ROUTING(None, "with --expert_kind lora: rank of the updates", range=AT_LEAST_1, new_model=16, compared_as="budget")
    lora_alpha: float | None = MORE_ROUTING(None, "with --expert_kind lora: scale of the updates times their rank", range=POSITIVE, new_model=16)
    lora_targets: str | None = MORE_ROUTING(None, "with --expert_kind lora: the linear maps that have experts", choices=choices.LORA_TARGETS, new_model="all", compared_as="budget")
    lora_mixing: str | None = MORE_ROUTING(None, "with --expert_kind lora: what soft routes mix, the products of the two matrices of experts, or each of the factors, as in Poly", choices=choices.LORA_MIXINGS, new_model="products")
    lora_splits: int | None = MORE_ROUTING(None, "with --lora_mixing factors: blocks that the features of a linear map are divided into, each with a row of the route of its own, as in MHR", range=AT_LEAST_1, new_model=1)
    lora_dropout: float = MORE_ROUTING(0.0, "with --expert_kind lora: dropout probability of the inputs of updates", range=PROBABILITY)
    expert_mixing: str | None = MORE_ROUTING(None, "what soft routes mix, outputs or parameters of experts; with parameters a layer runs once, for any number of experts", choices=choices.EXPERT_MIXINGS, new_model="outputs")
    router_nn_type: str | None = ROUTING(None, "architecture of the router. table: none, the task vectors are the logits, with the rate --task_model_lr, as in Poly", choices=choices.ROUTERS, new_model="linear_layer_specific")
    router_hidden_dim: int | None = ROUTING(None, "width of the router's hidden layer", range=AT_LEAST_1, new_model=64)
    router_mode: str | None = ROUTING(None, "how the router's logits become routes. bernoulli: a relaxed Bernoulli draw of each logit, normalised, as in Poly", choices=choices.ROUTER_MODES, new_model="gumbel_softmax_st")
    route_source: str | None = MORE_ROUTING(None, "where the routes come from. inputs: a router for each example, as a baseline: the softmax (temperature 1) of a linear map of the mean embedding of its input, trained with --router_lr. Routes differ among the examples of a task, so what needs one of the task is refused: export, ablate, transfer. Or an entry that --plugin adds to ROUTE_SOURCES (default: the router of tasks, or the flag of another source)", choices=choices.ROUTE_SOURCES, metavar="NAME")
    router_top_k: int | None = MORE_ROUTING(None, "with --router_mode top_k: experts with a weight above 0", range=AT_LEAST_1, new_model=2)
    encoder_vanilla_layers: list[int] | None = ROUTING(None, "encoder layers without experts, numbered from 0 (default: none)", parse=layers, metavar="0,1", new_model=[])
    decoder_vanilla_layers: list[int] | None = ROUTING(None, "decoder layers without experts, numbered from 0 (default: none)", parse=layers, metavar="0,1", new_model=[])
    initial_tau: float = ROUTING(2.0, "temperature of the routes at the start", range=POSITIVE)
    minimum_tau: float = ROUTING(0.1, "temperature that annealing ends at", range=POSITIVE)
    anneal_rate: float = ROUTING(3e-4, "temperature = max(initial_tau * exp(-anneal_rate * step), minimum_tau)", range=NOT_NEGATIVE)
    exploration_epsilon: float = ROUTING(0.0, "probability in training that a layer uses a random expert", range=PROBABILITY)
    expert_regularization: float = ROUTING(0.0, "weight of the distance between experts in the loss", range=NOT_NEGATIVE)
    load_balance: float = MORE_ROUTING(0.0, "weight, in units of the loss of an example, of the load-balancing loss of Switch Transformers (Fedus et al. 2022) on the routes of a step; 0: none", range=NOT_NEGATIVE)
    alternate_every: int = ROUTING(0, "steps after which updates alternate between the model and the router with the task vectors; 0: both in every step", range=NOT_NEGATIVE)
    freeze_task_model: bool = ROUTING(False, "do not train the task vectors")

    train_batch_size: int = OPTIMISATION(16, "examples per batch", range=AT_LEAST_1, compared_as="budget")
    gradient_accumulation_steps: int = OPTIMISATION(2, "batches per optimizer step: a step has train_batch_size x this examples over all processes", range=AT_LEAST_1, compared_as="budget")
    task_sampling: str = MORE_DATA("examples", "how often each train task of the split is drawn, by its number n of train rows. examples: in proportion to n, every row equally often; tasks: all equally often; temperature:T: in proportion to n^(1/T), from examples (T = 1) to tasks (large T); cap:N: in proportion to the smaller of n and N", metavar="SAMPLING", range=TASK_SAMPLING, compared_as="budget")
    learning_rate: float | None = OPTIMISATION(None, "peak learning rate of the model, of low-rank experts theirs (default: 1e-5, with --expert_kind lora 1e-3; of a resumed run its own)", range=NOT_NEGATIVE, compared_as="budget")
    router_lr: float = OPTIMISATION(1e-3, "peak learning rate of the router; 0: frozen", range=NOT_NEGATIVE)
    task_model_lr: float = OPTIMISATION(1e-2, "peak learning rate of the task vectors; 0: frozen", range=NOT_NEGATIVE)
    num_train_epochs: float | None = OPTIMISATION(None, "end after this many passes over the data, if before --total_steps (default: no such limit; of a resumed run its own)", range=POSITIVE)
    total_steps: int = OPTIMISATION(30000, "optimizer steps; the learning rate decays to 0 over them", range=AT_LEAST_1, compared_as="budget")
    warmup_ratio: float = OPTIMISATION(0.06, "share of --total_steps over which the learning rate rises", range=PROBABILITY, compared_as="budget")
    seed: int = OPTIMISATION(42, "seed of batches, routes, dropout and new weights", range=SEED, inherited=True)  # of the draws of random routes

    output_dir: str = RUNNING(REQUIRED, "run folder", on_resume=True)
    do_train: bool = RUNNING(False, "train (default: without --do_predict, both)", on_resume=True)
    do_predict: bool = RUNNING(False, "score dev and test files with the best checkpoint (after training) or --checkpoint_name (default: without --do_train, both)", on_resume=True)
    resume: bool = MORE_RUNNING(False, "continue the run in --output_dir, or start it if nothing was saved yet; a finished run stays as it is", on_resume=True)
    equal_flops: str | None = MORE_RUNNING(None, "take as many steps, instead of --total_steps, as cost the training FLOPs that the cost.json of RUN has, without those of its start", metavar="RUN")
    flops_factor: float = MORE_RUNNING(1.0, "with --equal_flops: this many times these FLOPs", range=POSITIVE)
    eval_period: int = RUNNING(750, "steps between evaluations", range=AT_LEAST_1)
    eval_max_examples: int | None = MORE_RUNNING(None, "examples of each dev file in these evaluations, evenly spaced (default: all)", range=AT_LEAST_1)
    no_eval_until: int = RUNNING(0, "no evaluation before this step", range=NOT_NEGATIVE)
    select_best: str | None = MORE_RUNNING(None, "evaluations that may become the best checkpoint: only those at the run's final temperature, or all (default: final_temperature with --router_lr 0, as in the second stage, else all)", choices=choices.SELECTIONS)
    select_by: str = MORE_RUNNING(PERFORMANCE, "what the best checkpoint has the best of on the dev files: performance, answer_loss, the mean over tasks of the loss of the first accepted answer in nats per token, or another measure. With answer_loss, and others that need no answers, evaluations make none, which is most of their time; --do_predict makes them", choices=MEASURES)
    checkpoint_period: int = MORE_RUNNING(0, "steps between writes of last/, from which --resume continues; 0: at every evaluation", range=NOT_NEGATIVE, on_resume=True)
    save_period: int = RUNNING(NEVER, "steps between checkpoints that are kept as <step>-steps/", range=AT_LEAST_1, on_resume=True)
    log_with: str = MORE_RUNNING("csv", "curves: always curves.csv, plus one of accelerate's trackers, which show the run under the last two folders of --output_dir", choices=choices.TRACKERS, on_resume=True)
    predict_batch_size: int | None = RUNNING(None, "examples of 512 input tokens that are answered at once; of shorter ones as many as need the same memory (default: 32; on a GPU 128); halved where memory runs out", range=AT_LEAST_1, on_resume=True, inherited=True)  # affects only the rounding of sums
    predict_split: str = MORE_RUNNING("train", "which tasks of the split --do_predict scores", choices=SECTIONS, on_resume=True)
    predict_samples: str = MORE_RUNNING("first", "which samples of a task are scored: first, all, or a seed such as 100")
    predict_max_examples: int | None = MORE_RUNNING(None, "examples of each dev and test file that --do_predict scores, evenly spaced (default: all)", range=AT_LEAST_1, on_resume=True, compared_as="scoring")
    predict_temperature: float | None = MORE_RUNNING(None, "temperature of soft routes in --do_predict (default: that of the checkpoint)", range=POSITIVE, on_resume=True, compared_as="scoring")
    task_vector: str = MORE_RUNNING("auto", "the vector that the router reads for a task that --do_predict scores. nearest: train tasks of the split have their own, any other task gets a copy of that of the train task with the most similar texts; stored: all have their own, even if it is random; auto: their own, or nearest if it is random or missing. The column vector_seen of the scores shows what each vector has seen of its task. nearest: unlabelled inputs of its first sample; stored: what the vectors given to training had seen; random: nothing. With given routes, nearest is the route of the train task with the most similar texts, for tasks without one", choices=choices.FOUND_BY_RULE, on_resume=True, compared_as="scoring")
    text_vectors: str | None = MORE_RUNNING(None, "folder with id2task.json and task_vecs.npy, vectors of the tasks' texts by any method, which the nearest task is found by (default: computed from the train files of --train_dir or --predict_dir by the model with average routes)", on_resume=True)
    no_text_vectors: bool = MORE_RUNNING(False, "do not keep vectors of the train tasks' texts in best/, by which new texts find their nearest task: they take a pass over the first samples through all experts", on_resume=True)
    prefix: str = RUNNING("", "prefix of the names of the files that --do_predict writes", range=NAME, on_resume=True)
# fmt: on

    @property
    def chosen_source(self) -> str | None:
        """As for all commands; without training, lowest_loss is a choice among the routes of the checkpoint."""
        return None if self.by_loss else super().chosen_source

    @property
    def source(self) -> str:
        """The source of the routes of a new model."""
        return self.chosen_source or "learned"

    @property
    def source_kind(self) -> type[choices.SourceKind]:
        return choices.kind_of(self.source)

    @property
    def is_new(self) -> bool:
        """Whether a new model is trained, which starts from a plain model."""
        return self.do_train and self.initialize_from_vanilla

    @property
    def start(self) -> Start:
        """Where the model comes from."""
        has_routes = self.do_train or self.source_kind.is_stored  # else they are those of the training
        routes = self.task_routes if has_routes else None
        if routes and without_permutation(routes)[1] == "":
            routes = f"{routes}:{self.seed}"
        given = dict(model=self.model, vectors=self.taskvecs, routes=routes)
        if self.is_new:
            return Start(vanilla=self.vanilla_checkpoint, **given)
        if self.checkpoint:
            return Start(checkpoint=self.checkpoint, **given)
        return Start(checkpoint=self.output_dir, checkpoint_name=self.checkpoint_name, **given)

    @property
    def scored(self) -> "TrainSettings":
        """The settings of the prediction after training: those of the start no longer apply."""
        reset = dict.fromkeys(("checkpoint", "taskvecs", "task_routes"))
        return replace(self, do_train=False, initialize_from_vanilla=False, checkpoint_name="best", **reset)

    @property
    def step_settings(self) -> StepSettings:
        """What a step depends on."""
        return step_settings_of(self, warmup_steps=self.warmup_steps)

    @property
    def trains_router(self) -> bool:
        return self.router_lr != 0

    @property
    def trains_task_vectors(self) -> bool:
        return self.task_model_lr != 0 and not self.freeze_task_model

    @property
    def selects_at_final_temperature(self) -> bool:
        """Whether only evaluations at the final temperature may become the best checkpoint.

        With a frozen router, earlier routes are almost average routes, not those that the run trains for.
        """
        if self.select_best is not None:
            return self.select_best == "final_temperature"
        return self.source_kind.reads_vectors and not self.trains_router

    @property
    def step_size(self) -> int:
        """Examples in one optimizer step."""
        return self.train_batch_size * self.gradient_accumulation_steps

    @property
    def warmup_steps(self) -> int:
        """Optimizer steps over which the learning rate rises."""
        return int(self.total_steps * self.warmup_ratio)

    def architecture(self) -> dict:
        """Returns the fields of a RoutingBartConfig: of the flags, else those of a new model."""
        chosen = {
            name: flag.new_model if getattr(self, name) is None else getattr(self, name)
            for name, flag in flags_of(self).items()
            if flag.new_model is not None
        }
        chosen["router_input_dim"] = chosen.pop("taskvecs_dim")
        own = {name: getattr(self, name) for name in OF_EVERY_TRAINING if getattr(self, name) is not None}
        return chosen | own | {"route_source": self.source}


# The flags whose values a checkpoint fixes, and the fields of its config.json.
ARCHITECTURE_FLAGS = {
    name: {"taskvecs_dim": "router_input_dim"}.get(name, name)
    for name, flag in flags_of(TrainSettings).items()
    if flag.new_model is not None and name not in ROUTING_FLAGS
}


def learning_rate_of(expert_kind: str | None) -> float:
    """Returns the default learning rate of experts, None: of complete layers."""
    return 1e-3 if expert_kind == "lora" else 1e-5


def train_settings(given: Mapping) -> TrainSettings:
    """Returns the settings of the given flags, {name: value}. Raises InputError for a damaged run.json.

    Without do_train and do_predict, both happen. A training starts from --model unless a checkpoint is given.
    Flags that scores depend on default to those of the run that predicts, OF_RESUMED to those of a resumed
    run.
    """
    if not (given.get("do_train") or given.get("do_predict")):
        given = {**given, "do_train": True, "do_predict": True}
    saved, checkpoint, run = {}, None, Path(given["output_dir"])
    if given.get("checkpoint"):
        with problem_context("--checkpoint "):
            checkpoint = folder_of_run(given["checkpoint"])
    file = (checkpoint or run / given.get("checkpoint_name", "best")) / "config.json"
    if given.get("do_train"):
        defaults = {"initialize_from_vanilla": checkpoint is None and "checkpoint_name" not in given}
        if given.get("resume"):
            saved = load_run_settings(run) or {}
            defaults |= inherited(TrainSettings, saved, run / "run.json", (*OF_RESUMED, *TEXT_SETTINGS))
            if given.get("equal_flops"):  # instead of --total_steps, also where that is given
                given = {**given, **inherited(TrainSettings, saved, run / "run.json", ["total_steps"])}
    else:
        if checkpoint:  # a shared run has run.json with its weights
            run = checkpoint if (checkpoint / "run.json").is_file() else checkpoint.parent
        saved = load_run_settings(run) or {}
        if not saved and "train_dir" not in given:
            flag = "checkpoint" if checkpoint else "output_dir"
            raise InputError(f"--{flag} {run} is not a run: it has no run.json; else give --train_dir, too")
        if checkpoint and is_on_hub(given["checkpoint"]):  # which must not choose a file to run
            saved = saved | {"plugin": None}
        config = load_json_object(file, "a model's configuration") if file.is_file() else {}
        texts = trained_texts(config.get("text_settings"), given)
        if given.get("train_dir", saved.get("train_dir")) != saved.get("train_dir"):
            saved = saved | {"predict_dir": None}  # another gym is given, with its own dev and test files
        defaults = inherited(TrainSettings, saved, run / "run.json") | texts
    settings = TrainSettings(**{**defaults, **given})
    if settings.learning_rate is None:
        kind = settings.expert_kind
        if kind is None and not settings.initialize_from_vanilla:  # a damaged file is reported later
            config = Problems().of(load_json_object, file, "a model's configuration")
            kind = config and config.get("expert_kind")
        settings = replace(settings, learning_rate=learning_rate_of(kind))
    if settings.shared_base and "base_lr" not in given:
        settings = replace(settings, base_lr=settings.learning_rate)
    plugin = load_plugin(settings.plugin)
    return replace(settings, plugin=plugin, predict_dir=settings.predict_dir or settings.train_dir)
