"""Makes a mixture of models that were trained separately, or one model of their merged weights.

A mixture has one expert for each model, and one-hot routes by name. Experts are adapters of peft on a model
that they share, or the layers of fine-tuned BARTs. Embeddings, and norms outside the layers, are those of the
base: if they were not trained, each task's route is exactly its own model. The mean of runs with other seeds
from the same start is a model soup (Wortsman et al. 2022, arXiv 2203.05482), and that of a mixture's experts
is as in MHR-mu (Caccia et al. 2022); `model/mergers.py` has other mergers.
"""

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from dataloader.checksums import sha256
from dataloader.errors import InputError, in_short, problem_context
from routing_moe.checkpoints.adapter_places import adapter_folders, check_are_adapters, notes_on_bases
from routing_moe.checkpoints.adapter_texts import ADAPTER_TEXTS, keep_texts, texts_of_adapters
from routing_moe.checkpoints.find import SavedMixture, SavedPlain, check_one_expert, find_model, find_plain
from routing_moe.checkpoints.folder import save_checkpoint
from routing_moe.checkpoints.tokenizer_files import load_tokenizer
from routing_moe.config.assemble import ADAPTER_FILE, WEIGHTS_FILE, AssembleSettings, AverageSettings
from routing_moe.config.choices import PRUNING, ROUTING_BART
from routing_moe.config.shared import given_texts
from routing_moe.io.files import new_folder_problems
from routing_moe.io.hub import is_on_hub
from routing_moe.io.run_folder import describe_run

AVERAGED_FILE = "averaged.json"
FIELDS = (  # of a plain model, that must be equal so that weights of one can be those of another
    *("model_type", "vocab_size", "d_model", "encoder_layers", "decoder_layers", "encoder_attention_heads"),
    *("decoder_attention_heads", "encoder_ffn_dim", "decoder_ffn_dim", "max_position_embeddings"),
    *("num_layers", "num_decoder_layers", "num_heads", "d_kv", "d_ff", "feed_forward_proj"),  # of a T5
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),  # without an encoder
    *("num_key_value_heads", "head_dim", "tie_word_embeddings", "attention_bias", "mlp_bias"),
    *("activation_function", "hidden_act", "scale_embedding"),
    *("rope_parameters", "rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "sliding_window"),
    *("query_pre_attn_scalar", "attn_logit_softcapping", "final_logit_softcapping"),  # of a Gemma
    *("attention_multiplier", "embedding_multiplier", "residual_multiplier", "logits_scaling"),  # Granite
)
Model = SavedPlain | SavedMixture


def check_alike(model: Model, reference: Model) -> None:
    """Raises InputError for another model or vocabulary. Runs of the published code keep no tokenizer."""
    plain, known = (getattr(saved.config, "backbone", saved.config) for saved in (model, reference))
    for field in FIELDS:
        value, wanted = getattr(plain, field, None), getattr(known, field, None)
        if value != wanted:
            raise InputError(f"{model.place} has {field} {value!r}; {reference.place} has {wanted!r}")
    read = [saved for saved in (model, reference) if isinstance(saved, Model)]
    vocabularies = [load_tokenizer(m.place, m.config.vocab_size).get_vocab() for m in read]
    if vocabularies[1:] and vocabularies[0] != vocabularies[1]:
        raise InputError(f"{model.place} has another vocabulary than {reference.place}")


def find_base(place: str) -> Model:
    """Returns the plain model of --base. Raises InputError."""
    base = find_model(place, None, f"base {place}/NAME")
    check_one_expert(base, "give a plain model")
    if Path(base.place, ADAPTER_FILE).is_file():  # transformers would add it to the weights
        raise InputError(f"{place} has an adapter beside the model; move {ADAPTER_FILE} to another folder")
    from routing_moe.model.loading import check_not_quantized  # with torch, as a configuration

    check_not_quantized(base.config, f"give the model of float weights that {place} was made of")
    return base


