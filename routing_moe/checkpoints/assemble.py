"""Makes a mixture of models that were trained separately: one expert each, and one-hot routes by name.

Experts are adapters of peft on a BART that they share, or fine-tuned plain BARTs. Layer i of expert e is
layer i of model e; embeddings, and norms outside the layers, are the same for all. If they were not trained,
each task's route is exactly its own model. `assembled.json` describes the inputs.
"""

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dataloader.checksums import sha256
from dataloader.errors import InputError, Problems, did_you_mean, in_short, problem_context
from dataloader.gym import Gym
from routing_moe.checkpoints.find import SavedBart, SavedMixture, check_one_expert, find_model, find_plain
from routing_moe.checkpoints.folder import save_checkpoint
from routing_moe.checkpoints.tokenizer_files import keeps_tokenizer, load_tokenizer
from routing_moe.config.assemble import ADAPTER_FILE, BASE, MEAN, AssembleSettings
from routing_moe.config.flags import Command, flag_problems
from routing_moe.io.files import new_folder_problems
from routing_moe.io.hub import is_on_hub
from routing_moe.io.run_folder import describe_run

if TYPE_CHECKING:
    from torch import Tensor

    from routing_moe.checkpoints.adapters import Adapter
    from routing_moe.model.modeling import RoutingBartForConditionalGeneration

ASSEMBLED_FILE = "assembled.json"
# Fields of a BART that must be equal for its layers to be experts of another.
SIZES = (
    *("vocab_size", "d_model", "encoder_layers", "decoder_layers", "encoder_attention_heads"),
    *("decoder_attention_heads", "encoder_ffn_dim", "decoder_ffn_dim", "max_position_embeddings"),
    *("activation_function", "scale_embedding", "tie_word_embeddings", "decoder_start_token_id"),
)


@dataclass(frozen=True, eq=False)
class Sources:
    """The checked inputs. kind: of the experts. experts: {name: model}, in the order of their numbers."""

    kind: str
    base: SavedBart | SavedMixture
    experts: Mapping[str, "Adapter | SavedBart | SavedMixture"]

    @property
    def adapters(self) -> dict[str, "Adapter"]:
        from routing_moe.checkpoints.adapters import Adapter

        return {name: source for name, source in self.experts.items() if isinstance(source, Adapter)}

    def made_of(self) -> dict:
        """Returns {source: {file: SHA-256}} of all weights, and of the configurations of adapters."""
        read = {f"experts/{name}": adapter.checksums for name, adapter in self.adapters.items()}
        sources = {"base": self.base} | {f"experts/{name}": one for name, one in self.experts.items()}
        return {
            name: read.get(name) or {file.name: sha256(file) for file in one.files()}
            for name, one in sources.items()
        }


# ---- checks


def check_assembly(settings: AssembleSettings) -> Sources:
    """Returns the models, after all checks. Raises one InputError with all problems."""
    problems = Problems(flag_problems(settings) + name_problems(settings))
    problems += new_folder_problems("output_dir", settings.output_dir)
    gym = problems.of(Gym, settings.train_dir, flag="train_dir") if settings.train_dir else None
    if gym:
        problems += gym.check(settings.places, ["train"], "first", metrics=False)
    base = problems.of(find_model, settings.base, None, f"base {settings.base}/NAME", flag="base")
    experts = {
        name: problems.of(find_expert, name, place, settings.base, flag=f"experts {name}:")
        for name, place in settings.places.items()
    }
    if problems:
        raise InputError(problems)
    kind = settings.expert_kind or "layer"
    sources = Sources(kind, base, experts)
    if settings.expert_kind is None and len(sources.adapters) == len(experts):
        sources = dataclasses.replace(sources, kind="lora")
    check_fit(sources, settings)
    return sources


def name_problems(settings: AssembleSettings) -> list[str]:
    """Returns problems of the names of experts, and of --embeddings, which may be one."""
    wrong = [one for one in settings.experts if not all(one.partition("=")[::2])]
    if wrong:
        return [f"--experts {one!r}: give the task's name and its model as NAME=PLACE" for one in wrong]
    problems, names = [], [expert.partition("=")[0] for expert in settings.experts]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        problems.append(f"--experts: {in_short(repeated)} given more than once")
    if len(names) < 2:
        problems.append("--experts: a mixture needs at least 2")
    if settings.embeddings not in (BASE, MEAN, *names):
        hint = did_you_mean(settings.embeddings, [BASE, MEAN, *names])
        problems.append(
            f"--embeddings is {settings.embeddings!r}; it must be base, mean or a name of --experts{hint}"
        )
    return problems


