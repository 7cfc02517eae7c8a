"""The settings of a fine-tuning grid, and the configurations that it consists of."""

import dataclasses
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from routing_moe.config.settings import Recipe

# What may differ when a grid is continued or extended: none of it changes a configuration's result.
FREE_WHEN_CONTINUED = {
    "output_dir",
    "samples",
    "learning_rate",
    "train_batch_size",
    "learning_rate_list",
    "bsz_list",
    "num_workers",
    "ray",
    "quiet",
    # These two move only the rounding of sums: the batches are the same, their bits may not be.
    "max_tokens_per_micro_batch",
    "predict_batch_size",
}
PATHS = ("task_dir", "init_dir", "checkpoint", "model", "taskvecs", "text_vectors", "train_dir")
ROUTE_TRAININGS = ("plain", "fixed", "vector", "router")


@dataclass(frozen=True, order=True)
class Configuration:
    """One point of the grid: a sample, a learning rate, a batch size; without rates, the start is scored.

    They are ordered by these: of equally good ones the first is the best.
    """

    prefix: str
    lr: float | None
    bsz: int | None

    @property
    def name(self) -> str:
        """What its files are called."""
        return self.prefix if self.lr is None else f"{self.prefix}_lr{self.lr!r}_bsz{self.bsz}"

    def __str__(self) -> str:
        return f"prefix={self.prefix}" + ("" if self.lr is None else f", lr={self.lr:g}, bsz={self.bsz}")


@dataclass(frozen=True)
class FinetuneSettings:
    """One field per flag of `python -m routing_moe.cli.finetune`, which documents them.

    samples: the prefixes that `--samples` names. learning_rate_list, bsz_list: never empty after the checks.
    """

    task_dir: str
    dataset: str
    samples: list[str] | str
    skip_malformed: bool
    debug: bool
    model: str
    checkpoint: str | None
    moe_init: bool
    init_dir: str | None
    init_checkpoint_name: str | None
    moe_avg_route: bool
    moe_random_route: bool
    moe_random2_route: bool
    route_training: str | None
    task_vector: str
    taskvecs: str | None
    text_vectors: str | None
    train_dir: str | None
    vector_steps: int
    router_lr: float
    task_model_lr: float
    freeze_embeds: bool
    max_input_length: int
    max_output_length: int
    do_lowercase: bool
    append_another_bos: bool
    hide_task_names: bool
    num_beams: int
    no_repeat_ngram_size: int | None
    generate_from_bos: bool
    eval_sampled_routes: bool
    scoring: str
    learning_rate: float | None
    train_batch_size: int | None
    learning_rate_list: list[float] | None
    bsz_list: list[int] | None
    gradient_accumulation_steps: int
    max_tokens_per_micro_batch: int
    total_steps: int
    num_train_epochs: float
    warmup_steps: int
    weight_decay: float
    adam_epsilon: float
    max_grad_norm: float
    mixed_precision: str | None
    seed: int
    output_dir: str
    do_train: bool
    do_predict: bool
    eval_period: int
    wait_step: int
    random_eval_draws: int
    predict_batch_size: int
    save_best: bool
    num_workers: int
    ray: str | None
    quiet: bool

    @property
    def task(self) -> str:
        return self.dataset

    @property
    def gym_dir(self) -> Path:
        """The folder that the task's folder is in."""
        return Path(self.task_dir).absolute().parent

    @property
    def route_source(self) -> str | None:
        """Where the flags say that a mixture's routes come from; None: as the mixture was trained."""
        asked = {
            "average": self.moe_avg_route,
            "random": self.moe_random_route,
            "fixed": self.moe_random2_route,
        }
        return next((source for source, given in asked.items() if given), None)

    @property
    def examples_per_file(self) -> int | None:
        """How many examples of each file are read; None for all."""
        return 8 if self.debug else None

    def to_dict(self) -> dict:
        return dataclasses.asdict(self)

    def configurations(self) -> list[Configuration]:
        """The grid, in order."""
        if not self.do_train:
            return sorted(Configuration(sample, None, None) for sample in self.samples)
        grid = product(self.samples, self.learning_rate_list, self.bsz_list)
        return sorted(Configuration(*point) for point in grid)

    def recipe(self, configuration: Configuration, temperature: float) -> Recipe:
        """How a configuration is trained; its routes, if they are trained too, at a constant temperature."""
        trains_vector = self.route_training in ("vector", "router")
        return Recipe(
            learning_rate=configuration.lr,
            router_lr=self.router_lr if self.route_training == "router" else 0.0,
            task_model_lr=self.task_model_lr if trains_vector else 0.0,
            train_batch_size=configuration.bsz,
            gradient_accumulation_steps=self.gradient_accumulation_steps,
            max_tokens_per_micro_batch=self.max_tokens_per_micro_batch,
            total_steps=self.total_steps,
            warmup_steps=self.warmup_steps,
            weight_decay=self.weight_decay,
            adam_epsilon=self.adam_epsilon,
            max_grad_norm=self.max_grad_norm,
            initial_tau=temperature,
            minimum_tau=temperature,
            seed=self.seed,
        )