def models_to_assemble(settings: AssembleSettings) -> dict[str, Model | Path]:
    """Returns {base, experts/NAME, ...: saved model or folder of an adapter}. Raises InputError."""
    if not settings.keeps and (problems := new_folder_problems("output_dir", settings.output_dir)):
        raise InputError(problems)
    places = settings.places
    if len(places) < 2:
        raise InputError(f"--experts {settings.experts[0]} is a single one; a mixture has at least 2 experts")
    with problem_context("--base "):
        base = find_base(settings.base)
    experts = adapter_folders("experts", places)
    if any(experts.values()) or base.config.model_type != ROUTING_BART:
        check_are_adapters("experts", places, experts)
    else:
        for name, place in places.items():
            with problem_context(f"--experts {name}: "):
                experts[name] = find_plain(place, settings.base, f"experts {name}={place}/NAME")
                check_one_expert(experts[name], "give one with 1 expert, as export writes")
                check_alike(experts[name], base)
    return {"base": base} | {f"experts/{name}": expert for name, expert in experts.items()}


def assemble(settings: AssembleSettings, sources: Mapping[str, Model | Path]):
    """Returns (mixture of `models_to_assemble`, notes for the user)."""
    base, *experts = sources.values()
    experts = dict(zip(settings.places, experts, strict=True))
    if isinstance(next(iter(experts.values())), Path):
        notes = notes_on_bases("experts", settings.base, base, experts)
        model = mixture_of_adapters("experts", settings.base, base, experts)
        texts, unknown = texts_of_adapters(experts)
        notes += unknown
    else:
        model, notes = mixture_of_barts(base, experts)
        texts = model.config.text_settings
    return model, notes + keep_texts(model, texts, given_texts(settings), "--experts")


def mixture_of_adapters(
    flag: str, place: str, base: Model, folders: Mapping[str, Path], others: Sequence[str] = (), **sizes
):
    """Returns a mixture of the base at a place, with an expert for each adapter, whose flag is given.

    others: names of further experts, which change nothing. sizes: of one of them, as for `lora_fields`.
    """
    import torch  # takes seconds

    from routing_moe.checkpoints.adapters import fill_expert, lora_fields, read_adapter
    from routing_moe.model.base import refer_to_base

    plain, updates = base.load().to_plain(dtype=torch.float32).float(), {}
    for name, folder in folders.items():
        with problem_context(f"--{flag} {name}: "):
            updates[name] = read_adapter(plain, folder)
    fields = lora_fields(updates.values(), **sizes) | dict(weights_seen=base.config.weights_seen)
    model = routed_by_name(plain, [*folders, *others], **fields)
    for expert, adapter in enumerate(updates.values()):
        fill_expert(model, expert, adapter)
    refer_to_base(model, place if is_on_hub(place) else base.place)
    return model


def mixture_of_barts(base: Model, barts: Mapping[str, Model]):
    """Returns (mixture, notes for the user)."""
    import torch  # takes seconds

    plain, trained = base.load().to_plain(), []
    model = routed_by_name(plain, list(barts), weights_seen=base.config.weights_seen)
    outside = {key: tensor for key, tensor in plain.state_dict().items() if ".layers." not in key}
    for expert, (name, bart) in enumerate(barts.items()):
        with problem_context(f"--experts {name}: "):
            state = bart.load().to_plain().state_dict()
        in_layer = rf"\g<0>experts.{expert}."
        own = {re.sub(r"\.layers\.\d+\.", in_layer, key): tensor for key, tensor in state.items()}
        model.load_state_dict({key: own[key] for key in own if ".layers." in key}, strict=False)
        if not all(torch.equal(tensor, state[key]) for key, tensor in outside.items()):
            trained.append(name)
    notes = keep_what_is_known(model, barts)
    if trained:
        notes.append(
            f"note: the embeddings of {in_short(trained)} are not those of the base, which all share: "
            "answers are not exactly those of the models; finetune --freeze_embeds keeps the base's"
        )
    return model, notes


