"""Checks the start of a run: the plain BART or checkpoint, task vectors, the source of routes."""

import dataclasses
from pathlib import Path

from dataloader.errors import Faults, InputError, fault_context, in_short
from dataloader.jsonfile import load_json_object
from dataloader.task_splits import Split
from routing_moe.checkpoints.find import checkpoint_to_resume, checkpoint_to_start_from, find_vanilla
from routing_moe.config.choices import ROUTE_SOURCES
from routing_moe.config.train import ARCHITECTURE_FLAGS, ROUTING_FLAGS, TrainSettings
from routing_moe.model.given_routes import GivenRoutes
from routing_moe.model.saved_config import SavedConfig, load_bart_config, load_routing_config
from routing_moe.model.task_vectors import load_task_vectors
from routing_moe.task_choice.choice import VectorTable
from routing_moe.task_choice.given_routes import described, file_routes, names_file
from routing_moe.task_choice.given_vectors import GivenVectors
from routing_moe.task_choice.texts import TextSource

STORED_HINT = "; without --task_vector stored, they get the vector of their nearest task"


def gives_routes(settings: TrainSettings) -> bool:
    """Returns whether training starts with the routes of `--task_routes`; a resumed run has them already."""
    return bool(settings.task_routes) and settings.do_train and checkpoint_to_resume(settings) is None


def routing_fields(settings: TrainSettings, routes: GivenRoutes | None = None) -> dict:
    """Returns the run's num_experts, route_source, expert_mixing, router_mode and router_top_k.

    Also given_routes and route_parts, None if there are none. Values are those of the flags, else of the
    checkpoint that the run starts from, else of the given routes, else the defaults.
    """
    fields, config = settings.architecture(), {}
    fields["num_experts"] = settings.num_experts or (routes.num_experts if routes else fields["num_experts"])
    if checkpoint := checkpoint_to_start_from(settings):
        try:
            config = load_json_object(checkpoint / "config.json", "a model's configuration")
        except InputError:  # reported by `checkpoint_faults`
            config = {}
    names = ("num_experts", "route_source", *ROUTING_FLAGS)
    # `checkpoint_faults` reports values of another type.
    own = {name: config[name] for name in names if isinstance(config.get(name), type(fields[name]))}
    found = {
        name: own.get(name, fields[name]) if getattr(settings, name) is None else fields[name]
        for name in names
    }
    is_fixed = found["route_source"] == "fixed" and not settings.task_level_random_routing
    kept = {"given_routes": str, "route_parts": dict} if is_fixed else {}
    return (
        dict.fromkeys(("given_routes", "route_parts"))
        | found
        | {name: config[name] for name, kind in kept.items() if isinstance(config.get(name), kind)}
    )


def start_config(settings: TrainSettings, split: Split, routes: GivenRoutes | None) -> SavedConfig:
    """Returns the configuration of the model that training starts with. Its flags and files are valid."""
    found = routing_fields(settings, routes)
    fields = {name: found[name] for name in ("num_experts", "route_source", *ROUTING_FLAGS)}
    if checkpoint := checkpoint_to_start_from(settings):
        return dataclasses.replace(SavedConfig.load(checkpoint / "config.json"), **fields)
    fields = settings.architecture() | fields | {"task_names": list(split.all)}
    if settings.taskvecs and found["route_source"] == "learned":
        fields["task_names"], vectors_ND = load_task_vectors(settings.taskvecs)
        fields["router_input_dim"] = vectors_ND.shape[1]
    return dataclasses.replace(load_bart_config(settings.model), **fields)


def start_faults(
    settings: TrainSettings,
    split: Split | None,
    fields: dict,
    texts: TextSource | None,
    routes: GivenRoutes | None,
    ask_hub: bool,
) -> list[str]:
    """Returns faults of a start that is missing or contradictory, and of tasks that can get no vector.

    fields: `routing_fields`. texts: of the gyms and flags; None if these have faults. routes: of
    --task_routes. ask_hub: as of `load_bart_config`.
    """
    checkpoint = checkpoint_to_start_from(settings)
    faults = Faults()
    if settings.initialize_from_vanilla and settings.checkpoint:
        faults.append("--initialize_from_vanilla and --checkpoint both name a start; give one of them")
    if settings.vanilla_checkpoint:
        faults.of(find_vanilla, settings.vanilla_checkpoint, flag="vanilla_checkpoint")
    if not settings.do_train and not settings.do_predict:
        return faults
    if checkpoint is not None:
        return faults + checkpoint_faults(settings, checkpoint, split, fields, texts, routes)
    if settings.do_train and settings.initialize_from_vanilla:
        return faults + vanilla_faults(settings, split, fields, texts, routes, ask_hub)
    wanted = f"--checkpoint {settings.checkpoint}"
    if not settings.checkpoint:
        wanted = f"--output_dir {settings.output_dir} --checkpoint_name {settings.checkpoint_name}"
    hint = "; to train from a plain BART give --initialize_from_vanilla" if settings.do_train else ""
    return [*faults, f"{wanted}: no checkpoint there (a folder with a config.json){hint}"]


