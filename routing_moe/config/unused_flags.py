"""Flags that would do nothing in a run: an error, unless a prediction keeps those of its training command."""

from routing_moe.config.settings import Settings

STARTING_ONLY = ("model", "init_eps", "vanilla_checkpoint")
TRAINING_ONLY = (
    "initialize_from_vanilla",
    "resume",
    "equal_flops",
    "initial_tau",
    "minimum_tau",
    "anneal_rate",
    "exploration_epsilon",
    "expert_regularization",
    "alternate_every",
    "freeze_task_model",
    "train_batch_size",
    "gradient_accumulation_steps",
    "max_tokens_per_micro_batch",
    "learning_rate",
    "router_lr",
    "task_model_lr",
    "weight_decay",
    "adam_epsilon",
    "max_grad_norm",
    "num_train_epochs",
    "total_steps",
    "warmup_ratio",
    "eval_period",
    "no_eval_until",
    "select_best",
    "save_period",
    "checkpoint_period",
    "log_with",
)
PREDICTION_ONLY = ("predict_split", "predict_temperature", "task_vector", "text_vectors", "prefix")
ROUTER_ONLY = (
    "router_nn_type",
    "router_hidden_dim",
    "router_mode",
    "router_top_k",
    "router_lr",
    "taskvecs",
    "taskvecs_dim",
    "task_model_lr",
    "freeze_task_model",
    "initial_tau",
    "minimum_tau",
    "anneal_rate",
    "exploration_epsilon",
    "alternate_every",
    "select_best",
    "eval_sampled_routes",
    "predict_temperature",
    "task_vector",
    "text_vectors",
)
SEVERAL_EXPERTS_ONLY = (
    *ROUTER_ONLY,
    "avg_routing",
    "random_routing",
    "task_level_random_routing",
    "task_level_random_n",
    "random_eval_draws",
    "expert_mixing",
    "expert_regularization",
    "init_eps",
    "encoder_vanilla_layers",
    "decoder_vanilla_layers",
)
SOURCE_NAMES = {
    "learned": "learned",
    "average": "average",
    "random": "random",
    "fixed": "task-level random",
}


def idle_flags(settings: Settings, given: set[str], fields: dict) -> list[str]:
    """Faults for flags that are given but would do nothing in this run (`notes` has the harmless ones).

    fields: how the run will route, as `start_checks.routing_fields` says.
    """
    from_bart = settings.initialize_from_vanilla and settings.do_train
    trained = settings.do_train and settings.predict_split == "train"
    rules = [
        (not settings.do_predict, PREDICTION_ONLY, "out --do_predict"),
        (
            settings.do_train and not from_bart and not settings.resume,
            (*STARTING_ONLY, "taskvecs"),
            "out --initialize_from_vanilla: a checkpoint brings its own",
        ),
        (from_bart, ("checkpoint_name",), " --initialize_from_vanilla: --model is the start, best predicts"),
        *_routing_rules(settings, fields),
        (trained, ("task_vector",), " --predict_split train after --do_train: its tasks keep their own"),
        (
            not settings.do_train and settings.task_vector != "auto",
            ("taskvecs",),
            f" --task_vector {settings.task_vector}: no vector is taken from it",
        ),
        (settings.task_vector == "stored", ("text_vectors",), " --task_vector stored: nothing is looked up"),
    ]
    told = {}  # the first reason of each flag
    for idle, names, reason in rules:
        for name in names if idle else ():
            harmless = not settings.do_train and name in (*TRAINING_ONLY, *STARTING_ONLY)
            if name in given and not harmless:
                told.setdefault(name, f"--{name} has no effect with{reason}")
    faults = list(told.values())
    if settings.checkpoint and "checkpoint_name" in given:
        faults.append("--checkpoint and --checkpoint_name both name a checkpoint; give one of them")
    return faults


def _routing_rules(settings: Settings, fields: dict) -> list[tuple]:
    source, mode = fields["route_source"], fields["router_mode"]
    is_plain, draws_for_tasks = fields["num_experts"] == 1, settings.task_level_random_routing
    one_hot = source == "random" or (draws_for_tasks and settings.task_level_random_n == 1)
    frozen = not (settings.trains_router or settings.trains_task_vectors)
    by_source = f" {SOURCE_NAMES.get(source)} routes: they come from no router"
    straight_through = mode == "gumbel_softmax_st"  # the largest of logits + noise at every temperature
    return [
        (is_plain, SEVERAL_EXPERTS_ONLY, " one expert: there is nothing to choose or to mix"),
        (source != "learned", ROUTER_ONLY, by_source),
        (source != "random", ("random_eval_draws",), "out --random_routing"),
        (not draws_for_tasks, ("task_level_random_n",), "out --task_level_random_routing"),
        (mode != "top_k", ("router_top_k",), "out --router_mode top_k"),
        (one_hot, ("expert_mixing",), " one-hot routes: there is nothing to mix"),
        (mode in ("softmax", "top_k"), ("eval_sampled_routes",), f" {mode} routes: nothing is sampled"),
        (straight_through, ("predict_temperature",), f" {mode}: the choice is the same at any temperature"),
        (frozen, ("alternate_every",), " a frozen router and frozen task vectors: they have no turn"),
        (settings.task_model_lr == 0, ("freeze_task_model",), " --task_model_lr 0, which freezes them too"),
    ]


def notes(settings: Settings, given: set[str]) -> list[str]:
    """What a user should know but need not mend: flags of a training command kept in a prediction's."""
    idle = [] if settings.do_train else sorted(given & {*TRAINING_ONLY, *STARTING_ONLY})
    return [f"without --do_train no effect have: {', '.join(f'--{name}' for name in idle)}"] if idle else []
