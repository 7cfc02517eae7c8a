"""The model a run starts from: a plain BART made into experts, or a checkpoint; and its task vectors."""

from pathlib import Path

import torch
from transformers import AutoTokenizer, BartForConditionalGeneration

from dataloader.errors import InputError
from dataloader.task_splits import Split
from routing_moe.modeling import RoutingBartForConditionalGeneration
from routing_moe.run_state import find_checkpoint
from routing_moe.settings import Settings
from routing_moe.task_vectors import load_task_vectors
from routing_moe.upcycling import load_plain_weights, load_vanilla_checkpoint

# What the architecture flags mean when they are not given and a model is made from a plain BART.
ARCHITECTURE_DEFAULTS = {
    "num_experts": 3,
    "router_nn_type": "linear_layer_specific",
    "router_hidden_dim": 64,
    "router_mode": "gumbel_softmax_st",
    "taskvecs_dim": 768,
    "encoder_vanilla_layers": [],
    "decoder_vanilla_layers": [],
}


def architecture(settings: Settings) -> dict:
    """RoutingBartConfig fields that the flags ask for, defaults filled in."""
    chosen = {
        name: default if getattr(settings, name) is None else getattr(settings, name)
        for name, default in ARCHITECTURE_DEFAULTS.items()
    }
    chosen["router_input_dim"] = chosen.pop("taskvecs_dim")
    return chosen | {"exploration_epsilon": settings.exploration_epsilon}


def checkpoint_to_start_from(settings: Settings) -> Path | None:
    """The checkpoint folder that the flags name, or None for a start from a plain BART or a missing one."""
    output_dir = Path(settings.output_dir)
    if settings.do_train and settings.resume and (last := find_checkpoint(output_dir / "last")):
        return last
    if settings.do_train and settings.initialize_from_vanilla:
        return None
    return find_checkpoint(settings.checkpoint or output_dir / settings.checkpoint_name)


def load_start(settings: Settings, split: Split, section: str):
    """(model, tokenizer) to start from. A new model gets vectors for every task of the split; a checkpoint
    must have them for the section that will be used.

    Raises InputError when the weights, vectors or tokenizer do not fit together.
    """
    checkpoint = checkpoint_to_start_from(settings)
    if checkpoint is None:
        model, source = model_from_bart(settings, list(split.all)), settings.model
    else:
        model, source = load_checkpoint(checkpoint, settings, list(split.section(section))), checkpoint
    tokenizer = AutoTokenizer.from_pretrained(source)
    if len(tokenizer) > model.config.vocab_size:
        raise InputError(
            f"the tokenizer of {source} has {len(tokenizer)} tokens, more than the {model.config.vocab_size} "
            "embeddings of the model; they do not belong together"
        )
    model.task_vectors.weight.requires_grad_(not settings.freeze_task_model)
    return model, tokenizer


def model_from_bart(settings: Settings, tasks: list[str]) -> RoutingBartForConditionalGeneration:
    """Experts from `--model`'s weights (or `--vanilla_checkpoint`'s), vectors from `--taskvecs` or random."""
    fields, names, vectors = architecture(settings), sorted(tasks), None
    if settings.taskvecs:
        names, vectors = load_task_vectors(settings.taskvecs)
        fields["router_input_dim"] = vectors.shape[1]
    torch.manual_seed(settings.seed)
    bart = BartForConditionalGeneration.from_pretrained(settings.model, dtype=torch.float32)
    num_experts = fields.pop("num_experts")
    model = RoutingBartForConditionalGeneration.from_bart(
        bart, num_experts, settings.init_eps, task_names=names, **fields
    )
    if settings.vanilla_checkpoint:
        load_plain_weights(model, load_vanilla_checkpoint(settings.vanilla_checkpoint), settings.init_eps)
    if vectors is not None:
        model.task_vectors.weight.data.copy_(torch.from_numpy(vectors))
    return model


def load_checkpoint(
    checkpoint: Path, settings: Settings, tasks: list[str]
) -> RoutingBartForConditionalGeneration:
    """A saved routing BART, with the flags that may change between stages applied."""
    try:
        model = RoutingBartForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32)
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"{checkpoint}: is not a checkpoint of a routing BART ({error})") from None
    faults = architecture_conflicts(model.config, settings, checkpoint)
    lacking = sorted(set(tasks) - set(model.config.task_names))
    if lacking:
        faults.append(
            f"{checkpoint} has no task vector for {', '.join(lacking[:5])}"
            + (f" and {len(lacking) - 5} more" if len(lacking) > 5 else "")
        )
    if faults:
        raise InputError(faults)
    model.config.router_mode = settings.router_mode or model.config.router_mode
    model.config.exploration_epsilon = settings.exploration_epsilon
    return model


def architecture_conflicts(config, settings: Settings, checkpoint: Path) -> list[str]:
    """Architecture flags given explicitly that the checkpoint contradicts (its own are used otherwise)."""
    flags = {
        "num_experts": "num_experts",
        "router_nn_type": "router_nn_type",
        "router_hidden_dim": "router_hidden_dim",
        "taskvecs_dim": "router_input_dim",
        "encoder_vanilla_layers": "encoder_vanilla_layers",
        "decoder_vanilla_layers": "decoder_vanilla_layers",
    }
    return [
        f"--{flag} is {getattr(settings, flag)}, but {checkpoint} was trained with {getattr(config, field)}; "
        "leave the flag out to use the checkpoint's"
        for flag, field in flags.items()
        if getattr(settings, flag) is not None and getattr(settings, flag) != getattr(config, field)
    ]