def vanilla_faults(
    settings: TrainSettings,
    split: Split | None,
    routing: dict,
    texts: TextSource | None,
    routes: GivenRoutes | None,
    ask_hub: bool,
) -> list[str]:
    """Returns faults of the plain BART's configuration with these flags, of task vectors and given routes."""
    faults = Faults()
    fields = settings.architecture() | {"num_experts": routing["num_experts"]}
    names = random = split.all if split and not settings.taskvecs else ()
    if settings.taskvecs and routing["route_source"] == "learned":
        loaded = faults.of(load_task_vectors, settings.taskvecs, flag="taskvecs")
        if loaded:
            names, vectors_ND = loaded
            faults += vector_faults(settings, names, vectors_ND.shape[1], split)
            fields["router_input_dim"] = vectors_ND.shape[1]
    if names:  # else --taskvecs or the split has faults
        faults += unseen_faults(settings, split, routing, texts, names, random)
    bart = faults.of(load_bart_config, settings.model, ask_hub and not faults, flag="model")
    if bart is None:
        return faults
    try:
        bart = dataclasses.replace(bart, **fields)
    except Exception as error:  # `strict` wraps the message of the configuration in an error of its own
        named = str(error.__cause__ or error).replace("router_input_dim is", "taskvecs_dim is")
        faults += [f"--{fault}" for fault in named.splitlines()]
    if routes:
        faults += fit_faults(
            settings, routes, bart, routing["num_experts"], f"--num_experts {settings.num_experts}"
        )
    return faults + position_faults(settings, bart.max_position_embeddings, settings.model)


def vector_faults(settings: TrainSettings, names: list[str], dim: int, split: Split | None) -> list[str]:
    faults = []
    if settings.taskvecs_dim not in (None, dim):
        faults.append(
            f"--taskvecs_dim is {settings.taskvecs_dim}, but the vectors of {settings.taskvecs} have {dim} "
            "dimensions; leave the flag out to use the file's"
        )
    lacking = sorted(set(split.train if split else ()) - set(names))
    if settings.do_predict and split and settings.task_vector == "stored":
        lacking = sorted({*lacking, *split.section(settings.predict_split)} - set(names))
    if lacking:
        faults.append(f"--taskvecs {settings.taskvecs} has no vector for {in_short(lacking)}")
    return faults


def checkpoint_faults(
    settings: TrainSettings,
    checkpoint: Path,
    split: Split | None,
    fields: dict,
    texts: TextSource | None,
    routes: GivenRoutes | None,
) -> list[str]:
    """Returns faults of the checkpoint's configuration with these flags and the tasks of the split."""
    faults = Faults()
    config = faults.of(load_routing_config, checkpoint)
    if config is None:
        return faults
    if settings.task_routes:
        faults += outside_faults(settings, checkpoint, split, config, fields, routes)
    wanted = set(split.train) if split and settings.do_train and not gives_routes(settings) else set()
    found_by_text = fields["route_source"] == "learned" and settings.task_vector != "stored"
    # Among given routes, a task without one gets equal weights.
    is_given = fields["route_source"] == "fixed" and (settings.task_routes or fields["given_routes"])
    if split and settings.do_predict and not found_by_text and not is_given:
        wanted |= set(split.section(settings.predict_split))
    needed = {"learned": "task vector", "fixed": "route"}.get(fields["route_source"])
    hint = "" if found_by_text or settings.do_train or needed != "task vector" else STORED_HINT
    names, random = (config.get(field) or () for field in ("task_names", "random_vectors"))
    lacking = sorted(wanted - set(names))
    if lacking and needed and fields["num_experts"] > 1:
        faults.append(
            f"{checkpoint} has no {needed} for {in_short(lacking)}; it knows the tasks of the split that it "
            f"was trained with{hint}"
        )
    predicts = split and settings.do_predict and not settings.do_train and settings.task_vector == "auto"
    reads_given = needed == "task vector" or fields["route_parts"]
    if settings.taskvecs and predicts and reads_given and fields["num_experts"] > 1:
        given = faults.of(tasks_given, settings, checkpoint, config, split) or set()
        names, random = {*names, *given}, set(random) - given
    faults += unseen_faults(settings, split, fields, texts, names, random)
    if not settings.do_train and not settings.prefix:
        faults += overwriting_faults(settings, checkpoint, config)
    faults += [
        f"--{flag} is {getattr(settings, flag)}, but {checkpoint} was trained with {config.get(field)}; "
        "leave the flag out to use the checkpoint's"
        for flag, field in ARCHITECTURE_FLAGS.items()
        if getattr(settings, flag) is not None and getattr(settings, flag) != config.get(field)
    ]
    return faults + position_faults(settings, config.get("max_position_embeddings", 1024), checkpoint)


