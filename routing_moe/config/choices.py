"""The values that flags accept. A test compares them with the implementations, in the modules named here."""


class SourceKind:
    """What flags and files of a source of routes depend on; model/route_sources.py has the routes."""

    per_task = True  # whether the examples of a task have one route
    reads_inputs = False  # whether a route depends on the tokens of an input
    is_drawn = False  # whether routes are drawn at each call
    mixes = True  # whether a route may have several experts
    reads_vectors = False  # whether a router reads a vector of the task
    is_stored = False  # whether a mixture has a fixed route of each task
    is_equal = False  # whether all experts have equal weights, for any task


# {name: implementation}, to which users add. The implementations are put in where model/selection.py,
# route_sources.py, routers.py and mergers.py are imported; the names are here, since early errors do without torch.
ROUTER_MODES = dict.fromkeys(("softmax", "gumbel_softmax", "gumbel_softmax_st", "top_k", "bernoulli"))
BUILT_IN_SOURCES = {
    "learned": {"reads_vectors": True},
    "average": {"is_equal": True},
    "random": {"per_task": False, "is_drawn": True, "mixes": False},
    "fixed": {"is_stored": True},
    "inputs": {"per_task": False, "reads_inputs": True},
}
ROUTE_SOURCES = {name: type(name, (SourceKind,), known) for name, known in BUILT_IN_SOURCES.items()}
SEQUENCES = ("rnn", "lstm", "gru", "transformer")
PRUNING = ("magnitude_prune", "ties", "dare", "dare_ties")  # mergers with a density
MERGERS = dict.fromkeys(("mean", "task_arithmetic", *PRUNING))  # model/mergers.py
ROUTERS = {n + s: None for n in ("linear", *SEQUENCES) for s in ("", "_layer_specific")} | {"table": None}
ROUTING_BART = "routing_bart"  # the model_type of a mixture in its config.json
DECODER_ONLY = (
    *("llama", "mistral", "qwen2", "qwen3", "smollm3"),
    *("gemma2", "gemma3_text", "granite", "olmo2", "phi3"),
)
PLAIN_MODELS = ("bart", "t5", "mt5", "mbart", "pegasus", *DECODER_ONLY)  # model_types that the commands take
ROUTING = "routing"  # that of low-rank experts of any model
MIXTURES = (ROUTING, ROUTING_BART)
EXPERT_KINDS = ("layer", "lora")  # model/routed_layer.py, model/lora.py
LORA_TARGETS = ("attention", "feed_forward", "all")  # model/injection.py
LORA_MIXINGS = ("products", "factors")  # model/lora.py
EXPERT_MIXINGS = ("outputs", "parameters")  # model/routed_layer.py
PROMPT_FORMATS = ("crossfit", "chat")  # dataloader/encoding.py
SCORINGS = ("generate", "rank")  # evaluation/option_ranking.py
POOLINGS = ("mean", "bos")  # of text vectors: mean over the tokens of a text; state at <s>
FOUND_BY_RULE = ("auto", "stored", "nearest")  # vectors without training
VECTOR_SOURCES = (*FOUND_BY_RULE, "learned")  # task_choice/
LOWEST_LOSS = "lowest_loss"  # of --task_routes: task_choice/learned.py
ROUTE_TRAININGS = ("plain", "merged", "fixed", "logits", "vector", "router")  # finetuning/starting_model.py
SELECTIONS = ("final_temperature", "all")  # evaluations that may become the best checkpoint
ROUTE_KINDS = ("soft", "soft_t1", "chosen")  # analysis/saved_routes.py
BASE_DTYPES = ("float32", "bfloat16")
PRECISIONS = ("no", "bf16", "fp16", "auto")
TRACKERS = (
    *("csv", "tensorboard", "wandb", "trackio", "mlflow"),
    *("aim", "comet_ml", "clearml", "swanlab", "dvclive"),
)  # curves.csv alone; accelerate's, which have the names of their packages
DESIGNS = ("auto", "seeds", "seeds_and_tasks", "tasks")  # results/statistics.py


def kind_of(source: str) -> type[SourceKind]:
    """Returns the class of a source of routes; a function of the user gives each task a route."""
    entry = ROUTE_SOURCES.get(source)  # an unknown one is reported where flags and files are checked
    return entry if isinstance(entry, type) else SourceKind


def is_of_user(entry) -> bool:
    """Returns whether an entry of a registry, a class or a function, is code of the user."""
    return not getattr(entry, "func", entry).__module__.startswith("routing_moe.")


def has_parameters(source: str) -> bool:
    """Returns whether the instances of a source of routes are trained."""
    return hasattr(kind_of(source), "parameters")
