"""Flags that would do nothing in a grid: an error, but for a training's in a command that only scores."""

from routing_moe.checkpoints.start import keeps_tokenizer
from routing_moe.config.unused_flags import SOURCE_NAMES
from routing_moe.finetuning.settings import FinetuneSettings
from routing_moe.finetuning.vectors import needs_neighbour

MIXTURE_ONLY = (
    "init_dir",
    "init_checkpoint_name",
    "moe_avg_route",
    "moe_random_route",
    "moe_random2_route",
    "route_training",
    "random_eval_draws",
    "eval_sampled_routes",
)
ROUTER_ONLY = (
    "task_vector",
    "taskvecs",
    "text_vectors",
    "train_dir",
    "vector_steps",
    "router_lr",
    "task_model_lr",
    "eval_sampled_routes",
)
TRAINING_ONLY = (
    "learning_rate",
    "train_batch_size",
    "learning_rate_list",
    "bsz_list",
    "gradient_accumulation_steps",
    "max_tokens_per_micro_batch",
    "total_steps",
    "num_train_epochs",
    "warmup_steps",
    "weight_decay",
    "adam_epsilon",
    "max_grad_norm",
    "eval_period",
    "wait_step",
    "freeze_embeds",
    "router_lr",
)


def idle_flags(settings: FinetuneSettings, given: set[str], start) -> list[str]:
    """Faults for flags that are given but would do nothing; start: what was found, or None."""
    told = {}  # the first reason of each flag
    for idle, names, reason in _rules(settings, start):
        for name in names if idle else ():
            if name in given:
                told.setdefault(name, f"--{name} has no effect with{reason}")
    return list(told.values())


def _rules(settings: FinetuneSettings, start) -> list[tuple]:
    rules = [
        (not settings.moe_init, (*MIXTURE_ONLY, *ROUTER_ONLY), "out --moe_init"),
        (not settings.do_train, ("save_best",), "out --do_train"),
        (
            settings.ray not in (None, "local"),
            ("num_workers",),
            f" --ray {settings.ray}, where the cluster says how many",
        ),
    ]
    config = getattr(start, "config", None)
    if not settings.moe_init or config is None:
        return rules
    source, training = settings.route_source or config.route_source, settings.route_training
    by_source = f" {SOURCE_NAMES.get(source)} routes: they come from no router"
    learns_vector = settings.task_vector == "learned"
    trains_vector = training in ("vector", "router")
    return [
        *rules,
        (source != "learned", ROUTER_ONLY, by_source),
        (source != "random", ("random_eval_draws",), "out random routes for each example"),
        (source == "random", ("route_training",), " random routes: an example has another each time"),
        (
            settings.taskvecs,
            ("task_vector", "text_vectors", "train_dir"),
            " --taskvecs, which has the vector",
        ),
        (
            settings.task_vector in ("stored", "learned"),
            ("text_vectors", "train_dir"),
            f" --task_vector {settings.task_vector}: no neighbour is looked for",
        ),
        (
            source == "learned" and not needs_neighbour(settings, start),
            ("text_vectors", "train_dir"),
            f" {settings.task}, whose vector is in the mixture: no neighbour is looked for",
        ),
        (settings.text_vectors, ("train_dir",), " --text_vectors, which has the texts"),
        (not learns_vector, ("vector_steps",), "out --task_vector learned"),
        (not (learns_vector or trains_vector), ("task_model_lr",), " a vector that is not trained"),
        (training != "router", ("router_lr",), "out --route_training router"),
        (not trains_vector, ("eval_sampled_routes",), " a route that is fixed"),
        (
            config.router_mode in ("softmax", "top_k"),
            ("eval_sampled_routes",),
            f" {config.router_mode} routes: nothing is sampled",
        ),
    ]


def notes(settings: FinetuneSettings, given: set[str], start) -> list[str]:
    """What a user should know but need not mend."""
    told = []
    idle = [] if settings.do_train else sorted(given & set(TRAINING_ONLY))
    if idle:
        told.append(f"without --do_train no effect have: {', '.join(f'--{name}' for name in idle)}")
    if "model" in given and not uses_model(settings, start):
        told.append("--model has no effect: the start has weights and a tokenizer of its own")
    return told


def uses_model(settings: FinetuneSettings, start) -> bool:
    """Whether weights or tokenizer are `--model`'s: not with a start that brings both."""
    if hasattr(start, "source"):  # a plain BART
        return start.source == settings.model or not keeps_tokenizer(start.source)
    return not keeps_tokenizer(start.checkpoint)
