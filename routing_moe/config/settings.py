"""The settings of a run: what the command line said, frozen, saved as `run.json`."""

import dataclasses
from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """What an optimizer step depends on beside the model and the data; `Settings` has all of it too.

    Rates of 0 freeze. The temperature stays at 1 unless said otherwise.
    """

    learning_rate: float = 1e-5
    router_lr: float = 0.0
    task_model_lr: float = 0.0
    train_batch_size: int = 16
    gradient_accumulation_steps: int = 1
    max_tokens_per_micro_batch: int = 16384
    total_steps: int = 1000
    warmup_steps: int = 0
    weight_decay: float = 0.01
    adam_epsilon: float = 1e-8
    max_grad_norm: float = 0.1
    initial_tau: float = 1.0
    minimum_tau: float = 1.0
    anneal_rate: float = 0.0
    alternate_every: int = 0
    expert_regularization: float = 0.0
    seed: int = 42

    @property
    def step_size(self) -> int:
        """Examples in one optimizer step."""
        return self.train_batch_size * self.gradient_accumulation_steps


SELECTIONS = ("final_temperature", "all")  # which evaluations may become the best checkpoint

# Settings that may differ when a run is resumed: they change neither a training step nor what it writes.
FREE_ON_RESUME = {
    "output_dir",
    "do_train",
    "do_predict",
    "predict_split",
    "predict_temperature",
    "task_vector",
    "text_vectors",
    "prefix",
    "resume",
    "equal_flops",
    "log_with",
    "save_period",
    "checkpoint_period",
    "checkpoint_name",
    # These two move only the rounding of sums: the batches are the same, their bits may not be.
    "max_tokens_per_micro_batch",
    "predict_batch_size",
}


@dataclass(frozen=True)
class Settings:
    """One field per flag of `python -m routing_moe.cli.train`, which documents them."""

    output_dir: str
    train_dir: str
    predict_dir: str
    model: str
    do_train: bool
    do_predict: bool
    resume: bool
    equal_flops: str | None
    custom_tasks_splits: str | None
    taskvecs: str | None
    taskvecs_dim: int | None
    task_ontology: str | None
    skip_malformed: bool
    avg_routing: bool
    random_routing: bool
    task_level_random_routing: bool
    task_level_random_n: int
    random_eval_draws: int
    expert_mixing: str | None
    router_mode: str | None
    router_top_k: int | None
    router_nn_type: str | None
    router_hidden_dim: int | None
    num_experts: int | None
    encoder_vanilla_layers: list[int] | None
    decoder_vanilla_layers: list[int] | None
    initial_tau: float
    minimum_tau: float
    anneal_rate: float
    exploration_epsilon: float
    expert_regularization: float
    alternate_every: int
    initialize_from_vanilla: bool
    vanilla_checkpoint: str | None
    init_eps: float
    checkpoint: str | None
    checkpoint_name: str
    freeze_task_model: bool
    max_input_length: int
    max_output_length: int
    do_lowercase: bool
    append_another_bos: bool
    hide_task_names: bool
    scoring: str
    num_beams: int
    no_repeat_ngram_size: int | None
    generate_from_bos: bool
    eval_sampled_routes: bool
    train_batch_size: int
    gradient_accumulation_steps: int
    max_tokens_per_micro_batch: int
    learning_rate: float
    router_lr: float
    task_model_lr: float
    weight_decay: float
    adam_epsilon: float
    max_grad_norm: float
    num_train_epochs: float
    total_steps: int
    warmup_ratio: float
    mixed_precision: str | None
    eval_period: int
    no_eval_until: int
    select_best: str | None
    save_period: int
    checkpoint_period: int
    log_with: str
    predict_batch_size: int
    predict_split: str
    predict_samples: str
    predict_temperature: float | None
    task_vector: str
    text_vectors: str | None
    prefix: str
    seed: int
    debug: bool

    @property
    def route_source(self) -> str | None:
        """The key of `ROUTE_SOURCES` that the flags ask for; None: the checkpoint's, or learned."""
        asked = {
            "average": self.avg_routing,
            "random": self.random_routing,
            "fixed": self.task_level_random_routing,
        }
        return next((source for source, given in asked.items() if given), None)

    @property
    def trains_router(self) -> bool:
        return self.router_lr != 0

    @property
    def trains_task_vectors(self) -> bool:
        return self.task_model_lr != 0 and not self.freeze_task_model

    @property
    def selects_at_final_temperature(self) -> bool:
        """Whether only evaluations at the run's final temperature may become the best checkpoint.

        With a frozen router (the second stage) routes at an early temperature are almost average routes, not
        those that the run trains for.
        """
        if self.select_best is not None:
            return self.select_best == "final_temperature"
        return self.route_source is None and not self.trains_router

    @property
    def step_size(self) -> int:
        """Examples in one optimizer step."""
        return self.train_batch_size * self.gradient_accumulation_steps

    @property
    def warmup_steps(self) -> int:
        """Optimizer steps over which the learning rate rises."""
        return int(self.total_steps * self.warmup_ratio)

    @property
    def examples_per_file(self) -> int | None:
        """How many examples of each task file are read; None for all."""
        return 8 if self.debug else None

    def to_dict(self) -> dict:
        return dataclasses.asdict(self)

    def differences(self, saved: dict) -> list[str]:
        """Faults for the settings in which this run would not continue the saved one."""
        return differences(self.to_dict(), saved, FREE_ON_RESUME, "the run to resume")


def differences(settings: dict, saved: dict, free: set[str], where: str) -> list[str]:
    """Faults for the settings, those in `free` aside, that were others in `where`, which saved them."""
    return [
        f"--{name} is {_as_said(value)}, but in {where} it was {_as_said(saved[name])}"
        for name, value in settings.items()
        if name not in free and name in saved and saved[name] != value
    ]


def _as_said(value) -> str:
    if value is None or value is False:
        return "not given"
    return "given" if value is True else str(value)
