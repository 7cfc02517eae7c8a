"""Makes a mixture of models that were trained separately, or one BART with the mean of their weights.

A mixture has one expert for each model, and one-hot routes by name. Experts are adapters of peft on a BART
that they share, or fine-tuned plain BARTs. Embeddings, and norms outside the layers, are those of the base:
if they were not trained, each task's route is exactly its own model. The mean of runs with other seeds from
the same start is a model soup (Wortsman et al. 2022, arXiv 2203.05482); a mixture counts as the mean of its
experts' parameters, as in MHR-mu (Caccia et al. 2022). `assembled.json`, `averaged.json` describe the inputs.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from dataloader.checksums import sha256
from dataloader.errors import InputError, Problems, in_short, problem_context
from dataloader.gym import Gym
from routing_moe.checkpoints.find import SavedBart, SavedMixture, check_one_expert, find_model, find_plain
from routing_moe.checkpoints.folder import save_checkpoint
from routing_moe.checkpoints.tokenizer_files import keeps_tokenizer, load_tokenizer
from routing_moe.config.assemble import ADAPTER_FILE, WEIGHTS_FILE, AssembleSettings, AverageSettings
from routing_moe.config.flags import Command, flag_problems
from routing_moe.io.files import new_folder_problems
from routing_moe.io.hub import is_on_hub
from routing_moe.io.run_folder import describe_run

ASSEMBLED_FILE, AVERAGED_FILE = "assembled.json", "averaged.json"
# Fields of a BART that must be equal for its layers to be experts of another.
SIZES = (
    *("vocab_size", "d_model", "encoder_layers", "decoder_layers", "encoder_attention_heads"),
    *("decoder_attention_heads", "encoder_ffn_dim", "decoder_ffn_dim", "max_position_embeddings"),
    *("activation_function", "scale_embedding", "tie_word_embeddings", "decoder_start_token_id"),
)
Models = Mapping[str, SavedBart | SavedMixture]  # by name or place


def check_assembly(settings: AssembleSettings) -> tuple[SavedBart | SavedMixture, Models, dict[str, Path]]:
    """Returns (base, {name: plain BART}, {name: folder of an adapter}). Raises InputError."""
    problems = Problems(flag_problems(settings) + new_folder_problems("output_dir", settings.output_dir))
    if len(settings.places) < max(2, len(settings.experts)) or not all(settings.places.values()):
        problems.append("--experts: give at least 2, each as NAME=PLACE with another name")
    if settings.train_dir and (gym := problems.of(Gym, settings.train_dir, flag="train_dir")):
        problems.of(gym.pool, settings.places, "train", "first")
    adapters = {
        name: Path(place) for name, place in settings.places.items() if Path(place, ADAPTER_FILE).exists()
    }
    base = problems.of(find_model, settings.base, None, f"base {settings.base}/NAME", flag="base")
    barts = {
        name: problems.of(
            find_plain, place, settings.base, f"experts {name}={place}/NAME", flag=f"experts {name}:"
        )
        for name, place in settings.places.items()
        if name not in adapters
    }
    if problems:
        raise InputError(problems)
    with problem_context("--base "):
        check_one_expert(base, "give a plain BART")
    for name, bart in barts.items():
        with problem_context(f"--experts {name}: "):
            check_one_expert(bart, "give one with 1 expert, as export writes")
            check_size(bart, base)
    return base, barts, adapters


def check_average(settings: AverageSettings) -> Models:
    """Returns the models by their places. Raises InputError."""
    problems = Problems(flag_problems(settings) + new_folder_problems("output_dir", settings.output_dir))
    if len(set(settings.runs)) < len(settings.runs):
        problems.append(f"--runs names a model twice: {' '.join(settings.runs)}")
    models = {
        place: problems.of(find_model, place, settings.checkpoint_name, flag="runs")
        for place in settings.runs
    }
    if problems:
        raise InputError(problems)
    with problem_context("--runs "):
        for model in models.values():
            check_size(model, models[settings.runs[0]])
    return models


def check_size(model: SavedBart | SavedMixture, reference: SavedBart | SavedMixture) -> None:
    """Raises InputError for a model with other sizes or another vocabulary than the reference."""
    for size in SIZES:
        value, wanted = getattr(model.config, size), getattr(reference.config, size)
        if value != wanted:
            raise InputError(f"{model.place} has {size} {value!r}; {reference.place} has {wanted!r}")
    words = [
        load_tokenizer(saved.place, saved.config.vocab_size).get_vocab()
        for saved in (model, reference)
        if keeps_tokenizer(saved.place)
    ]
    if len(words) == 2 and words[0] != words[1]:
        raise InputError(f"{model.place} has another vocabulary than {reference.place}")


def assemble(
    settings: AssembleSettings, base: SavedBart | SavedMixture, barts: Models, adapters: dict[str, Path]
):
    """Returns (mixture, notes for the user). Raises InputError if files are broken or do not match."""
    import torch  # takes seconds

    from routing_moe.checkpoints.adapters import fill_expert, lora_fields, merged, read_adapter
    from routing_moe.model.base import refer_to_base
    from routing_moe.model.conversion import weights_of_layers
    from routing_moe.model.given_routes import ALL, GivenRoutes
    from routing_moe.model.modeling import RoutingBartForConditionalGeneration

    torch.manual_seed(settings.seed)
    with problem_context("--base "):
        plain = base.load().to_bart()
    names, is_lora, updates, trained = list(settings.places), not barts, {}, []
    for name, folder in adapters.items():
        with problem_context(f"--experts {name}: "):
            updates[name] = read_adapter(plain, folder)
    fields = lora_fields(updates.values()) if is_lora else {}
    fields |= dict(route_source="fixed", task_names=names, trained_tasks=names)
    model = RoutingBartForConditionalGeneration.from_bart(plain, len(names), 0.0, **fields)
    for expert, name in enumerate(names):
        if is_lora:
            fill_expert(model, expert, updates[name])
            continue
        with problem_context(f"--experts {name}: "):
            bart = merged(plain, updates[name]) if name in updates else barts[name].load().to_bart()
        state = bart.state_dict()
        for layer, weights in weights_of_layers(model, state):
            layer.experts[expert].load_state_dict(weights)
        outside = {key: tensor for key, tensor in plain.state_dict().items() if ".layers." not in key}
        if not all(torch.equal(tensor, state[key]) for key, tensor in outside.items()):
            trained.append(name)
    if is_lora:
        refer_to_base(model, settings.base if is_on_hub(settings.base) else base.place)
    routes = {name: {ALL: expert} for expert, name in enumerate(names)}
    model.use_given_routes(GivenRoutes(f"one expert of {len(names)} for each task", routes))
    notes = keep_text_settings(model, barts)
    if trained:
        notes.append(
            f"note: the embeddings of {in_short(trained)} are not those of the base, which all share: "
            "answers are not exactly those of the models; finetune --freeze_embeds keeps the base's"
        )
    return model, notes


def average(models: Models):
    """Returns (a BART of one expert with the mean of the models' weights, notes for the user)."""
    import torch  # takes seconds

    from routing_moe.model.modeling import RoutingBartForConditionalGeneration

    mean, trained = {}, set()
    for i, (place, saved) in enumerate(models.items()):  # one model at a time is in memory
        with problem_context(f"--runs {place}: "):
            model = saved.load()
        config = model.config
        if not config.has_lora:  # whose parameters are mixed anyway
            config.expert_mixing = "parameters"
        bart = model.to_bart(torch.full((config.num_layers, config.num_experts), 1 / config.num_experts))
        state = bart.state_dict()
        mean = {name: mean.get(name, tensor).lerp(tensor, 1 / (i + 1)) for name, tensor in state.items()}
        trained |= set(config.trained_tasks)
    bart.load_state_dict(mean)
    fields = dict(label_smoothing=config.label_smoothing, task_names=sorted(trained))
    averaged = RoutingBartForConditionalGeneration.from_bart(
        bart, 1, 0.0, trained_tasks=sorted(trained), **fields
    )
    return averaged, keep_text_settings(averaged, models)


def keep_text_settings(model, models: Models) -> list[str]:
    """Keeps how texts are read and answered, if all models that say so agree; returns notes."""
    known = {name: saved.config.text_settings for name, saved in models.items() if saved.config.text_settings}
    first = next(iter(known.values()), None)
    if different := [name for name in known if known[name] != first]:
        return [
            f"note: {in_short(different)} read texts in other ways than {next(iter(known))}: none is kept"
        ]
    model.config.text_settings = first
    return []


def write(settings: Command, model, sources: dict, folder: Path, command: list[str]) -> None:
    """Writes a checkpoint and what it was made of to a folder, atomically.

    sources: {name: model, or folder of an adapter}; the first has the tokenizer.
    """
    files = {
        name: [source / ADAPTER_FILE, source / WEIGHTS_FILE] if isinstance(source, Path) else source.files()
        for name, source in sources.items()
    }
    checksums = {name: {file.name: sha256(file) for file in paths} for name, paths in files.items()}
    written = json.loads(json.dumps(settings.to_dict(), default=str))
    made_of = json.dumps(describe_run(written, command) | {"made_of": checksums}, indent=1).encode()
    tokenizer = load_tokenizer(next(iter(sources.values())).place, model.config.vocab_size)
    name = ASSEMBLED_FILE if isinstance(settings, AssembleSettings) else AVERAGED_FILE
    save_checkpoint(model, tokenizer, folder, keep={name: made_of})