def find_expert(name: str, place: str, base: str) -> "Adapter | SavedBart | SavedMixture":
    if Path(place, ADAPTER_FILE).is_file():
        from routing_moe.checkpoints.adapters import read_adapter  # imports torch, which takes seconds

        return read_adapter(place)
    return find_plain(place, base, f"experts {name}={place}/NAME")


def check_fit(sources: Sources, settings: AssembleSettings) -> None:
    """Raises one InputError for models of other kinds, sizes or vocabularies than the base."""
    problems = Problems()
    with problem_context("--base "):
        check_one_expert(sources.base, "give a plain BART")
        base, words = sources.base.config, vocabulary(sources.base)
    adapters = sources.adapters
    if sources.kind == "lora" and settings.embeddings != BASE:
        problems.append(f"--embeddings is {settings.embeddings}, but adapters share those of the base")
    for name, source in sources.experts.items():
        if name in adapters:
            continue
        if sources.kind == "lora":
            problems.append(f"--expert_kind is lora, but {name} is no adapter of peft: a complete BART")
            continue
        with problem_context(f"--experts {name}: "):
            check_one_expert(source, "give one with 1 expert, as export writes")
            found = size_problems(source, base, words, "the base")
            problems += [f"--experts {name}: {problem}" for problem in found]
    if problems:
        raise InputError(problems)


def size_problems(source: SavedBart | SavedMixture, config, words: dict[str, int], other: str) -> list[str]:
    """Returns the differences of a model from another one, in size or vocabulary.

    config, words: configuration and vocabulary of the other one, which is called `other`.
    """
    different = [
        f"{source.place} has {size} {getattr(source.config, size)!r}; {other} has {getattr(config, size)!r}"
        for size in SIZES
        if getattr(source.config, size) != getattr(config, size)
    ]
    if not different and keeps_tokenizer(source.place) and vocabulary(source) != words:
        return [f"{source.place} has another vocabulary than {other}"]
    return different


def vocabulary(source: SavedBart | SavedMixture) -> dict[str, int]:
    return load_tokenizer(source.place, source.config.vocab_size).get_vocab()


# ---- assembling


def assemble(
    settings: AssembleSettings, sources: Sources
) -> tuple["RoutingBartForConditionalGeneration", list[str]]:
    """Returns (model, notes for the user). Raises InputError if files are broken or do not match."""
    import torch  # takes seconds

    from routing_moe.checkpoints.adapters import fill_expert, lora_fields
    from routing_moe.model.base import refer_to_base
    from routing_moe.model.given_routes import ALL, GivenRoutes
    from routing_moe.model.modeling import RoutingBartForConditionalGeneration

    torch.manual_seed(settings.seed)
    names = list(sources.experts)
    with problem_context("--base "):
        base = sources.base.load().to_bart()
    fields = lora_fields(sources.adapters.values()) if sources.kind == "lora" else {}
    fields |= dict(route_source="fixed", task_names=names, trained_tasks=names)
    model = RoutingBartForConditionalGeneration.from_bart(base, len(names), 0.0, **fields)
    notes = base_notes(settings, sources)
    if sources.kind == "lora":
        for expert, (name, adapter) in enumerate(sources.adapters.items()):
            with problem_context(f"--experts {name}: "):
                fill_expert(model, expert, adapter)
        refer_to_base(model, settings.base if is_on_hub(settings.base) else sources.base.place)
    else:
        notes += fill_layers(model, base, settings, sources)
    routes = {name: {ALL: expert} for expert, name in enumerate(names)}
    model.use_given_routes(GivenRoutes(f"one expert of {len(names)} for each task", routes))
    return model, [*notes, *text_notes(model, sources.experts)]


def fill_layers(model, base, settings: AssembleSettings, sources: Sources) -> list[str]:
    """Copies the layers of fine-tuned models to experts, and the chosen embeddings; returns notes."""
    from routing_moe.model.conversion import TIED_NAMES, weights_of_layers

    tied = model.config.tie_word_embeddings

    def outside(state) -> dict[str, "Tensor"]:
        own = {n: t for n, t in state.items() if ".layers." not in n}
        return {n: t for n, t in own.items() if not (tied and TIED_NAMES.search(n))}

    chosen, distances = outside(base.state_dict()), {}
    averaged = {BASE: (), MEAN: tuple(sources.experts)}.get(settings.embeddings, (settings.embeddings,))
    for i, name in enumerate(averaged):  # models are read twice, so that only one is in memory
        own = outside(state_of(name, base, sources))
        chosen = {n: mean.lerp(own[n], 1 / (i + 1)) for n, mean in chosen.items()}
    model.load_state_dict(chosen, strict=False)
    for expert, name in enumerate(sources.experts):
        state = state_of(name, base, sources)
        for layer, weights in weights_of_layers(model, state):
            layer.experts[expert].load_state_dict(weights)
        distances[name] = distance(outside(state), chosen)
    return [embedding_note(settings.embeddings, distances)]