def routed_by_name(plain, names: list[str], **fields):
    """Returns a mixture of a plain model with an expert, and a one-hot route to it, for each name."""
    import torch

    from routing_moe.model.given_routes import GivenRoutes, same_expert
    from routing_moe.model.mixtures import mixture_of

    torch.manual_seed(42)  # of rows of low-rank experts that an adapter of lower rank does not fill
    fields |= dict(route_source="fixed", task_names=names, trained_tasks=names)
    model = mixture_of(plain, len(names), **fields)
    routes = {name: same_expert(expert) for expert, name in enumerate(names)}
    model.use_given_routes(GivenRoutes(f"one expert of {len(names)} for each task", routes))
    return model


def models_to_average(settings: AverageSettings) -> tuple[dict[str, Model], Model | None]:
    """Returns ({place: model}, that of --base). Raises InputError."""
    if problems := new_folder_problems("output_dir", settings.output_dir):
        raise InputError(problems)
    with problem_context("--runs "):
        models = {place: find_model(place, settings.checkpoint_name) for place in settings.runs}
        if len({os.path.abspath(model.place) for model in models.values()}) < len(settings.runs):
            raise InputError(f"names a model twice: {' '.join(settings.runs)}")
        first, *others = models.values()
        for model in others:
            check_alike(model, first)
    if problems := merger_problems(settings, first.config):
        raise InputError(problems)
    with problem_context("--base "):
        if base := settings.base and find_base(settings.base):
            check_alike(base, first)
    return models, base


def merger_problems(settings: AverageSettings, first) -> list[str]:
    """Returns contradictions between a merger, its flags and the runs. first: a run's configuration."""
    merger, is_single = settings.merger, len(settings.runs) == 1
    if is_single and first.num_experts == 1:
        return [f"--runs {settings.runs[0]} is one plain model; name several, or a mixture"]
    shares_base = is_single and first.has_lora  # whose experts are updates of one base
    what, needed = f"--merger {merger}" + (" of low-rank experts" if shares_base else ""), set()
    allowed = {"lora_parts"} if shares_base else set()
    if merger != "mean":
        allowed |= {"scale"}
        needed |= set() if shares_base else {"base"}
    if merger in PRUNING:
        needed |= {"density"}
    elif merger not in ("mean", "task_arithmetic"):  # of a plug-in
        allowed |= {"density"}
    values = {name: getattr(settings, name) for name in ("base", "scale", "density", "lora_parts")}
    given = {name: value for name, value in values.items() if value is not None}
    refused = [name for name in given if name not in allowed | needed]
    problems = [f"--{name} {given[name]}: {what} takes none" for name in refused]
    return problems + [f"{what} needs --{name}" for name in sorted(needed - set(given))]


def average(settings: AverageSettings):
    """Returns (model of one expert with the merged weights, {place: model, of --base, too}, notes)."""
    models, base = models_to_average(settings)
    import torch  # takes seconds

    from routing_moe.model.mergers import merged
    from routing_moe.model.mixtures import mixture_of, weights_of_experts

    how = dict(trim=settings.trim, density=settings.density or 1.0, scale=settings.scale or 1.0)
    generator = torch.Generator().manual_seed(settings.seed)
    merge = partial(merged, merger=settings.merger, **how, generator=generator)
    found, states, trained = {}, [], set()
    start = base.load().to_plain(dtype=torch.float32).float().state_dict() if base else None
    for i, (place, saved) in enumerate(models.items()):  # a mean has one model at a time in memory
        with problem_context(f"--runs {place}: "):
            model = saved.load()
        config = model.config
        trained |= set(config.trained_tasks)
        if config.has_lora:
            for linear in [linear for layer in model.lora_layers for linear in layer.linear_maps.values()]:
                linear.mixing = "products"  # also where routes mix factors
        else:
            config.expert_mixing = "parameters"
        if settings.lora_parts == "factors":  # of a single run
            plain = plain_of_merged_factors(model, merge)
            break
        equal_LE = torch.full((config.num_layers, config.num_experts), 1 / config.num_experts)
        plain = model.to_plain(equal_LE, dtype=torch.float32).float()
        state = plain.state_dict()
        if settings.merger == "mean":
            found = {name: found.get(name, t).lerp(t, 1 / (i + 1)) for name, t in state.items()}
        elif len(models) > 1:
            states.append({name: state[name] for name, _ in plain.named_parameters()})  # tied ones once
        else:
            states = weights_of_experts(model)
            start = start or model.to_plain(torch.zeros_like(equal_LE)).state_dict()
    if states:
        found = merge(states, start)
    plain.load_state_dict(found, strict=False)
    names = dict.fromkeys(("task_names", "trained_tasks"), sorted(trained))
    averaged = mixture_of(plain, label_smoothing=config.label_smoothing, **names)
    sources = models | ({"--base": base} if base else {})
    return averaged, sources, keep_what_is_known(averaged, models)