def outside_faults(
    settings: TrainSettings,
    checkpoint: Path,
    split: Split | None,
    config: dict,
    fields: dict,
    routes: GivenRoutes | None,
) -> list[str]:
    """Returns faults of `--task_routes` for a checkpoint: trained further along them, or scored."""
    faults, saved = Faults(), SavedConfig.of(config, checkpoint / "config.json")
    if gives_routes(settings):
        if settings.task_routes_as == "start":
            faults.append(
                "--task_routes_as is start, which needs a new router: give --initialize_from_vanilla"
            )
        elif routes:
            faults += fit_faults(settings, routes, saved, saved.num_experts, str(checkpoint))
    elif not settings.do_train and settings.route_source == "fixed":
        if names_file(settings.task_routes):
            if split and (found := faults.of(file_routes, settings, split)):
                faults += fit_faults(settings, found, saved, saved.num_experts, str(checkpoint))
        elif described(settings) != fields["given_routes"]:
            faults.append(
                f"--task_routes is {settings.task_routes}, which a model is trained with; without --do_train "
                "give a file (.json or .npy) with the routes of the scored tasks"
            )
    return list(faults)


def fit_faults(
    settings: TrainSettings, routes: GivenRoutes, config, num_experts: int, what: str
) -> list[str]:
    """Returns faults of given routes that do not fit the model's layers or number of experts (of `what`)."""
    faults = Faults()
    if routes.least_experts > num_experts:
        faults.append(
            f"--task_routes {settings.task_routes} routes {routes.num_experts} experts, but {what} has only "
            f"{num_experts}"
        )
    sizes = config.encoder_layers, config.decoder_layers, max(num_experts, routes.least_experts)
    faults.of(routes.matrices, *sizes, config.routed_rows, flag=f"task_routes {routes.source}:")
    return list(faults)


def tasks_given(settings: TrainSettings, checkpoint: Path, config: dict, split: Split) -> set[str]:
    """Returns the scored tasks that take their vector from `--taskvecs`, none of them trained on.

    Raises InputError if the router cannot read the vectors, if none is of such a task, or if they replace
    different stored vectors without a --prefix for the scores.
    """
    trained = trained_on(config, split)
    untrained = [task for task in split.section(settings.predict_split) if task not in trained]
    if not untrained:
        return set()
    with fault_context("--taskvecs "):
        vectors = GivenVectors.load(settings.taskvecs)
    if faults := vectors.faults(checkpoint, SavedConfig.of(config, checkpoint / "config.json")):
        raise InputError(faults)
    given = set(untrained) & set(vectors.names)
    if not given:
        raise InputError(f"--taskvecs {settings.taskvecs} has no vector for {in_short(untrained)}")
    stored = dict(zip(*load_task_vectors(checkpoint), strict=True))
    random, rows = config.get("random_vectors") or (), vectors.by_name
    replaced = [
        task for task in sorted(given & set(stored) - set(random)) if (stored[task] != rows[task]).any()
    ]
    if replaced and not settings.prefix:
        raise InputError(
            f"{checkpoint} has other task vectors of {in_short(replaced)}; to score them with those of "
            f"--taskvecs {settings.taskvecs} give --prefix, so that its own scores are not overwritten"
        )
    return given


def trained_on(config: dict, split: Split) -> set[str]:
    """Returns the tasks that a checkpoint was trained on; if it lists none, the split's train tasks."""
    return set(config.get("trained_tasks") or split.train)


def unseen_faults(
    settings: TrainSettings, split: Split | None, fields: dict, texts: TextSource | None, names, random
) -> list[str]:
    """Returns faults of scored tasks that need the vector of their nearest task if it cannot be found.

    names: tasks that the start has vectors of; random: tasks with a random vector.
    """
    has_router = fields["route_source"] == "learned" and fields["num_experts"] > 1
    if not (settings.do_predict and has_router and split and texts):
        return []
    if settings.do_train:
        random = set(random) - set(split.train)
    table = VectorTable.of(names, random, split.train)
    needing = table.needing_nearest(split.section(settings.predict_split), settings.task_vector)
    return texts.faults(needing, table.seen) if needing else []


def overwriting_faults(settings: TrainSettings, checkpoint: Path, config: dict) -> list[str]:
    """Returns faults of a prediction with another source of routes, which overwrites the run's scores."""
    source, given = config.get("route_source", "learned"), config.get("given_routes")
    other = [
        f"--{flag} {config.get(flag)}"
        for flag in ROUTING_FLAGS
        if getattr(settings, flag) not in (None, config.get(flag))
    ]
    redrawn = settings.task_level_random_routing and given
    if settings.route_source not in (None, source) or redrawn:
        other.insert(0, f"given routes ({given})" if given else f"{ROUTE_SOURCES.get(source)} routes")
    if not other:
        return []
    return [
        f"{checkpoint} was trained with {' and '.join(other)}; to score it with other routes give --prefix, "
        "so that its own scores are not overwritten"
    ]


def position_faults(
    settings: TrainSettings, positions: int, where, lengths=("max_input_length", "max_output_length")
) -> list[str]:
    return [
        f"--{name} is {getattr(settings, name)}, but {where} has {positions} positions"
        for name in lengths
        if getattr(settings, name) > positions
    ]