def state_of(name: str, base, sources: Sources) -> dict[str, "Tensor"]:
    """Returns the state dict of the plain BART that an expert is made from."""
    with problem_context(f"--experts {name}: "):
        if name in sources.adapters:
            return with_adapter(base, sources.experts[name])
        return sources.experts[name].load().to_bart().state_dict()


def with_adapter(base, adapter: "Adapter") -> dict[str, "Tensor"]:
    """Returns the state dict of the base with the updates of an adapter."""
    state = dict(base.state_dict())
    for name, update in adapter.updates.items():
        weight = state.get(f"model.{name}.weight")
        if weight is None or weight.shape != (len(update.B), update.A.shape[1]):
            raise InputError(f"{adapter.folder}: {name} does not fit the layers of the base")
        state[f"model.{name}.weight"] = update.merged(weight)
    return state


def distance(tensors: Mapping[str, "Tensor"], others: Mapping[str, "Tensor"]) -> float:
    """Returns the norm of the difference of all tensors, relative to the norm of the others."""
    squares = [
        (float((tensors[n] - other).square().sum()), float(other.square().sum()))
        for n, other in others.items()
    ]
    different, all_of_others = map(sum, zip(*squares, strict=True))
    return math.sqrt(different / all_of_others) if all_of_others else math.inf if different else 0.0


# ---- what a user should know


def embedding_note(chosen: str, distances: Mapping[str, float]) -> str:
    """Returns how far the models' own embeddings are from those of the mixture."""
    of = {BASE: "the base", MEAN: "the mean of all models"}.get(chosen, chosen)
    start = f"embeddings, and norms outside the layers: of {of}; "
    if not any(distances.values()):
        return start + "all models have the same, so that each task's route is its own model"
    farthest = max(distances, key=distances.get)
    return start + (
        f"those of the models differ from them by {min(distances.values()):.2g} to "
        f"{distances[farthest]:.2g} of their norm ({farthest}), so that answers are not exactly those of the "
        "models; finetune --freeze_embeds keeps those of the base"
    )


def base_notes(settings: AssembleSettings, sources: Sources) -> list[str]:
    """Returns notes on adapters that name another base."""
    return [
        f"note: {name} was made for the base {adapter.base}, not {settings.base}, as its configuration says"
        for name, adapter in sources.adapters.items()
        if adapter.base not in (None, "", settings.base, os.path.realpath(settings.base))
    ]


def text_notes(model, sources: Mapping[str, "Adapter | SavedBart | SavedMixture"]) -> list[str]:
    """Keeps how texts are read and answered, if all of {name: model} that say so agree; returns notes."""
    barts = {name: source for name, source in sources.items() if isinstance(source, SavedBart | SavedMixture)}
    known = {
        name: source.config.text_settings for name, source in barts.items() if source.config.text_settings
    }
    different = [name for name in known if known[name] != next(iter(known.values()))]
    if different:
        return [
            f"note: {in_short(different)} read texts in other ways than {next(iter(known))}: none is kept"
        ]
    model.config.text_settings = next(iter(known.values()), None)
    return []


# ---- writing


def write_assembled(
    settings: AssembleSettings, sources: Sources, model, folder: Path, command: list[str]
) -> None:
    """Writes the checkpoint with `assembled.json` to a folder, atomically. command: as for `describe_run`."""
    with problem_context("--base "):
        tokenizer = load_tokenizer(sources.base.place, model.config.vocab_size)
    keep = {ASSEMBLED_FILE: made_of(settings, command, sources.made_of())}
    save_checkpoint(model, tokenizer, folder, keep=keep)


def made_of(settings: Command, command: list[str], checksums: Mapping) -> bytes:
    """Returns the description of a checkpoint that was made of others as JSON."""
    written = json.loads(json.dumps(settings.to_dict(), default=str))
    return json.dumps(describe_run(written, command) | {"made_of": checksums}, indent=1).encode()