def plain_of_merged_factors(mixture, merge: Callable):
    """Returns the plain model whose update has the merged factors A and B of all low-rank experts."""
    import torch  # takes seconds

    from routing_moe.model.lora import is_of_expert

    factors = {name: p.detach() for name, p in mixture.named_parameters() if is_of_expert(name)}
    for name, A in factors.items():
        if name.endswith("lora_A"):  # rows that an adapter does not fill are random
            A *= (factors[name.removesuffix("A") + "B"] != 0).any(dim=-1, keepdim=True)
    first, *others = ({name: p[e] for name, p in factors.items()} for e in range(mixture.config.num_experts))
    found = merge([first, *others], {name: torch.zeros_like(tensor) for name, tensor in first.items()})
    for name, tensor in found.items():
        first[name].copy_(tensor)
    only_first_E = torch.eye(mixture.config.num_experts)[0]
    return mixture.to_plain(only_first_E.expand(mixture.config.num_layers, -1), dtype=torch.float32).float()


def keep_what_is_known(model, models: Mapping[str, Model]) -> list[str]:
    """Keeps what models have seen, and how texts are read and answered if all agree; returns notes."""
    model.config.note_seen(*(saved.config.weights_seen for saved in models.values()))
    known = {name: saved.config.text_settings for name, saved in models.items() if saved.config.text_settings}
    first, templates = next(iter(known.values()), None), [m.config.input_templates for m in models.values()]
    model.config.input_templates = {task: text for kept in templates for task, text in (kept or {}).items()}
    if different := [name for name in known if known[name] != first]:
        others = f"{in_short(different)} read texts in other ways than {next(iter(known))}"
        return [f"note: {others}: none is kept"]
    model.config.text_settings = first
    return []


def made_of(sources: Mapping[str, Model | Path]) -> dict[str, dict[str, str]]:
    """Returns {name: {file: SHA-256}} of models and of folders of adapters."""
    hashed = {}
    for name, source in sources.items():
        is_adapter = isinstance(source, Path)
        of_adapter = (ADAPTER_FILE, WEIGHTS_FILE, ADAPTER_TEXTS)
        files = [source / file for file in of_adapter] if is_adapter else source.files()
        hashed[name] = {path.name: sha256(path) for path in files if path.is_file()}
    return hashed


def write(
    settings: AssembleSettings | AverageSettings,
    model,
    sources: Mapping[str, Model | Path],
    file: str,
    command: list[str],
):
    """Writes the checkpoint, atomically, and to `file` what it was made of. The tokenizer is the first's."""
    described = describe_run(settings.to_dict(), command)
    described["made_of"] = made_of(sources) | given_texts(settings)
    content = json.dumps(described, indent=1, default=str).encode()
    tokenizer = load_tokenizer(next(iter(sources.values())).place, model.config.vocab_size)
    save_checkpoint(model, tokenizer, settings.output_dir, keep={file: content})
